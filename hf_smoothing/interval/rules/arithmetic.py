"""Sums, differences, products and quotients of boxes and constants; the larger and the smaller of two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hf_smoothing.certification.classifiers import FINITE_MASK
from hf_smoothing.interval.batches import after_broadcast
from hf_smoothing.interval.box import Box
from hf_smoothing.interval.constants import constant, number
from hf_smoothing.interval.hinges import hinge
from hf_smoothing.interval.refusals import refuse
from hf_smoothing.interval.registry import rule
from hf_smoothing.interval.rounding import flushed, widened
from hf_smoothing.interval.rules.turning import reciprocal
from hf_smoothing.interval.trace import Linear, same


_BOTH = ("input", "other")


def _operands(name: str, *given: Any) -> tuple[list[Box | Tensor], Box, torch.dtype]:
    """Boxes as they are and constants as tensors of the bounds' dtype, a box among them, and the dtype that a run computes in."""
    boxes = [part for part in given if isinstance(part, Box)]
    dtype = boxes[0].dtype if len(boxes) == 1 else torch.promote_types(boxes[0].dtype, boxes[1].dtype)
    parts: list[Box | Tensor] = []
    for part in given:
        if isinstance(part, Box):
            parts.append(part)
        else:
            tensor, dtype = constant(part, boxes[0])
            parts.append(tensor)
    return parts, boxes[0], dtype


def _result(name: str, parts: list[Box | Tensor], box: Box, dtype: torch.dtype, ends: tuple[Tensor, Tensor]) -> Box:
    lower, upper = ends
    return box.make(lower, upper, after_broadcast(name, parts, lower.shape), dtype)


