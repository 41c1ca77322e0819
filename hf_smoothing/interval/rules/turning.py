"""Elementwise functions that turn once: decreasing before, increasing after (or the reverse), so that the extremes are at the ends or there."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_smoothing.interval.box import Box
from hf_smoothing.interval.constants import constant
from hf_smoothing.interval.hinges import bent
from hf_smoothing.interval.refusals import refuse
from hf_smoothing.interval.registry import rule
from hf_smoothing.interval.rounding import FLUSHED, flushed, widened
from hf_smoothing.interval.rules.elementwise import noted_for_training, rounded


def _turning_at_zero(box: Box, function: Callable[[Tensor], Tensor]) -> Box:
    """The box of a function with f(0) = 0 that is monotone on either side of 0."""
    low, high = function(box.lower), function(box.upper)
    inside = (box.lower <= 0) & (box.upper >= 0)
    lower, upper = torch.minimum(low, high), torch.maximum(low, high)
    lower = torch.where(inside, lower.clamp(max=0.0), lower)
    upper = torch.where(inside, upper.clamp(min=0.0), upper)
    return box.make(lower, upper)


@rule("abs", "absolute")
def absolute(box: Box) -> Box:
    """|x|: exact."""
    return bent(_turning_at_zero(box, torch.abs), box, -1.0, 1.0)


@rule("square")
def square(box: Box) -> Box:
    """x times itself."""
    return widened(_turning_at_zero(box, torch.square), terms=2, name="square")


@rule("pow")
def power(box: Box, exponent: int) -> Box:
    """Whole powers from 1: odd ones increase, even ones turn at 0. A run may multiply, or call a function right to 8 units in the last place."""
    whole = isinstance(exponent, (int, float)) and not isinstance(exponent, bool) and float(exponent).is_integer()
    if not whole or not 1 <= exponent <= 64:
        refuse(
            "pow",
            f"Its bound is for whole exponents from 1 to 64, got {exponent!r}; 1 / x and sqrt have bounds of their own.",
        )
    count = int(exponent)
    return widened(_turning_at_zero(box, lambda x: x**count), terms=16 + count, name="pow")


@rule("prelu")
def prelu(box: Box, weight: Tensor) -> Box:
    """x, and weight * x below 0, monotone on either side of 0 for any weight; one weight for each channel, which is dimension 1."""
    slopes, _ = constant(weight, box)
    if slopes.numel() == 1:
        slopes = slopes.reshape(())
    else:
        if box.batch == 1 or box.ndim < 2 or slopes.shape != (box.shape[1],):
            refuse(
                "prelu",
                f"Its weight must be one number, or one for each channel in dimension 1 of {tuple(box.shape)}.",
            )
        slopes = slopes.view(-1, *(1,) * (box.ndim - 2))
    after = _turning_at_zero(noted_for_training(box), lambda x: torch.where(x > 0, x, slopes * x))
    if box.trace.outward:
        sizes = after.largest + flushed(box) * (box.largest + slopes.abs())
        after = widened(after, terms=2, name="prelu", sizes=sizes)
    return bent(after, box, slopes, 1.0)


# Where the minimum is, and a number just below it.
_VALLEYS = {
    "gelu": (-0.7517916, -0.1699713),
    "silu": (-1.2784645, -0.2784646),
    "mish": (-1.1924312, -0.3088435),
    "hardswish": (-1.5, -0.3750001),
}


def _valley(name: str, box: Box, function: Callable[[Tensor], Tensor]) -> Box:
    noted_for_training(box)
    place, least = _VALLEYS[name]
    low, high = function(box.lower), function(box.upper)
    inside = (box.lower <= place + 1e-3) & (box.upper >= place - 1e-3)
    lower = torch.where(inside, torch.full_like(low, least), torch.minimum(low, high))
    # The 1 in 1 + erf(x) is taken x times.
    return rounded(name, box.make(lower, torch.maximum(low, high)), box.largest)


@rule("gelu")
def gelu(box: Box, approximate: str = "none") -> Box:
    """x times the normal distribution function, with one valley."""
    if approximate != "none":
        refuse("gelu", f"The approximation {approximate!r} has another minimum; use approximate='none'.")
    return _valley("gelu", box, F.gelu)


@rule("silu")
def silu(box: Box, inplace: bool = False) -> Box:
    """x sigmoid(x), with one valley."""
    return _valley("silu", box, F.silu)


@rule("mish")
def mish(box: Box, inplace: bool = False) -> Box:
    """x tanh(softplus(x)), with one valley."""
    return _valley("mish", box, F.mish)


@rule("hardswish")
def hardswish(box: Box, inplace: bool = False) -> Box:
    """x min(max(x + 3, 0), 6) / 6, with one valley; 0 up to -3."""
    return _valley("hardswish", box, F.hardswish)


@rule("reciprocal")
def reciprocal(box: Box) -> Box:
    """1 / x, decreasing on either side of 0; no bound for an interval that holds 0."""
    holds = ~((box.lower >= FLUSHED) | (box.upper <= -FLUSHED))
    box.trace.give_up(
        holds, box.batch, "reciprocal", "It divides by an interval that holds 0, or what a run may take for 0."
    )
    lower = torch.where(holds, 1.0, box.upper).reciprocal()
    upper = torch.where(holds, 1.0, box.lower).reciprocal()
    return widened(box.make(lower, upper), terms=2, name="reciprocal")
