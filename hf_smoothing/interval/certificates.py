"""Deterministic l-infinity certificates of a classifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hf_smoothing.certification.classifiers import check_finite, run_dtype
from hf_smoothing.interval.box import Box
from hf_smoothing.interval.classifier import classify_function
from hf_smoothing.interval.constants import DENSE, not_dense
from hf_smoothing.interval.followed import check_followed, check_inside
from hf_smoothing.interval.inside import points_inside
from hf_smoothing.interval.margins import Margins, box_around, logits_of, margins_of
from hf_smoothing.interval.radii import certified_radii, check_largest
from hf_smoothing.interval.refusals import UnsupportedOperationError
from hf_smoothing.interval.trace import Trace
from hf_smoothing.pixels import grid_to_unit


NAMES = {
    "none": "interval bounds",
    "crown-ibp": "interval bounds and CROWN-IBP",
    "crown": "interval bounds, CROWN-IBP and CROWN",
    "optimised": "interval bounds, CROWN-IBP, CROWN and optimised linear bounds",
}
"""What runs say of bounds, from the cheapest to the tightest: intervals alone; backward linear bounds of the logits between intervals
(CROWN-IBP); also of what enters each ReLU (CROWN); and with optimised lines below the ReLUs (alpha-CROWN)."""

BACKWARD = tuple(NAMES)


def linf_certificates(
    classifier: nn.Module,
    pixels: Tensor,
    *,
    largest: float,
    backward: str = "none",
    steps: int = 20,
    cover_run: bool = True,
    tolerance: float = 1e-8,
    iterations: int = 100,
) -> tuple[Tensor, Tensor]:
    """For each image the predicted class and an l-infinity radius within which it provably stays the prediction.

    Guarantee: deterministic. No image of [0, 1] pixels that differs by at most the radius in every pixel gets another class, neither from
    the network in real arithmetic nor from a run of it in its own dtype (float32, or float64), whatever the order of summation. Elementwise
    functions of a run are taken to be right to 8 units in the last place. Not covered are runs with autocast, in half precision or TF32,
    and convolutions by Winograd or FFT. The bounds themselves are computed in float64 and rounded outward.

    Args:
        classifier: See `classify_function`; in eval mode.
        pixels: Pixels, float (batch, channels, height, width) in [0, 1], or uint8.
        largest: Radius at which to stop looking, in [0, 1] pixel units.
        backward: The tightest bounds to use, one of `BACKWARD`: larger radii, at many times the cost. Each kind goes on where a
            cheaper one ends, and images that are certified at `largest` by a cheaper one are decided.
        steps: Steps of ascent of optimised bounds.
        cover_run: False for a guarantee in real arithmetic only, which is a little larger.
        tolerance, iterations: See `certified_radii`.

    Returns:
        The tuple (classes int64 (batch,), radii float64 (batch,)): the predictions in real arithmetic; the radius 0
        where nothing can be certified.

    Raises:
        UnsupportedOperationError: The message names an operation of the network without a bound, such as one that
            mixes the images of a batch.
        ValueError: In train mode, with weights that are not finite or, to cover the run, not float32 or float64, under autocast, a `largest`
            outside (0, 1], pixels outside [0, 1], or bounds of another name; if there is a single class, random numbers are drawn, or
            runs at the images and at points of certified balls (`check_followed`, `check_inside`) are not what the bounds say.
    """
    check_certifiable(classifier, largest, cover_run)
    check_backward(backward, steps)
    return certificates_of(
        classifier, pixels, largest=largest, backward=backward, steps=steps, cover_run=cover_run, tolerance=tolerance, iterations=iterations
    )[:2]  # fmt: skip


@torch.inference_mode(False)  # some bounds are found by gradients
@torch.no_grad()
def certificates_of(
    classifier: nn.Module, pixels: Tensor, *, largest: float, backward: str, steps: int, cover_run: bool, tolerance: float, iterations: int = 100,
    labels: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """`linf_certificates` of a network and bounds that are checked already (`check_certifiable`, `check_backward`).

    Args:
        labels: Labels, int64 (batch,): images that are predicted otherwise get no radius. By default every image may get one.

    Returns:
        Classes, radii, and which of `BACKWARD` certified each radius, int64 (batch,).
    """
    classify, dtype = classify_function(classifier), run_dtype(classifier)
    images = exact_pixels(pixels).clone()  # also of pixels that were made in inference mode
    count = len(images)
    # With a neighbour, so that no batch of one hides what an operation does to the batch.
    company = torch.cat([images, 1.0 - images[:1]])
    coverable = torch.finfo(dtype).eps <= torch.finfo(torch.float32).eps
    trace = Trace(outward=True, cover_run=coverable, tolerant=True, real=not cover_run)
    covered = followed(classify, ball(company, 0.0, dtype, trace, value=True))
    half = trace.autocast or not coverable
    check_followed(classify, company, covered, dtype, half=half)
    assert covered.value is not None
    classes = covered.value[:count].argmax(dim=1)
    trace.forget()

    asked = torch.arange(count, device=images.device)
    if labels is not None:
        asked = asked[classes == labels]
    radii = torch.zeros(count, device=images.device, dtype=images.dtype)
    bounds = torch.zeros(count, device=images.device, dtype=torch.int64)
    proved, reached = torch.zeros_like(covered.lower[:count]), torch.zeros_like(radii)
    for number, bound in enumerate(BACKWARD[: BACKWARD.index(backward) + 1]):

        def violation(places: Tensor, radii: Tensor, bound: str = bound) -> Tensor:
            which = asked[places]
            margins = bounded(
                classify, ball(images[which], radii, dtype, trace_for(bound, steps, cover_run)), classes[which]
            )
            further = (margins.worst >= 0.0) & (radii >= reached[which])
            proved[which[further]], reached[which[further]] = margins.lower[further], radii[further]
            return -margins.worst

        known = radii[asked]
        found = certified_radii(
            violation, len(asked), largest, device=images.device, dtype=images.dtype, tolerance=tolerance, iterations=iterations, known=known
        )  # fmt: skip
        bounds[asked[found > known]], radii[asked] = number, found
    sure = (radii > 0.0).nonzero()[:, 0]
    if len(sure):
        trace = Trace(outward=True, cover_run=coverable, tolerant=True, real=not cover_run)
        points = points_inside(classify, images[sure], reached[sure], classes[sure], proved[sure], dtype)
        check_inside(
            classify, points, lambda points: followed(classify, ball(points, 0.0, dtype, trace)), classes[sure], proved[sure], dtype,
            covered=cover_run, half=half,
        )  # fmt: skip
        trace.forget()
    return classes, radii, bounds


def trace_for(bound: str, steps: int, cover_run: bool) -> Trace:
    """Of a journey for these bounds (`BACKWARD`)."""
    level = BACKWARD.index(bound)
    return Trace(
        outward=True, cover_run=cover_run, tolerant=True, origins=level >= 1, tighten=level >= 2, steps=steps if level >= 3 else 0
    )  # fmt: skip


def ball(images: Tensor, radii: Tensor | float, dtype: torch.dtype, trace: Trace, value: bool = False) -> Box:
    """The balls of certificates: `box_around` images of a network that computes in `dtype`, none of which may depend on another."""
    return box_around(images, radii, trace, value, dtype=dtype, followed=True)


def followed(classify: Callable[[Any], Any], pixels: Box) -> Box:
    """The logits of a box of pixels; no compiler rearranges the formulas of bounds."""
    with torch.compiler.set_stance("force_eager"):
        box: Box = logits_of(classify, pixels)
    return box


def bounded(classify: Callable[[Any], Any], pixels: Box, classes: Tensor) -> Margins:
    """Bounds of the margins of these classes over a box of pixels, whose trace says which, and is then done with."""
    margins = margins_of(followed(classify, pixels), classes)
    pixels.trace.forget()
    return margins


def exact_pixels(pixels: Tensor) -> Tensor:
    """float64; k / 255 for 8-bit images, which float32 would move."""
    if not pixels.is_floating_point() and pixels.dtype != torch.uint8:
        raise TypeError(f"`pixels` must be uint8 in 0..255 or floating point in [0, 1], got {pixels.dtype}.")
    return grid_to_unit(pixels.double()) if pixels.dtype == torch.uint8 else pixels.double()


def check_backward(backward: str, steps: int) -> None:
    """Refuse bounds that do not exist.

    Raises:
        ValueError: If `backward` is none of `BACKWARD`, or steps are negative.
    """
    if backward not in BACKWARD:
        raise ValueError(f"`backward` must be one of {', '.join(BACKWARD)}, got {backward!r}.")
    if steps < 0:
        raise ValueError(f"`steps` must be at least 0, got {steps}.")


def check_certifiable(classifier: nn.Module, largest: float, cover_run: bool = True) -> None:
    """Refuse what would make certificates meaningless.

    Raises:
        TypeError: If the classifier is no module.
        UnsupportedOperationError: If a part of it is a compiled script, which boxes cannot enter, or a weight is not dense.
        ValueError: In train mode, with weights that are not finite or, to cover the run, not float32 or float64, under autocast, or a
            largest radius outside (0, 1].
    """
    classify_function(classifier)
    check_largest(largest)
    if any(module.training for module in classifier.modules()):
        raise ValueError(
            "The network is in train mode, where its output is random or depends on the batch. Call eval() first."
        )
    for name, tensor in (*classifier.named_parameters(), *classifier.named_buffers()):
        if not_dense(tensor):
            raise UnsupportedOperationError(
                f"There is no sound bound for {not_dense(tensor)} weights, got {name!r}. {DENSE}"
            )
    check_finite(classifier)
    for name, module in classifier.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise UnsupportedOperationError(
                f"There is no sound bound for a scripted module, {f'got {name!r}' if name else 'which the network is'}. Pass the module that was scripted."
            )
    if not cover_run:
        return
    dtypes = {
        tensor.dtype for tensor in (*classifier.parameters(), *classifier.buffers()) if tensor.is_floating_point()
    }
    if unknown := sorted(str(dtype) for dtype in dtypes - {torch.float32, torch.float64}):
        raise ValueError(
            f"Certificates cover runs in float32 or float64, got weights in {', '.join(unknown)}. Call float() first, or pass cover_run=False for a "
            "guarantee in real arithmetic only."
        )
    if any(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")):
        raise ValueError("Certificates do not cover runs under autocast. Leave it, or pass cover_run=False.")