def _ends(parts: list[Box | Tensor], function: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Lower and upper end of a function that does not decrease in either part."""
    first, second = parts
    lower = function(*(part.lower if isinstance(part, Box) else part for part in (first, second)))
    upper = function(*(part.upper if isinstance(part, Box) else part for part in (first, second)))
    return lower, upper


@rule("add", boxes=_BOTH)
def add(input: Any, other: Any, *, alpha: float = 1) -> Box:
    """A sum increases in both: ends are added. Backward exact."""
    return _sum("add", input, other, alpha, 1)


@rule("sub", "subtract", boxes=_BOTH)
def sub(input: Any, other: Any, *, alpha: float = 1) -> Box:
    """A sum with the negative, which is exact."""
    return _sum("sub", input, other, alpha, -1)


def _sum(name: str, input: Any, other: Any, alpha: float, sign: int) -> Box:
    parts, box, dtype = _operands(name, input, other)
    if box.trace.outward and any(bool(part.isinf().any()) for part in parts if not isinstance(part, Box)):
        refuse(name, f"It adds an infinite number, which has no finite bounds. {FINITE_MASK}")
    if sign < 0:
        parts[1] = neg(parts[1]) if isinstance(parts[1], Box) else -parts[1]
    sizes = None
    if alpha != 1:
        factor, second = number(alpha, box, name), parts[1]
        lost = flushed(box) * (_size(second) + abs(factor))
        parts[1] = mul(second, factor) if isinstance(second, Box) else second * factor
        sizes = _size(parts[0]) + _size(parts[1]) + lost  # the product is rounded too, and may be larger than the sum
    result = _result(name, parts, box, dtype, _ends(parts, torch.add))
    result = widened(result, terms=2 if alpha == 1 else 4, name=name, sizes=sizes)
    constants = [part for part in parts if not isinstance(part, Box)]
    spread = [_spread(part, result) for part in parts if isinstance(part, Box)]
    return result.came_from(*spread, shift=constants[0] if constants else 0.0)


def _size(part: Box | Tensor) -> Tensor:
    return part.largest if isinstance(part, Box) else part.abs()


@rule("neg", "negative")
def neg(input: Box) -> Box:
    """The ends change places: exact. Backward exact."""
    result = input.make(-input.upper, -input.lower)
    return result.came_from(Linear(input, torch.neg, same, 1))


def _spread(box: Box, result: Box) -> Linear:
    """A summand, as large as the sum: where it was broadcast, one entry goes to several."""
    if box.shape == result.shape:
        return Linear(box, same, same, 1)
    whole = result.shape

    def function(x: Tensor) -> Tensor:
        return x.expand(whole)

    return Linear(box, function, function, 2)


@rule("mul", "multiply", boxes=_BOTH)
def mul(input: Any, other: Any) -> Box:
    """The extremes of a product are products of ends. Backward exact with a constant; of two boxes by the interval."""
    parts, box, dtype = _operands("mul", input, other)
    corners = [a * b for a in _corners(parts[0]) for b in _corners(parts[1])]
    result = _result("mul", parts, box, dtype, _extremes(corners))
    if box.trace.outward:
        sizes = result.largest + flushed(result) * (_size(parts[0]) + _size(parts[1]))
        result = widened(result, terms=2, name="mul", sizes=sizes)
    factors = [part for part in parts if not isinstance(part, Box)]
    if not factors:
        return result
    return result.came_from(_scaling(box, factors[0], result))


def _corners(part: Box | Tensor) -> tuple[Tensor, ...]:
    return (part.lower, part.upper) if isinstance(part, Box) else (part,)


def _extremes(corners: list[Tensor]) -> tuple[Tensor, Tensor]:
    lower = upper = corners[0]
    for corner in corners[1:]:
        lower, upper = torch.minimum(lower, corner), torch.maximum(upper, corner)
    return lower, upper


def _scaling(box: Box, factor: Tensor, result: Box) -> Linear:
    return Linear(box, lambda x: x * factor, lambda x: x * factor.abs(), 2)


@rule("div", "divide", "true_divide", "truediv", boxes=_BOTH)
def div(input: Any, other: Any) -> Box:
    """By a constant in the dtype of the bounds; by a box that does not hold 0 as a product with 1 / x. A run may multiply by 1 / x too."""
    if isinstance(other, Box):
        return widened(mul(input, reciprocal(other)), terms=4, name="div")
    parts, box, dtype = _operands("div", input, other)
    divisor = parts[1]
    assert isinstance(divisor, Tensor)
    given = other.dtype if isinstance(other, Tensor) and other.is_floating_point() else dtype
    if bool((divisor.abs() < torch.finfo(given).tiny).any()):
        refuse("div", "It divides by a constant that is 0, or so small that a run may take it for 0.")
    result = _result("div", parts, box, dtype, _extremes([box.lower / divisor, box.upper / divisor]))
    if box.trace.outward:
        sizes = result.largest + flushed(result) * (box.largest + 1.0 / divisor.abs())
        result = widened(result, terms=4, name="div", sizes=sizes)
    return result.came_from(_scaling(box, 1.0 / divisor, result))


@rule("maximum", boxes=_BOTH)
def maximum(input: Box | Tensor, other: Box | Tensor) -> Box:
    """The larger of two, which does not decrease in either: exact. Backward b + relu(a - b)."""
    return _larger("maximum", input, other, torch.maximum)


@rule("minimum", boxes=_BOTH)
def minimum(input: Box | Tensor, other: Box | Tensor) -> Box:
    """The smaller of two, which does not decrease in either: exact. Backward a - relu(a - b)."""
    return _larger("minimum", input, other, torch.minimum)


def _larger(name: str, input: Any, other: Any, function: Callable[[Tensor, Tensor], Tensor]) -> Box:
    parts, box, dtype = _operands(name, input, other)
    result = _result(name, parts, box, dtype, _ends(parts, function))
    if not result.trace.origins:
        return result
    kept, sign = (parts[1], same) if name == "maximum" else (parts[0], torch.neg)
    over = Linear(hinge(sub(input, other)), sign, same, 1)
    if isinstance(kept, Box):
        return result.came_from(_spread(kept, result), over)
    return result.came_from(over, shift=kept)
