"""Averages and maxima over windows and dimensions: none of them decreases in any entry."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_smoothing.interval.batches import after_reduction, images_first
from hf_smoothing.interval.box import Box
from hf_smoothing.interval.refusals import refuse
from hf_smoothing.interval.registry import rule
from hf_smoothing.interval.rounding import give_up_overflow, widened
from hf_smoothing.interval.trace import Linear


def average(
    name: str,
    box: Box,
    function: Callable[[Tensor], Tensor],
    terms: int,
    batch: int | None,
    sizes: Tensor | None = None,
) -> Box:
    """A linear map with weights >= 0: end goes to end. Backward exact.

    Args:
        terms: Number of terms summed for one entry.
        sizes: The sums of absolute values, by default the map of the largest ones.
    """
    give_up_overflow(box, box.largest * terms, name)  # a run may divide the sum at the end
    result = box.map(function, batch)
    if box.trace.outward:
        result = widened(result, terms=terms + 4, sizes=function(box.largest) if sizes is None else sizes, name=name)
    return result.came_from(Linear(box, function, function, terms + 4))


def _edges(given: Any, count: int) -> tuple[int, ...]:
    return (given,) * count if isinstance(given, int) else tuple(given) * (count if len(given) == 1 else 1)


def _average_pool(name: str, spatial: int, box: Box, kernel: Any, **options: Any) -> Box:
    images_first(name, box, spatial + 2)
    divisor = options.pop("divisor_override", None)
    if divisor is not None:
        if not divisor > 0:
            refuse(name, f"A divisor that is not positive makes it decrease: {divisor}.")
        options["divisor_override"] = divisor
    plain = getattr(F, name)
    return average(name, box, lambda x: plain(x, kernel, **options), math.prod(_edges(kernel, spatial)), box.batch)


@rule("avg_pool1d")
def avg_pool1d(
    box: Box,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Box:
    """Weights 1 / n, whatever of the padding counts."""
    return _average_pool(
        "avg_pool1d", 1, box, kernel_size, stride=() if stride is None else stride, padding=padding, ceil_mode=ceil_mode, count_include_pad=count_include_pad
    )  # fmt: skip


def _average_rule(name: str, spatial: int) -> None:
    @rule(name)
    def pool(
        box: Box, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> Box:  # fmt: skip
        """Weights 1 / n, or 1 / divisor for a positive one."""
        return _average_pool(
            name, spatial, box, kernel_size, stride=stride, padding=padding, ceil_mode=ceil_mode, count_include_pad=count_include_pad, divisor_override=divisor_override
        )  # fmt: skip


def _adaptive_average_rule(name: str, spatial: int) -> None:
    @rule(name)
    def pool(box: Box, output_size: Any) -> Box:
        """Weights 1 / n in each window."""
        images_first(name, box, spatial + 2)
        sizes = _edges(output_size, spatial)
        # A window reaches over at most one entry more than the quotient, rounded up.
        terms = math.prod(-(-edge // (size or edge)) + 1 for edge, size in zip(box.shape[2:], sizes, strict=True))
        plain = getattr(F, name)
        return average(name, box, lambda x: plain(x, output_size), terms, box.batch)


def _maximum_pool(name: str, spatial: int, box: Box, return_indices: bool, *options: Any) -> Box:
    images_first(name, box, spatial + 2)
    if return_indices:
        refuse(name, "The place of a maximum depends on the pixels: leave return_indices out.")
    plain = getattr(F, name)
    return box.map(lambda x: plain(x, *options), box.batch)


def _maximum_rule(name: str, spatial: int) -> None:
    @rule(name)
    def pool(
        box: Box, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False
    ) -> Box:  # fmt: skip
        """A maximum does not decrease in any entry: exact."""
        return _maximum_pool(name, spatial, box, return_indices, kernel_size, stride, padding, dilation, ceil_mode)


def _adaptive_maximum_rule(name: str, spatial: int) -> None:
    @rule(name)
    def pool(box: Box, output_size: Any, return_indices: bool = False) -> Box:
        """A maximum does not decrease in any entry: exact."""
        return _maximum_pool(name, spatial, box, return_indices, output_size)


for _spatial in (1, 2, 3):
    _adaptive_average_rule(f"adaptive_avg_pool{_spatial}d", _spatial)
    _maximum_rule(f"max_pool{_spatial}d", _spatial)
for _spatial in (2, 3):  # `avg_pool1d` has no divisor
    _average_rule(f"avg_pool{_spatial}d", _spatial)
for _spatial in (1, 2):
    _adaptive_maximum_rule(f"adaptive_max_pool{_spatial}d", _spatial)


def _summed(name: str, box: Box, dim: Any, keepdim: bool, dtype: torch.dtype | None) -> Box:
    if dtype not in (None, box.dtype):
        refuse(name, f"Its bound is for the dtype of its entries, {box.dtype}, got dtype={dtype}.")
    dims, batch = after_reduction(name, box, dim, keepdim)
    terms = math.prod(box.shape[d] for d in dims)
    return average(name, box, lambda x: getattr(x, name)(dims, keepdim), terms, batch)


@rule("mean")
def mean(box: Box, dim: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Box:
    """Over any dimensions but the images."""
    return _summed("mean", box, dim, keepdim, dtype)


@rule("sum")
def total(box: Box, dim: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Box:
    """Over any dimensions but the images."""
    return _summed("sum", box, dim, keepdim, dtype)


@rule("amax")
def amax(box: Box, dim: Any = (), keepdim: bool = False) -> Box:
    """Over any dimensions but the images: exact."""
    dims, batch = after_reduction("amax", box, dim, keepdim)
    return box.map(lambda x: x.amax(dims, keepdim), batch)


@rule("amin")
def amin(box: Box, dim: Any = (), keepdim: bool = False) -> Box:
    """Over any dimensions but the images: exact."""
    dims, batch = after_reduction("amin", box, dim, keepdim)
    return box.map(lambda x: x.amin(dims, keepdim), batch)


def _nearest(box: Box, function: Callable[[Tensor], Tensor]) -> Box:
    """Entries are taken from places that are computed in floating point: near a tie another dtype or device takes the neighbour, so both count."""
    places = box.shape[2:]
    numbers = (torch.arange(places.numel(), device=box.device) % 2**24).view(1, 1, *places)  # exact in float32
    single, double = (function(numbers.to(dtype)).long() for dtype in (torch.float32, torch.float64))
    if not box.trace.outward or torch.equal(single, double):
        return box.map(function, box.batch).came_from(Linear(box, function, function, 2))

    def taken(x: Tensor, index: Tensor) -> Tensor:
        return x.flatten(2)[:, :, index.flatten()].view(*x.shape[:2], *index.shape[2:])

    lower, upper = (
        choose(taken(end, single), taken(end, double))
        for choose, end in ((torch.minimum, box.lower), (torch.maximum, box.upper))
    )
    return box.make(lower, upper, box.batch)


# Modes by name: numbers averaged in each dimension. Cubic and Lanczos filters have negative weights.
_MODES = {"nearest": 1, "nearest-exact": 1, "area": 1, "linear": 2, "bilinear": 2, "trilinear": 2}


@rule("interpolate")
def interpolate(
    box: Box, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> Box:  # fmt: skip
    """Resizing with weights >= 0 that add up to 1, in the modes that have them; antialiasing widens their triangle.

    The places that a run computes for the weights are off by a rounding of the image's size, so the error is counted in the largest
    entry of each channel, 16 times for each row and column.
    """
    if mode not in _MODES:
        refuse(
            "interpolate",
            f"Its bound is for the modes {', '.join(_MODES)}, whose weights are not negative; got {mode!r}.",
        )
    if antialias and mode != "bilinear":
        refuse("interpolate", f"Its bound with antialias=True is for mode 'bilinear', got {mode!r}.")
    images_first("interpolate", box)
    if box.ndim < 3:
        refuse("interpolate", f"It takes images in at least 3 dimensions, got shape {tuple(box.shape)}.")

    def function(x: Tensor) -> Tensor:
        return F.interpolate(x, size, scale_factor, mode, align_corners, recompute_scale_factor, antialias)

    if mode.startswith("nearest"):
        return _nearest(box, function)
    edges = box.shape[2:]
    terms = math.prod(edges) if mode == "area" else 16 * sum(edges) + 64
    sizes = box.largest.amax(tuple(range(2, box.ndim)), keepdim=True) if box.trace.outward else None
    return average("interpolate", box, function, terms, box.batch, sizes)
