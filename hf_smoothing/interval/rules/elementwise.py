"""Elementwise functions that never decrease: end goes to end.

Where a function is exact in floating point (it returns one of its inputs or options), so is its bound. The others are taken to be right to 8
units in the last place of what comes out and of the numbers of size `parts` that may be added up on the way, such as the 1 in
exp(x) - 1, here and in a run of the network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_smoothing.interval.box import Box
from hf_smoothing.interval.constants import number
from hf_smoothing.interval.hinges import bent, clamped, hinge
from hf_smoothing.interval.refusals import refuse
from hf_smoothing.interval.registry import rule
from hf_smoothing.interval.rounding import FLUSHED, flushed, give_up_overflow, widened


def rounded(name: str, after: Box, parts: Tensor | float = 0.0) -> Box:
    """The result of an elementwise function, widened by its rounding (see the module)."""
    if not after.trace.outward:
        return after
    return widened(after, terms=16, sizes=after.largest + parts, name=name)


def _increasing(name: str, box: Box, function: Callable[[Tensor], Tensor], parts: Tensor | float = 1.0) -> Box:
    return rounded(name, box.map(function), parts)


def noted_for_training(box: Box) -> Box:
    """The box itself, kept for the regularisers of training (`warm_up_regularisers`), as every activation does."""
    box.trace.before_activations.append(box)
    return box


@rule("relu")
def relu(box: Box, inplace: bool = False) -> Box:
    """max(x, 0): exact."""
    return hinge(noted_for_training(box))


@rule("relu6")
def relu6(box: Box, inplace: bool = False) -> Box:
    """min(max(x, 0), 6): exact."""
    return clamped(noted_for_training(box).map(F.relu6), box, 0.0, 6.0)


@rule("hardtanh")
def hardtanh(box: Box, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Box:
    """A clamp to fixed numbers: exact."""
    low, high = number(min_val, box, "hardtanh"), number(max_val, box, "hardtanh")
    return clamped(noted_for_training(box).map(partial(F.hardtanh, min_val=low, max_val=high)), box, low, high)


@rule("clamp", "clip")
def clamp(box: Box, min: float | None = None, max: float | None = None) -> Box:
    """A clamp to fixed numbers: exact."""
    low, high = (None if end is None else number(end, box, "clamp") for end in (min, max))
    return clamped(box.map(lambda x: x.clamp(low, high)), box, low, high)


@rule("clamp_min")
def clamp_min(box: Box, min: float) -> Box:
    """A clamp from below: exact."""
    return clamp(box, min=min)


@rule("clamp_max")
def clamp_max(box: Box, max: float) -> Box:
    """A clamp from above: exact."""
    return clamp(box, max=max)


@rule("threshold", "_threshold")
def threshold(box: Box, threshold: float, value: float, inplace: bool = False) -> Box:
    """x above the threshold and a value elsewhere: does not decrease if the value is at most the threshold; exact but for what is flushed.

    It jumps. An entry or a threshold that a run may take for 0 (`FLUSHED`) may so be on either side of a threshold of that size.
    """
    edge, below = number(threshold, box, "threshold"), number(value, box, "threshold")
    if not below <= edge:
        refuse("threshold", f"With a value above the threshold it is not monotone: {value} > {threshold}.")
    after = noted_for_training(box).map(partial(F.threshold, threshold=edge, value=below))
    if not box.trace.outward or abs(edge) >= FLUSHED:
        return after
    least = -FLUSHED if edge else 0.0  # the least entry that a run may find above the threshold, as an infimum
    lower = torch.where(box.lower < FLUSHED, box.lower.clamp(min=least).clamp(max=below), box.lower)
    upper = torch.where(box.upper > least, box.upper.clamp(min=below), below)
    return after.make(lower, upper)


@rule("leaky_relu")
def leaky_relu(box: Box, negative_slope: float = 0.01, inplace: bool = False) -> Box:
    """x or slope * x, which does not decrease for slopes >= 0 (`prelu` takes negative ones)."""
    slope = number(negative_slope, box, "leaky_relu")
    if not slope >= 0.0:
        refuse("leaky_relu", f"With a negative slope it is not monotone: {negative_slope}.")
    lost = flushed(box) * (box.largest + slope) if box.trace.outward else 0.0
    after = _increasing("leaky_relu", noted_for_training(box), partial(F.leaky_relu, negative_slope=slope), lost)
    return bent(after, box, slope, 1.0)


@rule("rrelu")
def rrelu(
    box: Box, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, inplace: bool = False
) -> Box:
    """In eval mode a leaky ReLU with the mean of both slopes; in train mode its slope is random."""
    if training:
        raise ValueError("rrelu has a random slope in train mode, so it has no bounds. Call model.eval().")
    return leaky_relu(box, (number(lower, box, "rrelu") + number(upper, box, "rrelu")) / 2)


@rule("sigmoid")
def sigmoid(box: Box) -> Box:
    """1 / (1 + exp(-x))."""
    return _increasing("sigmoid", noted_for_training(box), torch.sigmoid)


@rule("hardsigmoid")
def hardsigmoid(box: Box, inplace: bool = False) -> Box:
    """x / 6 + 1/2, clamped to [0, 1]."""
    return _increasing("hardsigmoid", noted_for_training(box), F.hardsigmoid)


@rule("logsigmoid", "log_sigmoid")
def logsigmoid(box: Box) -> Box:
    """log(sigmoid(x))."""
    return _increasing("logsigmoid", noted_for_training(box), F.logsigmoid)


@rule("tanh")
def tanh(box: Box) -> Box:
    """The hyperbolic tangent."""
    return _increasing("tanh", noted_for_training(box), torch.tanh)


@rule("softsign")
def softsign(box: Box) -> Box:
    """x / (1 + |x|)."""
    return _increasing("softsign", noted_for_training(box), F.softsign)


@rule("exp")
def exp(box: Box) -> Box:
    """The exponential function."""
    return _increasing("exp", box, torch.exp, parts=0.0)


@rule("sqrt")
def sqrt(box: Box) -> Box:
    """The square root of what is not negative."""
    box.trace.give_up(~(box.lower >= 0.0), box.batch, "sqrt", "The interval reaches below 0.")
    safe = box.map(lambda x: torch.where(x < FLUSHED, 0.0, x))  # what a run takes for 0 has another root
    safe = box.make(safe.lower, box.upper.clamp(min=0.0))
    return rounded("sqrt", safe.map(torch.sqrt))


@rule("elu")
def elu(box: Box, alpha: float = 1.0, inplace: bool = False) -> Box:
    """x, and alpha (exp(x) - 1) below 0, which does not decrease for alpha >= 0."""
    scale = number(alpha, box, "elu")
    if not scale >= 0.0:
        refuse("elu", f"With a negative alpha it is not monotone: {alpha}.")
    return _increasing("elu", noted_for_training(box), partial(F.elu, alpha=scale), parts=1.0 + scale)


@rule("celu")
def celu(box: Box, alpha: float = 1.0, inplace: bool = False) -> Box:
    """x, and alpha (exp(x / alpha) - 1) below 0, for alpha > 0."""
    scale = number(alpha, box, "celu")
    if not scale >= FLUSHED:
        refuse("celu", f"Its alpha must be > 0 and not subnormal, got {alpha}.")
    return _increasing("celu", noted_for_training(box), partial(F.celu, alpha=scale), parts=1.0 + scale)


@rule("selu")
def selu(box: Box, inplace: bool = False) -> Box:
    """A scaled `elu` with fixed numbers, below 2."""
    return _increasing("selu", noted_for_training(box), F.selu, parts=4.0)


@rule("softplus")
def softplus(box: Box, beta: float = 1.0, threshold: float = 20.0) -> Box:
    """log(1 + exp(beta x)) / beta; it jumps down at the threshold, where torch takes x itself, by log(1 + exp(-threshold)) / beta."""
    slope, edge = number(beta, box, "softplus"), number(threshold, box, "softplus")
    if not slope >= FLUSHED:
        refuse("softplus", f"Its beta must be > 0 and not subnormal, got {beta}.")
    after = _increasing(
        "softplus", noted_for_training(box), partial(F.softplus, beta=slope, threshold=edge), 1.0 + 1.0 / slope
    )
    give_up_overflow(box, (box.upper * slope).clamp(max=edge).exp(), "softplus")
    jump = (1.0 + 1e-9) * (max(-edge, 0.0) + math.log1p(math.exp(-abs(edge)))) / slope
    return after.make(after.lower - jump, after.upper + jump)
