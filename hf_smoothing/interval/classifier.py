"""The function that interval bounds follow, of pixels and of boxes, and the same one as a classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from hf_smoothing.certification.classifiers import UNWRAPPED, ResolvedClassifier, resolve_classifier
from hf_smoothing.interval.full_precision import full_precision
from hf_smoothing.interval.margins import logits_of
from hf_smoothing.preprocessing import Preprocessing
from hf_smoothing.types import classify_of


def classify_function(classifier: nn.Module) -> Callable[[Any], Any]:
    """What turns [0, 1] pixels, or a box of them, into logits.

    Args:
        classifier: A module with a method `classify`, such as a `SmoothedClassifier` (its base classifier), a plain model of `transformers`
            whose configuration notes its pixels (`config.hf_smoothing`), or any module of [0, 1] pixels.

    Raises:
        TypeError: If it is no module.
        ValueError: If a plain model of `transformers` does not say how its pixels are normalised.
    """
    if not isinstance(classifier, nn.Module):
        raise TypeError(f"Certification needs a module, whose weights it can read, got {type(classifier).__name__}.")
    classify: Callable[[Any], Any] = classify_of(classifier)
    if classify is not classifier:
        return classify
    config = getattr(classifier, "config", None)
    if not isinstance(config, PretrainedConfig):
        return classifier
    noted = getattr(config, "hf_smoothing", None)
    if not isinstance(noted, dict):
        raise ValueError(
            f"How {type(classifier).__name__} normalises its pixels is not known. Wrap it: SmoothedClassifier.from_base_pretrained(model, sigma=0.25, "
            "size=..., image_mean=..., image_std=...)."
        )
    size = noted.get("model_size")
    preprocessing = Preprocessing(tuple(noted["image_mean"]), tuple(noted["image_std"]), tuple(size) if size else None)
    return lambda pixels: classifier(pixel_values=preprocessing(pixels))


def interval_classifier(classifier: nn.Module) -> ResolvedClassifier:
    """The classifier that is asked where runs stand beside bounds (probes, attacks): `classify_function`, run as certificates cover it.

    Raises:
        TypeError, ValueError: As `classify_function` and `resolve_classifier`.
    """
    classify = classify_function(classifier)

    def logits(pixels: Tensor) -> Any:
        with run_as_covered():
            return logits_of(classify, pixels)

    return replace(resolve_classifier(classifier), classify=logits)


@contextmanager
def in_own_precision(model: nn.Module) -> Iterator[None]:
    """A model in training runs in the dtype of its weights meanwhile, without the autocast of mixed precision; then it is as it was."""
    wrapped = [(module, module.forward) for module in model.modules() if UNWRAPPED in vars(module)]
    try:
        for module, _ in wrapped:
            module.forward = vars(module)[UNWRAPPED]
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        for module, forward in wrapped:
            module.forward = forward


@contextmanager
def run_as_covered() -> Iterator[None]:
    """Runs as certificates cover them: without TF32, and compiled by nobody, who might rearrange formulas."""
    with full_precision(), torch.compiler.set_stance("force_eager"):
        yield
