"""Non-decreasing functions send end to end; GELU and SiLU have one valley."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_smoothing.interval.box import Box
from hf_smoothing.interval.rounding import widened
from hf_smoothing.interval.rules.registry import register
from hf_smoothing.interval.trace import Linear, Origin


_EXACT = ("relu", "relu_", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max", "max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool2d", "threshold")  # fmt: skip
_ELEMENTWISE = (
    "sigmoid",
    "tanh",
    "elu",
    "selu",
    "hardsigmoid",
    "logsigmoid",
    "celu",
    "softsign",
    "exp",
    "leaky_relu",
)
_AVERAGES = (
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "mean", "sum", "interpolate",
)  # fmt: skip
ACTIVATIONS = {
    "relu",
    "relu_",
    "relu6",
    "hardtanh",
    "sigmoid",
    "tanh",
    "elu",
    "selu",
    "softplus",
    "leaky_relu",
    "celu",
    "gelu",
    "silu",
}


def _divides_by_positive(
    size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    **others: Any,
) -> bool:
    """Of the arguments of avg_pool2d and avg_pool3d."""
    return divisor_override is None or divisor_override > 0


_MONOTONE_IF: dict[str, Callable[..., bool]] = {
    "leaky_relu": lambda negative_slope=0.01: negative_slope >= 0.0,
    "elu": lambda alpha=1.0, *rest: alpha >= 0.0 and all(number >= 0.0 for number in rest),
    "threshold": lambda threshold, value: value <= threshold,
    "avg_pool2d": _divides_by_positive,
    "avg_pool3d": _divides_by_positive,
    "interpolate": lambda *args, mode="nearest", **kwargs: "bicubic" not in (mode, *args),
}
"""By name: whether a function with these arguments, after its input, is non-decreasing; the others are with any."""


def _given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    return ", ".join([*map(str, args), *(f"{key}={value}" for key, value in kwargs.items())])


def _monotone(name: str, widen: Callable[[Box, Box, Callable[[Tensor], Tensor]], Box] | None) -> Callable[..., Box]:
    plain = getattr(F, name, None) or getattr(torch, name)

    def rule(box: Box, *args: Any, **kwargs: Any) -> Box:
        kwargs.pop("inplace", None)
        if name in _MONOTONE_IF and not _MONOTONE_IF[name](*args, **kwargs):
            raise ValueError(
                f"{name} with these arguments is not monotone, so there is no bound for it here: {_given(args, kwargs)}. Negative slopes, a value above the "
                "threshold, a negative divisor and bicubic weights (take mode='bilinear') make it so."
            )
        if name in ACTIVATIONS:
            box.trace.before_activations.append(box)

        def function(x: Tensor) -> Tensor:
            result: Tensor = plain(x, *args, **kwargs)
            return result

        result = box.map(function)
        if widen is not None:
            result = widen(box, result, function)
        if name in ("relu", "relu_") and box.trace.origins:
            result.origin = Origin(activation=box)
        return result

    return rule


def _elementwise(before: Box, after: Box, function: Any) -> Box:
    """Elementwise functions are taken to be right to 8 units in the last place of what goes in and comes out."""
    return widened(after, terms=16, sizes=before.largest + after.largest) if after.trace.outward else after


def _average(before: Box, after: Box, function: Callable[[Tensor], Tensor]) -> Box:
    """An average of all entries of an image at most, of their absolute values for the error."""
    terms = before.lower[0].numel() + 8
    result = widened(after, terms=terms, sizes=function(before.largest))
    return result.came_from(Linear(before, function, function, terms))


def _softplus(box: Box, beta: float = 1.0, threshold: float = 20.0) -> Box:
    """It jumps down at the threshold, where torch takes x itself, by log(1 + exp(-threshold)) / beta."""
    after = _plain_softplus(box, beta, threshold)
    jump = math.log1p(math.exp(-threshold)) / abs(beta)
    return Box(after.lower - jump, after.upper + jump, after.value, after.trace)


for _name in _EXACT:
    register(_monotone(_name, None), _name)
for _name in _ELEMENTWISE:
    register(_monotone(_name, _elementwise), _name)
_plain_softplus = _monotone("softplus", _elementwise)
register(_softplus, "softplus")
for _name in _AVERAGES:
    register(_monotone(_name, _average), _name)


# --- Activations with one valley: gelu, silu. --------------------------------------------------------------------------------

_VALLEYS = {"gelu": (-0.7517916, -0.1699713), "silu": (-1.2784645, -0.2784646)}
"""Where the minimum is, and a number just below it."""


def _valley(name: str) -> Callable[..., Box]:
    plain = getattr(F, name)

    def rule(box: Box, *args: Any, **kwargs: Any) -> Box:
        kwargs.pop("inplace", None)
        box.trace.before_activations.append(box)
        place, least = _VALLEYS[name]
        if kwargs.get("approximate", "none") != "none":
            raise ValueError("The tanh approximation of gelu has another minimum; use approximate='none'.")
        low, high = plain(box.lower, *args, **kwargs), plain(box.upper, *args, **kwargs)
        inside = (box.lower <= place + 1e-3) & (box.upper >= place - 1e-3)
        lower = torch.where(inside, torch.full_like(low, least), torch.minimum(low, high))
        value = None if box.value is None else plain(box.value, *args, **kwargs)
        return _elementwise(box, Box(lower, torch.maximum(low, high), value, box.trace), plain)

    return rule


for _name in _VALLEYS:
    register(_valley(_name), _name)
