"""The search for the largest radius at which bounds keep a class, from the cheapest bounds to the tightest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hf_smoothing.interval.box import Box
from hf_smoothing.interval.margins import Margins, box_around, logits_of, margins_of
from hf_smoothing.interval.radii import certified_radii
from hf_smoothing.interval.trace import Trace
from hf_smoothing.pixels import check_range, grid_to_unit, without_tolerance
from hf_smoothing.units import check_whole


NAMES = {
    "none": "interval bounds",
    "crown-ibp": "interval bounds and CROWN-IBP",
    "crown": "interval bounds, CROWN-IBP and CROWN",
    "optimised": "interval bounds, CROWN-IBP, CROWN and optimised linear bounds",
}
"""What runs say of bounds, from the cheapest to the tightest: intervals alone; backward linear bounds of the logits between intervals
(CROWN-IBP); also of what enters each ReLU (CROWN); and with optimised lines below the ReLUs (alpha-CROWN)."""

BACKWARD = tuple(NAMES)


class FoundRadii(NamedTuple):
    """What bounds alone say of the images of a batch.

    Attributes:
        radii: Radii, float64 (batch,).
        kinds: Which of `BACKWARD` certified each, int64 (batch,).
        proved: Lower bounds of f_y - f_t over the ball of radius `reached`, (batch, num_labels).
        reached: The largest radius that was tried and certified, (batch,); not below `radii`.
    """

    radii: Tensor
    kinds: Tensor
    proved: Tensor
    reached: Tensor


def found_radii(
    classify: Callable[[Any], Any], images: Tensor, logits: Tensor, dtype: torch.dtype, *,
    largest: float, backward: str, steps: int, cover_run: bool, tolerance: float, iterations: int = 100, labels: Tensor | None = None,
) -> FoundRadii:  # fmt: skip
    """The largest radii at which bounds keep the classes of these logits; whether the network is the function that bounds follow is not looked at.

    Args:
        classify: From pixels, or a box of them, to logits.
        images: Images, float64 (batch, channels, height, width).
        logits: Their logits, (batch, num_labels).
        dtype: Computing dtype of the network.
        largest, backward, steps, cover_run, tolerance, iterations, labels: As of `linf_certificates` and `certificates_of`.
    """
    classes = logits.argmax(dim=1)
    asked = torch.arange(len(images), device=images.device)
    if labels is not None:
        asked = asked[classes == labels]
    radii = torch.zeros(len(images), device=images.device, dtype=images.dtype)
    kinds = torch.zeros(len(images), device=images.device, dtype=torch.int64)
    proved, reached = torch.zeros_like(logits, dtype=images.dtype), torch.zeros_like(radii)
    for number, kind in enumerate(BACKWARD[: BACKWARD.index(backward) + 1]):

        def violation(places: Tensor, radii: Tensor, kind: str = kind) -> Tensor:
            which = asked[places]
            pixels = ball(images[which], radii, dtype, trace_for(kind, steps, cover_run))
            margins = bounded(classify, pixels, classes[which])
            further = (margins.worst >= 0.0) & (radii >= reached[which])
            proved[which[further]], reached[which[further]] = margins.lower[further], radii[further]
            return -margins.worst

        known = radii[asked]
        found = certified_radii(
            violation, len(asked), largest, device=images.device, dtype=images.dtype, tolerance=tolerance, flatness=0.0,
            iterations=iterations, known=known,
        )  # fmt: skip
        kinds[asked[found > known]], radii[asked] = number, found
    return FoundRadii(radii, kinds, proved, reached)


def trace_for(backward: str, steps: int, cover_run: bool) -> Trace:
    """The trace with which a box gives these bounds, one of `BACKWARD`."""
    level = BACKWARD.index(backward)
    return Trace(
        outward=True, cover_run=cover_run, tolerant=True, origins=level >= 1, tighten=level >= 2, steps=steps if level >= 3 else 0
    )  # fmt: skip


def ball(images: Tensor, radii: Tensor | float, dtype: torch.dtype, trace: Trace) -> Box:
    """The balls of certificates: `box_around` images of a network that computes in `dtype`, none of which may depend on another."""
    return box_around(images, radii, trace, dtype=dtype, separate=True)


def logits_box(classify: Callable[[Any], Any], pixels: Box) -> Box:
    """The logits of a box of pixels; no compiler rearranges the formulas of bounds."""
    with torch.compiler.set_stance("force_eager"):
        box: Box = logits_of(classify, pixels)
    return box


def bounded(classify: Callable[[Any], Any], pixels: Box, classes: Tensor) -> Margins:
    """Bounds of the margins of these classes over a box of pixels, whose trace says which, and is then done with."""
    margins = margins_of(logits_box(classify, pixels), classes)
    pixels.trace.forget()
    return margins


def exact_pixels(pixels: Tensor) -> Tensor:
    """float64 in [0, 1]; k / 255 for 8-bit images, which float32 would move, and without the tolerance that float pixels may have beyond the ends.

    Raises:
        TypeError: If they are neither uint8 nor floating point.
        ValueError: If they are nan, or beyond [0, 1] by more than the tolerance.
    """
    if not pixels.is_floating_point() and pixels.dtype != torch.uint8:
        raise TypeError(f"`pixels` must be uint8 in 0..255 or floating point in [0, 1], got {pixels.dtype}.")
    if pixels.dtype == torch.uint8:
        return grid_to_unit(pixels.double())
    check_range(pixels, "pixels")
    return without_tolerance(pixels.double())


def check_backward(backward: str, steps: int) -> int:
    """Refuse bounds that do not exist; returns the number of steps as an int.

    Raises:
        ValueError: If `backward` is none of `BACKWARD`, or steps are negative or no whole number.
    """
    if backward not in BACKWARD:
        raise ValueError(f"`backward` must be one of {', '.join(BACKWARD)}, got {backward!r}.")
    if check_whole(steps, "steps") < 0:
        raise ValueError(f"`steps` must be at least 0, got {steps}.")
    return check_whole(steps, "steps")
