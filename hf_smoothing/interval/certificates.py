"""Deterministic l-infinity certificates of a classifier."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hf_smoothing.allocator import memory_kept
from hf_smoothing.certification.classifiers import (
    OUT_OF_IT,
    check_finite,
    in_mixed_precision,
    into_eval_mode,
    run_dtype,
)
from hf_smoothing.interval.classifier import classify_function
from hf_smoothing.interval.constants import DENSE, not_dense
from hf_smoothing.interval.followed import check_followed, check_inside, logits_of_run
from hf_smoothing.interval.inside import points_inside
from hf_smoothing.interval.radii import check_iterations, check_largest, check_tolerance
from hf_smoothing.interval.refusals import UnsupportedOperationError
from hf_smoothing.interval.search import (
    BACKWARD,
    ball,
    bounded,
    check_backward,
    exact_pixels,
    found_radii,
    logits_box,
    trace_for,
)
from hf_smoothing.interval.trace import Trace
from hf_smoothing.keywords import LARGEST, needs
from hf_smoothing.pixels import check_image_batch
from hf_smoothing.units import check_flag


@needs(largest=LARGEST)
@memory_kept()
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
        TypeError: If the classifier is no module, pixels are no tensor, or `cover_run` is no truth value.
        UnsupportedOperationError: The message names an operation of the network without a bound, such as one that
            mixes the images of a batch.
        ValueError: In train mode, with weights that are not finite or, to cover the run, not float32 or float64, under autocast, a `largest`
            outside (0, 1], pixels outside [0, 1] or of another shape, no image, a number out of range, or bounds of another name; if there is a single class, random numbers are drawn, or
            runs at the images and at points of certified balls (`check_followed`, `check_inside`) are not what the bounds say.
    """
    check_certifiable(classifier, largest, cover_run)
    largest, steps = check_largest(largest), check_backward(backward, steps)
    tolerance, iterations = check_tolerance(tolerance), check_iterations(iterations)
    return certificates_of(
        classifier, check_image_batch(pixels, "pixels"), largest=largest, backward=backward, steps=steps, cover_run=bool(cover_run),
        tolerance=tolerance, iterations=iterations,
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
    # With a neighbour, so that no batch of one hides what an operation does to the batch.
    company = torch.cat([images, 1.0 - images[:1]])
    coverable = torch.finfo(dtype).eps <= torch.finfo(torch.float32).eps
    trace = Trace(outward=True, cover_run=coverable, tolerant=True, real=not cover_run)
    covered = logits_box(classify, ball(company, 0.0, dtype, trace))
    half = trace.autocast or not coverable
    check_followed(classify, company, covered, dtype, half=half)
    if cover_run:
        _warn_of_no_bounds(trace, len(images))
    trace.forget()
    trace = Trace(tolerant=True, real=not cover_run)
    logits = exact_logits(classify, images, dtype, trace)
    if not cover_run:
        _warn_of_no_bounds(trace, len(images))
    classes = logits.argmax(dim=1)

    found = found_radii(
        classify, images, logits, dtype, largest=largest, backward=backward, steps=steps, cover_run=cover_run, tolerance=tolerance, iterations=iterations,
        labels=labels,
    )  # fmt: skip
    sure = (found.radii > 0.0).nonzero()[:, 0]
    if len(sure):
        trace = Trace(outward=True, cover_run=coverable, tolerant=True, real=not cover_run)
        proved = found.proved[sure]
        points = points_inside(classify, images[sure], found.reached[sure], classes[sure], proved, dtype)
        check_inside(
            classify, points, lambda points: logits_box(classify, ball(points, 0.0, dtype, trace)), classes[sure], proved, dtype,
            covered=cover_run, half=half,
        )  # fmt: skip
        trace.forget()
    return classes, found.radii, found.kinds


def exact_logits(classify: Callable[[Any], Any], points: Tensor, dtype: torch.dtype, trace: Trace) -> Tensor:
    """The logits of the function that is certified: the network in float64, with its constants as they are in its own dtype.

    Args:
        classify: From pixels, or a box of them, to logits.
        points: Pixels, float64 (batch, channels, height, width) in [0, 1].
        dtype: Computing dtype of the network.
        trace: A trace of its own, tolerant and not outward; afterwards it says which images have no logits but those of a run (`hopeless`).

    Returns: Logits, float64 (batch, num_labels).
    """
    # A box without width, whose ends are not rounded outward, is the image itself.
    logits = logits_box(classify, ball(points, 0.0, dtype, trace)).centre
    trace.forget()
    if trace.hopeless is not None:  # such as 1 / 0, which only a run goes through
        run = logits_of_run(classify, points.to(dtype), len(points))
        logits = torch.where(trace.hopeless[:, None], run.to(logits.dtype), logits)
    return logits


def _warn_of_no_bounds(trace: Trace, images: int) -> None:
    """Say it where no image of a batch has bounds, not even of itself: its radius 0 would look like that of a network that is not robust."""
    if trace.hopeless is not None and bool(trace.hopeless[:images].all()):
        warnings.warn(
            f"No image of the batch has finite bounds, whatever its radius, so all get the radius 0: {trace.reason} Take that step out of the network, or "
            "keep its numbers smaller.",
            stacklevel=3,
        )


def check_bounded(
    classifier: nn.Module,
    pixels: Tensor,
    *,
    largest: float,
    backward: str,
    steps: int,
    cover_run: bool,
    tolerance: float,
) -> None:
    """Refuse a network that cannot be certified at these images, by each kind of bounds that was asked for: even where a cheaper kind decides them.

    Args:
        classifier, pixels, largest, backward, steps, cover_run, tolerance: As of `certificates_of`.

    Raises:
        UnsupportedOperationError, ValueError: As `linf_certificates`.
    """
    classes, radii, _ = certificates_of(
        classifier, pixels, largest=largest, backward="none", steps=0, cover_run=cover_run, tolerance=tolerance
    )
    classify, dtype, images = classify_function(classifier), run_dtype(classifier), exact_pixels(pixels).clone()
    for kind in BACKWARD[1 : BACKWARD.index(backward) + 1]:
        with torch.inference_mode(False), torch.no_grad():
            bounded(classify, ball(images, radii, dtype, trace_for(kind, min(steps, 1), cover_run)), classes)


def check_certifiable(classifier: nn.Module, largest: float, cover_run: bool = True) -> None:
    """Refuse what would make certificates meaningless.

    Raises:
        TypeError: If the classifier is no module, or `cover_run` is no truth value.
        UnsupportedOperationError: If a part of it is a compiled script, which boxes cannot enter, or quantised, or a weight is not dense.
        ValueError: In train mode, with weights that are not finite or, to cover the run, not float32 or float64, under autocast or left in
            mixed precision by a training, or a largest radius outside (0, 1].
    """
    classify_function(classifier)
    check_largest(largest)
    check_flag(cover_run, "cover_run")
    if any(module.training for module in classifier.modules()):
        raise ValueError(
            f"The network is in train mode, where its output is random or depends on the batch. {into_eval_mode(classifier)}"
        )
    for name, tensor in (*classifier.named_parameters(), *classifier.named_buffers()):
        if not_dense(tensor):
            raise UnsupportedOperationError(
                f"There is no sound bound for {not_dense(tensor)} weights, got {name!r}. {DENSE}"
            )
    check_finite(classifier)
    for name, module in classifier.named_modules():
        where = f"got {name!r}" if name else "which the network is"
        if isinstance(module, torch.jit.ScriptModule):
            raise UnsupportedOperationError(
                f"There is no sound bound for a scripted module, {where}. Pass the module that was scripted."
            )
        if _quantised(type(module)):
            raise UnsupportedOperationError(
                f"There is no sound bound for a quantised module, {where}. Pass the network as it was before it was quantised."
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
    if wrapped := in_mixed_precision(classifier):
        raise ValueError(
            f"Certificates do not cover runs under autocast, in which training in mixed precision has left `forward` of {wrapped}. {OUT_OF_IT}"
        )


def _quantised(kind: type[nn.Module]) -> bool:
    """Whether modules of this class compute with quantised numbers; one there only helps networks that are still to be quantised."""
    prefixes = tuple(f"torch.ao.nn.{part}quantized" for part in ("", "intrinsic.", "sparse."))
    return kind.__module__.startswith(prefixes) and kind.__name__ != "FloatFunctional"
