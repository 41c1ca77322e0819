"""Piecewise linear functions as sums of lines and ReLUs, which backward bounds know how to go through.

The network computes the function itself: what is noted here is the same function of real numbers, so only the rounding of the bounds
is added, and that of the run once, with the function's own result.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from hf_smoothing.interval.box import Box
from hf_smoothing.interval.crown import tightened
from hf_smoothing.interval.rounding import widened
from hf_smoothing.interval.trace import Linear, Origin, same


def hinge(box: Box) -> Box:
    """relu(x): exact, and between two lines for backward bounds, which may bound x more tightly first."""
    before = tightened(box) if box.trace.tighten else box
    result = before.map(F.relu)
    if box.trace.origins:
        result.origin = Origin(relu=before)
    return result


def bent(result: Box, box: Box, below: Tensor | float, above: Tensor | float) -> Box:
    """Note that the result is below * x for x < 0 and above * x for x > 0: below x + (above - below) relu(x)."""
    if not box.trace.origins:
        return result
    return result.came_from(_times(box, below), _times(hinge(box), above - below))


def _times(box: Box, factor: Tensor | float) -> Linear:
    size: Any = abs(factor)
    return Linear(box, lambda x: x * factor, lambda x: x * size, 4)  # a factor may be rounded itself


def clamped(result: Box, box: Box, low: float | None, high: float | None) -> Box:
    """Note that the result is x clamped between two numbers: low + relu(x - low) - relu(x - high), or one end of it."""
    if not box.trace.origins or (low is not None and high is not None and low > high):
        return result
    # An end that the box does not reach, such as an infinite one, is none.
    low = None if low is not None and bool((box.lower >= low).all()) else low
    high = None if high is not None and bool((box.upper <= high).all()) else high
    parts = [] if low is None else [Linear(hinge(_minus(box, low)), same, same, 1)]
    if high is not None:
        parts.append(Linear(hinge(_minus(box, high)), _negative, same, 1))
    if low is None:
        parts.append(Linear(box, same, same, 1))
    return result.came_from(*parts, shift=0.0 if low is None else low)


def _minus(box: Box, number: float) -> Box:
    sizes = box.largest + abs(number)
    shifted = widened(box.make(box.lower - number, box.upper - number), terms=2, sizes=sizes, name="clamp")
    return shifted.came_from(Linear(box, same, same, 1), shift=-number)


def _negative(x: Tensor) -> Tensor:
    return -x
