"""A box that travels through a network in place of a tensor: lower <= x <= upper, elementwise."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


class UnsupportedOperationError(TypeError):
    """An operation of the network for which there is no sound bound here."""


@dataclass
class Trace:
    """What is noted down while a box travels.

    Attributes:
        outward: whether every result is widened by a bound on its rounding error.
        statistics: batch mean and variance of each batch norm in train mode, in the order of the calls. A box with a value writes
            them, one without reads them.
        update_running: whether a batch norm in train mode updates its running statistics.
        read: how many of `statistics` have been read.
        before_activations: the boxes that entered an activation.
        weights: of the linear layers and convolutions passed.
        last_linear: weight, bias, input and output of the last linear layer passed.
        origins: whether each box remembers where it came from, for backward bounds.
    """

    outward: bool = False
    statistics: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    update_running: bool = True
    read: int = 0
    before_activations: list[Box] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    last_linear: tuple[Tensor, Tensor | None, Box, Box] | None = None
    origins: bool = False


@dataclass(frozen=True)
class Linear:
    """One input of an affine step.

    Attributes:
        source: the box that went in.
        function: the linear map of a tensor of the shape of `source`, without its constant part.
        absolute: the same with the absolute values of its weights.
        terms: numbers summed for one entry at most.
    """

    source: Box
    function: Callable[[Tensor], Tensor]
    absolute: Callable[[Tensor], Tensor]
    terms: int


@dataclass(frozen=True)
class Origin:
    """How a box came to be: y = sum of linear maps + shift, or between two lines over one box (see `crown`).

    Attributes:
        parts: the linear maps; empty for an activation.
        shift: constant part of the affine map, of a shape that broadcasts to the box.
        shift_sizes: the sum of the absolute values that the shift was made of, which bounds its rounding.
        activation: the box before a ReLU.
    """

    parts: tuple[Linear, ...] = ()
    shift: Tensor | float = 0.0
    shift_sizes: Tensor | float = 0.0
    activation: Box | None = None


class Box:
    """An axis-parallel box of tensors, which torch functions and modules take like a tensor.

    Args:
        lower, upper: tensors of one shape, the batch first; lower <= upper.
        value: a tensor in the box, such as the clean activation; needed by batch norm in train mode.
        trace: what is noted down; shared by all boxes that come of this one.

    Raises (when an operation is applied): UnsupportedOperationError, naming it.
    """

    __iter__ = None  # a box is no sequence, although it can be indexed

    def __init__(self, lower: Tensor, upper: Tensor, value: Tensor | None = None, trace: Trace | None = None) -> None:
        self._ends: tuple[Tensor, Tensor] | None = (lower, upper)
        self._middle: tuple[Tensor, Tensor] | None = None
        self.value = value
        self.trace = trace or Trace()
        self.origin: Origin | None = None
        self.number = next(_NUMBERS)

    @classmethod
    def around(cls, centre: Tensor, radius: Tensor, value: Tensor | None, trace: Trace) -> Box:
        """The box centre - radius <= x <= centre + radius; its ends are computed when somebody asks for them."""
        box = cls(centre, centre, value, trace)
        box._ends, box._middle = None, (centre, radius)
        return box

    @property
    def lower(self) -> Tensor:
        """The lower end."""
        return self._both_ends()[0]

    @property
    def upper(self) -> Tensor:
        """The upper end."""
        return self._both_ends()[1]

    def _both_ends(self) -> tuple[Tensor, Tensor]:
        if self._ends is None:
            assert self._middle is not None
            centre, radius = self._middle
            self._ends = centre - radius, centre + radius
        return self._ends

    @property
    def centre(self) -> Tensor:
        """Midpoint."""
        return self._middle[0] if self._middle else (self.lower + self.upper) / 2

    @property
    def radius(self) -> Tensor:
        """Half the width."""
        return self._middle[1] if self._middle else (self.upper - self.lower) / 2

    @property
    def _any(self) -> Tensor:
        """A tensor of the shape, dtype and device of both ends."""
        return self._middle[0] if self._middle else self.lower

    @property
    def largest(self) -> Tensor:
        """The largest absolute value of each entry."""
        return torch.maximum(self.lower.abs(), self.upper.abs())

    @property
    def shape(self) -> torch.Size:
        """Of each end."""
        return self._any.shape

    def __len__(self) -> int:
        return len(self._any)

    @property
    def dtype(self) -> torch.dtype:
        """Of each end."""
        return self._any.dtype

    @property
    def device(self) -> torch.device:
        """Of each end."""
        return self._any.device

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self._any.ndim

    def size(self, dim: int | None = None) -> Any:
        """As `Tensor.size`."""
        return self._any.size() if dim is None else self._any.size(dim)

    def dim(self) -> int:
        """As `Tensor.dim`."""
        return self._any.dim()

    def is_floating_point(self) -> bool:
        """As `Tensor.is_floating_point`."""
        return self.dtype.is_floating_point

    def map(self, function: Callable[[Tensor], Tensor]) -> Box:
        """The box of an elementwise non-decreasing function, or of one that moves entries about."""
        value = None if self.value is None else function(self.value)
        return Box(function(self.lower), function(self.upper), value, self.trace)

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        from hf_smoothing.interval.rules import RULES

        rule = RULES.get(function)
        if rule is None:
            name = getattr(function, "__name__", str(function))
            raise UnsupportedOperationError(
                f"There is no sound bound for {name!r}. Interval bounds are for networks of linear layers, convolutions, batch norm, monotone "
                f"activations, pooling, additions and reshapes.{_REASONS.get(name, '')}"
            )
        return rule(*args, **(kwargs or {}))

    def __getattr__(self, name: str) -> Any:
        method = getattr(torch.Tensor, name, None)
        if name.startswith("__") or method is None:
            raise AttributeError(f"A box has no attribute {name!r}.")
        return functools.partial(_apply, method, self)

    def __getitem__(self, index: Any) -> Box:
        def function(x: Tensor) -> Tensor:
            return x[index]

        # An index may name an entry twice, whose coefficients are then added on the way back.
        return self.map(function).came_from(Linear(self, function, function, 2))

    def came_from(self, *parts: Linear, shift: Tensor | float = 0.0, shift_sizes: Tensor | float = 0.0) -> Box:
        """Remember, if the trace asks for it, that this box is the sum of linear maps of others and a constant."""
        if self.trace.origins:
            self.origin = Origin(parts, shift, shift_sizes)
        return self

    def __add__(self, other: Any) -> Any:
        return _apply(torch.add, self, other)

    def __sub__(self, other: Any) -> Any:
        return _apply(torch.sub, self, other)

    def __mul__(self, other: Any) -> Any:
        return _apply(torch.mul, self, other)

    def __truediv__(self, other: Any) -> Any:
        return _apply(torch.div, self, other)

    def __neg__(self) -> Any:
        return _apply(torch.mul, self, -1.0)

    # Never in place: the box may also travel another way, as in a residual connection.
    __iadd__ = __radd__ = __add__
    __isub__ = __sub__
    __imul__ = __rmul__ = __mul__


_NUMBERS = itertools.count()


def _apply(function: Any, *args: Any, **kwargs: Any) -> Any:
    return Box.__torch_function__(function, (Box,), args, kwargs)


_REASONS = {
    "softmax": " Through softmax attention they say nothing: one layer of a ViT turns epsilon 1/2550 into a gap of more than 100,000 logits.",
    "scaled_dot_product_attention": " Through attention they say nothing: one layer of a ViT turns epsilon 1/2550 into a gap of more than 100,000 logits.",
    "layer_norm": " Layer norm divides by a spread that an interval cannot bound well; use batch norm.",
}
