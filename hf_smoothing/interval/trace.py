"""What is noted down while a box travels through a network: for batch norms, for losses, and for backward bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn, Protocol, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from hf_smoothing.interval.memory import Memory
from hf_smoothing.interval.refusals import UnsupportedOperationError, refuse


def modes_entered() -> int:
    """How many modes of torch below its functions are entered."""
    return len(_get_current_dispatch_mode_stack())


def forward_mode_enabled() -> bool:
    """Whether torch takes derivatives in forward mode: everywhere but in the forward of an `autograd.Function` and in inference mode."""
    return torch._C._is_fwd_grad_enabled()


@dataclass
class Trace:
    """What is noted down while a box travels.

    Attributes:
        outward: Whether every result is widened by a bound on its own rounding error.
        cover_run: Whether it is widened as well by a bound on the rounding of the network as it is run, in the dtype of the boxes.
        real: Whether certificates are of real arithmetic, so that autocast, which no bound covers, is noted in `autocast` and no error.
        autocast: Whether an operation met autocast.
        tolerant: Whether images for which an operation has no bound (a division by an interval around 0) are noted in `hopeless`
            and go on without meaning, in place of an error.
        hopeless: Mask, bool (batch,): those images, or None if there are none.
        reason: Why the first of them has none, a sentence.
        statistics: Batch mean and variance of each batch norm in train mode, in the order of the calls: those of the clean batch.
        read: How many of `statistics` have been read.
        before_activations: The boxes that entered an activation.
        weights: Weights of the linear layers and convolutions passed.
        last_linear: The last linear layer passed.
        origins: Whether each box remembers where it came from, for backward bounds.
        tighten: Whether what enters a ReLU is bounded backward as well (CROWN), not by intervals alone (CROWN-IBP); needs `origins`.
        steps: Steps by which the slopes of the lines below the ReLUs are optimised at the end (alpha-CROWN); needs `origins`.
        modes: How many modes of torch below its functions (`TorchDispatchMode`) were entered when the journey began.
        forward_mode: Whether `forward_mode_enabled` held when the journey began.
        refusal: The first refusal of an operation, which the network may have caught to go another way than with tensors.
    """

    outward: bool = False
    cover_run: bool = False
    real: bool = False
    autocast: bool = False
    tolerant: bool = False
    hopeless: Tensor | None = None
    statistics: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    read: int = 0
    before_activations: list[BoxLike] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    last_linear: LinearLayer | None = None
    origins: bool = False
    tighten: bool = False
    steps: int = 0
    modes: int = field(default_factory=modes_entered)
    forward_mode: bool = field(default_factory=forward_mode_enabled)
    refusal: Exception | None = None
    reason: str = ""

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse the sum of a diagonal, which tensors have under this name; the network may catch it."""
        self.refusal = self.refusal or UnsupportedOperationError("There is no sound bound for 'trace'.")
        raise self.refusal

    def give_up(self, where: Tensor, batch: int | None, name: str, why: str) -> None:
        """Note the images that have an entry without a bound, or refuse the operation.

        Args:
            where: Mask, bool, of the shape of the box.
            batch: Dimension of the images.
            name: Name of the operation.
            why: A sentence for the refusal.

        Raises:
            UnsupportedOperationError: Unless the trace is tolerant.
        """
        if not bool(where.any()):
            return
        if not self.tolerant or batch is None:
            refuse(name, why)
        self.reason = self.reason or f"{name!r} has none. {why}"
        found = where.movedim(batch, 0).reshape(where.shape[batch], -1).any(1)
        self.hopeless = found if self.hopeless is None else self.hopeless | found

    def forget(self) -> None:
        """Let go of the boxes of the run, which refer back to their trace: their memory is free at once, not at some later garbage collection."""
        self.before_activations, self.weights, self.last_linear = [], [], None


@dataclass(frozen=True)
class LinearLayer:
    """A linear layer that was passed.

    Attributes:
        weight, bias: As the bounds took them.
        before: Box that went in.
        number: Number of the box that came out.
        error: What the rounding of the run adds to what came out, at most.
    """

    weight: Tensor
    bias: Tensor | None
    before: BoxLike
    number: int
    error: Tensor | None


@dataclass(frozen=True)
class Linear:
    """One input of an affine step.

    Attributes:
        source: The box that went in.
        function: The linear map of a tensor of the shape of `source`, without its constant part.
        absolute: The same with the absolute values of its weights.
        terms: Number of terms summed for one entry at most.
    """

    source: BoxLike
    function: Callable[[Tensor], Tensor]
    absolute: Callable[[Tensor], Tensor]
    terms: int

    @cached_property
    def sizes(self) -> Tensor:
        """|W| |x| of the largest x of the source, of the shape of what came out."""
        return self.absolute(self.source.largest)


@dataclass(frozen=True)
class Origin:
    """How a box came to be: y = sum of linear maps + shift, or between two lines over one box (see `crown`).

    Attributes:
        parts: The linear maps; empty for an activation.
        shift: Constant part of the affine map, of a shape that broadcasts to the box.
        shift_sizes: The sum of the absolute values that the shift was made of, which bounds its rounding.
        relu: The box before a ReLU.
        error: Errors, of the shape of the box: what the rounding of the run adds to this step, at most.
    """

    parts: tuple[Linear, ...] = ()
    shift: Tensor | float = 0.0
    shift_sizes: Tensor | float = 0.0
    relu: BoxLike | None = None
    error: Tensor | None = None


class BoxLike(Protocol):
    """What a trace, `dispatch` and `crown` use of a box: the class itself (`box.Box`) is built upon them."""

    trace: Trace
    batch: int | None
    origin: Origin | None
    number: int
    memory: Memory
    version: int

    @property
    def dtype(self) -> torch.dtype:
        """The precision that the network computes in."""

    @property
    def lower(self) -> Tensor:
        """The lower end."""

    @property
    def upper(self) -> Tensor:
        """The upper end."""

    @property
    def centre(self) -> Tensor:
        """The midpoint."""

    @property
    def radius(self) -> Tensor:
        """Half the width."""

    @property
    def like(self) -> Tensor:
        """A tensor of the shape, dtype and device of both ends."""

    @property
    def largest(self) -> Tensor:
        """The largest absolute value of each entry."""

    @property
    def shape(self) -> torch.Size:
        """The shape of each end."""

    def frozen(self) -> Self:
        """The same content in another object."""

    def become(self, other: Self, name: str) -> None:
        """Take the content of another box, as the operation in place of this name does."""


def same(x: torch.Tensor) -> torch.Tensor:
    """Unchanged."""
    return x
