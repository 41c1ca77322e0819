"""What classifiers made of other classifiers have in common: their parts come from checkpoints, and they take [0, 1] pixels."""

from __future__ import annotations

import os
from typing import Any

from transformers import PreTrainedModel

from hf_smoothing.models.adapters import check_merged
from hf_smoothing.models.checkpoints import load_base_classifier
from hf_smoothing.models.smoothed_classifier import SmoothedClassifier


def part(source: str | os.PathLike[str] | SmoothedClassifier, sigma: float, **pixels: Any) -> SmoothedClassifier:
    """A classifier to build on.

    Args:
        source: a `SmoothedClassifier`, or the folder or Hub id of one or of a plain image classifier.
        sigma: for a plain one, which has none.
        pixels: size, model_size, image_mean or image_std, where a plain checkpoint does not say them.

    Raises:
        ValueError: if its pixels are not known, or it has LoRA adapters, which would be lost.
    """
    if isinstance(source, SmoothedClassifier):
        found = source
    else:
        model = load_base_classifier(source)
        found = (
            model
            if isinstance(model, SmoothedClassifier)
            else SmoothedClassifier.from_base_pretrained(source, sigma=sigma, **pixels)
        )
    check_merged(found.base_classifier)
    return found


def on_unit_pixels(
    model: PreTrainedModel, like: SmoothedClassifier, sigma: float, **kwargs: Any
) -> SmoothedClassifier:
    """Wrap a model that takes [0, 1] pixels and normalises inside.

    Args:
        model: made of parts such as `like`.
        like: gives certified resolution and channels.
        sigma: default noise level.
        kwargs: further arguments of `SmoothedClassifier.from_base_pretrained`.
    """
    channels = len(like.config.image_mean)
    return SmoothedClassifier.from_base_pretrained(
        model, sigma=sigma, size=like.config.size, image_mean=[0.0] * channels, image_std=[1.0] * channels, **kwargs
    )
