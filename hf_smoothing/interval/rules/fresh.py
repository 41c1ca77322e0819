"""Constants made like a box: of its shape, dtype and device, and of nothing that is in it, so no bounds are needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hf_smoothing.interval.box import Box
from hf_smoothing.interval.registry import rule


def _like(box: Box, options: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in options.items() if value is not None and name != "memory_format"}
    return {"dtype": box.dtype, "device": box.device} | given


def _filled(name: str, make: Callable[..., Tensor]) -> None:
    @rule(f"{name}_like")
    def like(box: Box, *, dtype: Any = None, device: Any = None, memory_format: Any = None) -> Tensor:
        """Of the shape of the box."""
        return make(box.shape, **_like(box, {"dtype": dtype, "device": device}))

    @rule(f"new_{name}")
    def new(box: Box, *size: Any, dtype: Any = None, device: Any = None) -> Tensor:
        """Of a shape of its own."""
        return make(*size, **_like(box, {"dtype": dtype, "device": device}))


_filled("zeros", torch.zeros)
_filled("ones", torch.ones)


@rule("full_like")
def full_like(
    box: Box, fill_value: float, *, dtype: Any = None, device: Any = None, memory_format: Any = None
) -> Tensor:
    """One number, in the shape of the box."""
    return torch.full(box.shape, fill_value, **_like(box, {"dtype": dtype, "device": device}))


@rule("new_full")
def new_full(box: Box, size: Any, fill_value: float, *, dtype: Any = None, device: Any = None) -> Tensor:
    """One number, in a shape of its own."""
    return torch.full(size, fill_value, **_like(box, {"dtype": dtype, "device": device}))
