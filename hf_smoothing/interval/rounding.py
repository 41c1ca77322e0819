"""Outward rounding: what floating point may have lost, here and in a run of the network, is added to both ends."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_smoothing.interval.box import Box
from hf_smoothing.interval.refusals import refuse


FLUSHED = torch.finfo(torch.float32).tiny
"""A run may take any number below this for 0, where it reads it and where it writes it; also in float64, which may be given float32 numbers."""


def widened(box: Box, *, terms: int, name: str, sizes: Tensor | None = None) -> Box:
    """The box with both ends moved outward by bounds on the rounding error of the operation that made it.

    A sum of n products, in any order and with or without fused multiplication, is off by at most gamma_n times the sum of the
    products' absolute values, gamma_n = n u / (1 - n u), u half the machine epsilon (Higham, *Accuracy and Stability of Numerical
    Algorithms*, section 3.1). For the bounds themselves twice that is taken, for the rounding of the ends and of this bound itself.
    Where the trace covers the run as well, gamma_n of the network's dtype comes on top: boxes then hold every number that a run
    computes from an image in the first box, by induction from layer to layer. Numbers too small for a normal float may be flushed
    to 0, each: terms and results here, factors where `sizes` say so (`flushed`). Numbers too large for the dtype leave an image
    without bounds.

    Args:
        box: Result of an operation; unchanged unless its trace rounds outward.
        terms: Number of terms, n.
        name: Name of the operation, for messages.
        sizes: The sums of absolute values; by default the larger end.

    Raises:
        ValueError: Where n is too large for the dtype of the bounds.
        UnsupportedOperationError: Where a run in less than float32 would have to be covered.
    """
    trace = box.trace
    if not trace.outward:
        return box
    sizes = box.largest if sizes is None else sizes.expand(box.shape)
    own, run = torch.finfo(sizes.dtype), torch.finfo(box.dtype)
    if 4 * terms * own.eps / 2 > 1:
        raise ValueError(
            f"Sums of {terms:,} numbers have no useful bound on their rounding in {sizes.dtype}. Bound in float64."
        )
    error = slack = 2 * _gamma(terms, own.eps / 2) * sizes + (terms + 2) * FLUSHED
    limit = own.max / 4
    if trace.cover_run:
        if run.eps > torch.finfo(torch.float32).eps:
            refuse(name, f"A run in {box.dtype} is not covered: call .float() first, or certify with cover_run=False.")
        if terms * run.eps > 1:
            refuse(name, f"A run in {box.dtype} that sums {terms:,} numbers is not covered: call .double() first.")
        # A little more than gamma, for the rounding of this product.
        error = (1.0 + 1e-6) * _gamma(terms, run.eps / 2) * sizes + (terms + 2) * FLUSHED
        slack, limit = slack + error, min(limit, run.max / 4)
    result = box.make(box.lower - slack, box.upper + slack)
    result.error = error  # without a run as well: a weight that was read as 0 here is another one on the way back
    trace.give_up(~(sizes < limit), box.batch, name, f"Numbers of this size overflow {box.dtype}.")
    return result


def flushed(box: Box) -> float:
    """What to add to the absolute value of a factor, so that the rounding of a product covers that a run may take it for 0.

    Weights that decayed may be subnormal, and times a large number no small one. n products with it are given n / 2 times more rounding
    than one of them can lose, for any other number less than can be written down.
    """
    return FLUSHED / torch.finfo(box.dtype if box.trace.cover_run else box.like.dtype).eps


def give_up_overflow(box: Box, sizes: Tensor, name: str) -> None:
    """Leave images without bounds where numbers on the way to a result, which itself is small again, overflow the dtype of a run.

    Args:
        box: Box with the images in the same dimension as `sizes`; nothing happens unless its trace rounds outward.
        sizes: Sizes of the largest such numbers.
        name: Name of the operation, for messages.
    """
    if box.trace.outward:
        limit = torch.finfo(box.dtype if box.trace.cover_run else sizes.dtype).max / 4
        box.trace.give_up(~(sizes < limit), box.batch, name, f"Intermediate numbers overflow {box.dtype}.")


def _gamma(terms: int, unit: float) -> float:
    return terms * unit / (1 - terms * unit)
