"""Constants that meet a box: exactly as the network has them in its own dtype, then in that of the bounds."""

from __future__ import annotations

import numbers
from typing import Any

import torch
from torch import Tensor

from hf_smoothing.interval.box import Box
from hf_smoothing.interval.refusals import UnsupportedOperationError


def constant(value: Any, box: Box) -> tuple[Tensor, torch.dtype]:
    """A number or tensor that is combined with a box, and the dtype in which the network computes the result.

    Python numbers and tensors without dimensions are rounded to the dtype of the network first, as torch does; tensors keep
    what they are. The tensor is a copy where bounds look at it later (margins and backward bounds), since the network may change its own in place.

    Raises:
        UnsupportedOperationError: If it is neither.
    """
    if isinstance(value, numbers.Real):
        value = int(value) if isinstance(value, numbers.Integral) else float(value)
    elif not isinstance(value, Tensor):
        raise UnsupportedOperationError(
            f"A box is combined with boxes, tensors and numbers, got {type(value).__name__}. Convert it with torch.as_tensor."
        )
    as_run = torch.result_type(torch.empty(1, dtype=box.dtype), value)
    if as_run.is_complex:
        raise UnsupportedOperationError(f"A box is combined with real numbers, got {value.dtype}.")
    tensor = value.to(as_run) if isinstance(value, Tensor) else torch.tensor(value, dtype=as_run, device=box.device)
    return weight(tensor, box), as_run


def weight(value: Tensor, box: Box) -> Tensor:
    """A tensor of weights in the dtype of the bounds; a copy where the network could change it in place before it is looked at again.

    Raises:
        UnsupportedOperationError: If it is sparse, quantised or of another layout that is not dense.
    """
    if not_dense(value):
        raise UnsupportedOperationError(f"There is no sound bound for {not_dense(value)} tensors. {DENSE}")
    return value.to(torch.promote_types(value.dtype, box.like.dtype), copy=box.trace.origins or box.trace.outward)


DENSE = "Call to_dense() on it, or dequantize()."


def not_dense(value: Tensor) -> str:
    """What a tensor is that has not one number of floating point for each entry, such as "sparse_coo"; "" for all others."""
    if value.layout is not torch.strided:
        return str(value.layout).removeprefix("torch.")
    return "quantised" if value.is_quantized else ""


def number(value: Any, box: Box, name: str) -> float:
    """A number that is an option of an operation, such as a slope, rounded to the dtype of the network.

    Raises:
        UnsupportedOperationError: If it is no number.
    """
    if not isinstance(value, numbers.Real):
        raise UnsupportedOperationError(
            f"There is no sound bound for {name!r} with an option that is no number: got {type(value).__name__}."
        )
    return float(torch.tensor(float(value), dtype=box.dtype))
