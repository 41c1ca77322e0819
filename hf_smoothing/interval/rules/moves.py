"""Moving entries about: exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hf_smoothing.interval.box import Box
from hf_smoothing.interval.rounding import widened
from hf_smoothing.interval.rules.registry import register, same
from hf_smoothing.interval.trace import Linear


_MOVES = (
    "flatten", "reshape", "view", "permute", "transpose", "squeeze", "unsqueeze", "contiguous", "expand", "detach", "to", "clone", "float", "double",
)  # fmt: skip


def _move(name: str) -> Callable[..., Box]:
    def function(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        moved: Tensor = getattr(x, name)(*args, **kwargs)
        return moved

    def rule(box: Box, *args: Any, **kwargs: Any) -> Box:
        result = box.map(lambda x: function(x, *args, **kwargs))
        if result.dtype != box.dtype:
            result = widened(result, terms=2)
        if name in ("detach", "clone", "contiguous"):  # whatever autograd makes of them, the values stay
            return result.came_from(Linear(box, same, same, 1))

        def linear(x: Tensor) -> Tensor:
            return function(x, *args, **kwargs)

        return result.came_from(Linear(box, linear, linear, _reach(name)))

    return rule


def _reach(name: str) -> int:
    """Numbers summed on the way back: 1 where entries only change places, more where one goes to several."""
    return 2 if name == "expand" else 1


for _name in _MOVES:
    register(_move(_name), _name)


_ENDS: tuple[Callable[[Box], Any], ...] = (lambda b: b.lower, lambda b: b.upper, lambda b: b.value)


def _dropout(box: Box, p: float = 0.5, training: bool = True, inplace: bool = False) -> Box:
    if training and p > 0.0:
        raise ValueError("Dropout is random in train mode, so it has no bounds. Call model.eval(), or set its p to 0.")
    return box


def _cat(parts: Any, dim: int = 0) -> Box:
    boxes = [part for part in parts if isinstance(part, Box)]
    ends = [[end(part) if isinstance(part, Box) else part for part in parts] for end in _ENDS]
    value = None if any(box.value is None for box in boxes) else torch.cat(ends[2], dim)
    return Box(torch.cat(ends[0], dim), torch.cat(ends[1], dim), value, boxes[0].trace)


register(_dropout, "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
register(_cat, "cat", "concat")
