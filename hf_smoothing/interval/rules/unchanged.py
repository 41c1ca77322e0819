"""Operations after which every entry is where and what it was: other layouts, dtypes and devices, and what is random in training only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hf_smoothing.interval.box import Box
from hf_smoothing.interval.refusals import refuse
from hf_smoothing.interval.registry import rule
from hf_smoothing.interval.rounding import widened
from hf_smoothing.interval.trace import Linear, same


def _unchanged(box: Box, function: Callable[[Tensor], Tensor] = same) -> Box:
    """Whatever autograd or the layout make of it, the values stay."""
    return box.map(function).came_from(Linear(box, same, same, 1))


@rule("contiguous", views=True)
def contiguous(box: Box, memory_format: Any = None) -> Box:
    """Another layout."""
    return _unchanged(box)


@rule("detach", views=True)
def detach(box: Box) -> Box:
    """Without gradients."""
    return _unchanged(box, torch.Tensor.detach)


@rule("clone")
def clone(box: Box, *, memory_format: Any = None) -> Box:
    """A copy, with memory of its own."""
    return _unchanged(box)


@rule("to", views=True)
def to(box: Box, *args: Any, non_blocking: bool = False, memory_format: Any = None, **named: Any) -> Box:
    """Another dtype or device: one rounding to a narrower dtype; the bounds keep theirs, or take a wider one."""
    given = torch.empty(0, dtype=box.dtype, device=box.device).to(*args, **named)
    if not given.dtype.is_floating_point:
        refuse("to", f"Boxes are of real numbers, got {given.dtype}.")
    if (given.dtype, given.device) == (box.dtype, box.device) and not named.get("copy", False):
        return box  # as torch does; a head's logits are still those of a linear layer
    ends = torch.promote_types(box.like.dtype, given.dtype)
    result = box.map(lambda x: x.to(device=given.device, dtype=ends), dtype=given.dtype)
    if torch.finfo(given.dtype).eps > torch.finfo(box.dtype).eps:
        result = widened(result, terms=2, name="to")

    def linear(x: Tensor) -> Tensor:
        return x.to(device=given.device, dtype=ends)

    return result.came_from(Linear(box, linear, linear, 1))


@rule("type_as", boxes=("input", "other"), views=True)
def type_as(input: Any, other: Any) -> Any:
    """To the dtype and device of another tensor."""
    if isinstance(input, Box):
        return to(input, device=other.device, dtype=other.dtype)
    return input.to(device=other.device, dtype=other.dtype)


@rule("positive", views=True)
def positive(box: Box) -> Box:
    """A plus sign."""
    return _unchanged(box)


def _cast(name: str, dtype: torch.dtype) -> None:
    @rule(name, views=True)
    def cast(box: Box, memory_format: Any = None) -> Box:
        """To the dtype of this name."""
        return to(box, dtype)


_cast("float", torch.float32)
_cast("double", torch.float64)
_cast("half", torch.float16)
_cast("bfloat16", torch.bfloat16)


def _dropout(name: str) -> Callable[..., Box]:
    def dropout(box: Box, p: float = 0.5, training: bool = True, inplace: bool = False) -> Box:
        """Nothing in eval mode; random in train mode."""
        if training and p > 0.0:
            raise ValueError(
                "Dropout is random in train mode, so it has no bounds. Call model.eval(), or set its p to 0."
            )
        return _unchanged(box)

    return rule(name, views=True)(dropout)


for _name in ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"):
    _dropout(_name)
