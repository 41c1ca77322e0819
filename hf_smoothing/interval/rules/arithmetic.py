"""Sums, and products with constants."""

from __future__ import annotations

from typing import Any

import torch

from hf_smoothing.interval.box import Box
from hf_smoothing.interval.rounding import widened
from hf_smoothing.interval.rules.registry import register, same
from hf_smoothing.interval.trace import Linear


def _add(first: Any, second: Any, *, alpha: float = 1.0) -> Box:
    if alpha != 1.0:
        second = second * alpha
    if isinstance(first, Box) and isinstance(second, Box):
        values = (first.value, second.value)
        value = None if values[0] is None or values[1] is None else values[0] + values[1]
        result = widened(Box(first.lower + second.lower, first.upper + second.upper, value, first.trace), terms=2)
        return result.came_from(*(_spread(box, result) for box in (first, second)))
    box, constant = (first, second) if isinstance(first, Box) else (second, first)
    result = widened(box.map(lambda x: x + constant), terms=2)
    return result.came_from(_spread(box, result), shift=constant)


def _spread(box: Box, result: Box) -> Linear:
    """A summand, as large as the sum: where it was broadcast, one entry goes to several."""
    if box.shape == result.shape:
        return Linear(box, same, same, 1)
    whole = result.shape

    def function(x: torch.Tensor) -> torch.Tensor:
        return x.expand(whole)

    return Linear(box, function, function, 2)


def _sub(first: Any, second: Any, *, alpha: float = 1.0) -> Box:
    return _add(first, _mul(second, -alpha) if isinstance(second, Box) else -alpha * second)


def _mul(first: Any, second: Any) -> Box:
    if isinstance(first, Box) and isinstance(second, Box):
        raise TypeError("The product of two boxes is not bounded here; only a product with constants.")
    box, constant = (first, second) if isinstance(first, Box) else (second, first)
    low, high = box.lower * constant, box.upper * constant
    value = None if box.value is None else box.value * constant
    result = widened(Box(torch.minimum(low, high), torch.maximum(low, high), value, box.trace), terms=2)
    return result.came_from(Linear(box, lambda x: x * constant, lambda x: x * abs(constant), 2))


def _div(first: Any, second: Any) -> Box:
    if isinstance(second, Box):
        raise TypeError("Division by a box is not bounded here; only by constants.")
    return _mul(first, 1.0 / second)


register(_add, "add", "add_", "__add__", "__radd__", "__iadd__")
register(_sub, "sub", "sub_", "__sub__")
register(_mul, "mul", "mul_", "__mul__", "__rmul__")
register(_div, "div", "__truediv__", "true_divide")
