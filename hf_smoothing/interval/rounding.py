"""Outward rounding: what floating point may have lost is added to both ends."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_smoothing.interval.box import Box


def widened(box: Box, *, terms: int, sizes: Tensor | None = None) -> Box:
    """The box with both ends moved outward by a bound on the rounding error of the operation that made it.

    A sum of n products, in any order and with or without fused multiplication, is off by at most gamma_n times the sum of the
    products' absolute values, gamma_n = n u / (1 - n u), u half the machine epsilon (Higham, *Accuracy and Stability of Numerical
    Algorithms*, section 3.1). Twice that is taken, for the rounding of the ends and of this bound itself.

    Args:
        box: made by an operation; unchanged unless its trace rounds outward.
        terms: n.
        sizes: the sums of absolute values; by default the larger end.

    Raises:
        ValueError: where n is too large for the dtype.
    """
    if not box.trace.outward:
        return box
    info = torch.finfo(box.dtype)
    unit = info.eps / 2
    sizes = box.largest if sizes is None else sizes
    if 4 * terms * unit > 1:
        raise ValueError(
            f"Sums of {terms:,} numbers have no useful bound on their rounding in {box.dtype}. Bound in float64."
        )
    slack = 2 * (terms * unit / (1 - terms * unit)) * sizes + 2 * info.tiny
    return Box(box.lower - slack, box.upper + slack, box.value, box.trace)
