"""Deterministic l-infinity certificates of a classifier."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hf_smoothing.certification.classifiers import check_finite
from hf_smoothing.interval.box import Box
from hf_smoothing.interval.margins import box_around, logits_of, margins_of
from hf_smoothing.interval.radii import certified_radii, check_largest
from hf_smoothing.interval.trace import Trace
from hf_smoothing.preprocessing import Preprocessing


def classify_function(classifier: nn.Module) -> Callable[[Any], Any]:
    """What turns [0, 1] pixels, or a box of them, into logits.

    Args:
        classifier: a `SmoothedClassifier` (its base classifier), a plain model whose configuration notes its pixels
            (`config.hf_smoothing`), or any module of [0, 1] pixels.

    Raises:
        TypeError: if it is no module.
        ValueError: if a plain model of `transformers` does not say how its pixels are normalised.
    """
    if not isinstance(classifier, nn.Module):
        raise TypeError(f"Certification needs a module, whose weights it can read, got {type(classifier).__name__}.")
    if hasattr(classifier, "base_network"):
        return classifier.classify  # type: ignore[return-value]
    if not hasattr(classifier, "config"):
        return classifier
    noted = getattr(classifier.config, "hf_smoothing", None)
    if not isinstance(noted, dict):
        raise ValueError(
            f"How {type(classifier).__name__} normalises its pixels is not known. Wrap it: SmoothedClassifier.from_base_pretrained(model, sigma=0.25, "
            "size=..., image_mean=..., image_std=...)."
        )
    size = noted.get("model_size")
    preprocessing = Preprocessing(tuple(noted["image_mean"]), tuple(noted["image_std"]), tuple(size) if size else None)
    return lambda pixels: classifier(pixel_values=preprocessing(pixels)).logits


def linf_certificates(
    classifier: nn.Module,
    pixels: Tensor,
    *,
    largest: float,
    backward: bool = False,
    tolerance: float = 1e-8,
    iterations: int = 100,
) -> tuple[Tensor, Tensor]:
    """For each image the predicted class and an l-infinity radius within which it provably stays the prediction.

    Guarantee: deterministic. For the network with these weights in real arithmetic, no image of [0, 1] pixels that differs by at most
    the radius in every pixel gets another class. Bounds are computed in float64 and rounded outward. A run in float32 or less adds
    rounding errors of its own, which only matter where logits nearly tie.

    Args:
        classifier: see `classify_function`; in eval mode.
        pixels: float (batch, channels, height, width) in [0, 1], or uint8.
        largest: radius at which to stop looking, in [0, 1] pixel units.
        backward: use backward linear bounds (CROWN-IBP) as well, where they are tighter: larger radii, at several times the cost.
        tolerance, iterations: see `certified_radii`.

    Returns:
        (classes int64 (batch,), radii float64 (batch,)), the radius 0 where nothing can be certified.

    Raises:
        UnsupportedOperationError: naming an operation of the network without a bound.
        ValueError: in train mode, with weights that are not finite, a `largest` outside (0, 1], or pixels outside [0, 1].
    """
    classify = exact_classifier(classifier, largest)
    return certificates_of(
        classify, pixels, largest=largest, backward=backward, tolerance=tolerance, iterations=iterations
    )


def exact_classifier(classifier: nn.Module, largest: float) -> Callable[[Any], Any]:
    """What `certificates_of` evaluates: a float64 copy of the network, after `check_certifiable`."""
    check_certifiable(classifier, largest)
    return classify_function(copy.deepcopy(classifier).double())


@torch.no_grad()
def certificates_of(
    classify: Callable[[Any], Any],
    pixels: Tensor,
    *,
    largest: float,
    backward: bool = False,
    tolerance: float = 1e-8,
    iterations: int = 100,
) -> tuple[Tensor, Tensor]:
    """`linf_certificates` of a network that is checked and in float64 already; arguments and result as there."""
    images = exact_pixels(pixels)
    logits = logits_of(classify, images)
    if not isinstance(logits, Tensor):
        raise TypeError(f"The network must return logits, or an output that has them, got {type(logits).__name__}.")
    classes = logits.argmax(dim=1)

    def bounds(which: Tensor, radii: Tensor | float) -> Box:
        box: Box = logits_of(classify, box_around(images[which], radii, Trace(outward=True, origins=backward)))
        return box

    at_zero = bounds(torch.arange(len(images), device=images.device), 0.0)
    _check_followed(at_zero, logits)

    def violation(which: Tensor, radii: Tensor) -> Tensor:
        return -margins_of(bounds(which, radii), classes[which]).worst

    return classes, certified_radii(
        violation,
        len(images),
        largest,
        device=images.device,
        dtype=images.dtype,
        tolerance=tolerance,
        iterations=iterations,
        at_zero=-margins_of(at_zero, classes).worst,
    )


def exact_pixels(pixels: Tensor) -> Tensor:
    """float64; k / 255 for 8-bit images, which float32 would move."""
    return pixels.double() / 255 if pixels.dtype == torch.uint8 else pixels.double()


def _check_followed(box: Box, logits: Tensor) -> None:
    """Refuse a network of which boxes take another way than tensors, as changes in place of a shared tensor can make them.

    Raises:
        ValueError: if the logits of the images themselves are outside their own bounds.
    """
    if bool(((logits < box.lower) | (logits > box.upper)).any()):
        raise ValueError(
            "The logits of the images are outside their own bounds, so these bounds are for another function. Does the network change tensors in "
            "place, or depend on more than its input?"
        )


def check_certifiable(classifier: nn.Module, largest: float) -> None:
    """Refuse what would make certificates meaningless.

    Raises:
        TypeError: if the classifier is no module.
        ValueError: in train mode, with weights that are not finite, or a largest radius outside (0, 1].
    """
    classify_function(classifier)
    check_largest(largest)
    if any(module.training for module in classifier.modules()):
        raise ValueError(
            "The network is in train mode, where its output is random or depends on the batch. Call eval() first."
        )
    check_finite(classifier)
