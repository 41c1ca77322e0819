"""A box that travels through a network in place of a tensor: lower <= x <= upper, elementwise."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hf_smoothing.interval.trace import Linear, Origin, Trace


class UnsupportedOperationError(TypeError):
    """An operation of the network for which there is no sound bound here."""


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
        self.spent = False  # an operation in place has put another box in its place
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

        rule, name = RULES.get(function), getattr(function, "__name__", str(function))
        if rule is None:
            raise UnsupportedOperationError(
                f"There is no sound bound for {name!r}. Interval bounds are for networks of linear layers, convolutions, batch norm, monotone "
                f"activations, pooling, additions and reshapes.{_REASONS.get(name, '')}"
            )
        kwargs = kwargs or {}
        for box in _boxes_in(args):
            box.check_unspent()
        result = rule(*args, **kwargs)
        in_place = (name.endswith("_") and not name.endswith("__")) or kwargs.get("inplace")
        if in_place and result is not args[0]:
            args[0].spent = True
        return result

    def check_unspent(self) -> None:
        """Refuse a box that was changed in place since, as the tensor in its place would be a changed one.

        Raises:
            UnsupportedOperationError: saying so.
        """
        if self.spent:
            raise UnsupportedOperationError(
                "The network uses a tensor again after it was changed in place, which boxes do not follow. Take the operation that is not in place, "
                "such as ReLU(inplace=False), x = x + 1 or x = x.relu()."
            )

    def __getattr__(self, name: str) -> Any:
        method = getattr(torch.Tensor, name, None)
        if name.startswith("__") or not callable(method):  # a property of tensors may mean nothing for a box
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

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: Any) -> Any:
        return _apply(torch.add, _apply(torch.mul, self, -1.0), other)

    def __iadd__(self, other: Any) -> Any:
        return _apply(torch.Tensor.add_, self, other)

    def __isub__(self, other: Any) -> Any:
        return _apply(torch.Tensor.sub_, self, other)

    def __imul__(self, other: Any) -> Any:
        return _apply(torch.Tensor.mul_, self, other)

    def __eq__(self, other: object) -> bool:
        raise UnsupportedOperationError("There is no sound bound for a comparison of a box.")

    __hash__ = object.__hash__


_NUMBERS = itertools.count()


def _boxes_in(args: tuple[Any, ...]) -> list[Box]:
    found = [arg for arg in args if isinstance(arg, Box)]
    return found + [part for arg in args if isinstance(arg, (list, tuple)) for part in arg if isinstance(part, Box)]


def _apply(function: Any, *args: Any, **kwargs: Any) -> Any:
    return Box.__torch_function__(function, (Box,), args, kwargs)


_REASONS = {
    "softmax": " Through softmax attention they say nothing: one layer of a ViT turns epsilon 1/2550 into a gap of more than 100,000 logits.",
    "scaled_dot_product_attention": " Through attention they say nothing: one layer of a ViT turns epsilon 1/2550 into a gap of more than 100,000 logits.",
    "layer_norm": " Layer norm divides by a spread that an interval cannot bound well; use batch norm.",
}
