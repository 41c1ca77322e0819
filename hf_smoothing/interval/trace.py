"""What is noted down while a box travels through a network: for batch norms, for losses, and for backward bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor


if TYPE_CHECKING:
    from hf_smoothing.interval.box import Box


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
