"""What classifiers made of other classifiers have in common: their parts come from checkpoints, and they take [0, 1] pixels."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypeAlias, cast

from transformers import PreTrainedModel

from hf_smoothing.models.adapters import check_merged
from hf_smoothing.models.checkpoints import find_network
from hf_smoothing.models.configuration import SmoothedClassifierConfig
from hf_smoothing.models.smoothed_classifier import SmoothedClassifier
from hf_smoothing.models.weights import read_config


Source: TypeAlias = str | os.PathLike[str] | PreTrainedModel
"""Folder or Hub id of an image classifier, or the model."""
PIXELS = ("size", "model_size", "image_mean", "image_std")
OWN = ("num_samples", "n0", "n", "alpha", "noise", "noise_owner")


def split_arguments(kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(those of the wrapper around the whole, those for loading a part).

    Raises:
        TypeError: On pixels, which go together in an argument of their own.
    """
    misplaced = [name for name in PIXELS if name in kwargs]
    if misplaced:
        raise TypeError(
            f"{misplaced[0]} says what the parts take: pass pixels={{{misplaced[0]!r}: {kwargs[misplaced[0]]!r}}}."
        )
    own = {name: value for name, value in kwargs.items() if name in OWN}
    return own, {name: value for name, value in kwargs.items() if name not in OWN}


def part(
    source: Source, sigma: float, pixels: Mapping[str, Any] | None, loading: Mapping[str, Any]
) -> SmoothedClassifier:
    """A classifier to build on.

    Args:
        source: A `SmoothedClassifier` or a plain image classifier, or the folder or Hub id of one.
        sigma: Noise level of a plain one, which has none.
        pixels: The settings size, model_size, image_mean or image_std, where a plain checkpoint does not say them.
        loading: Arguments of `from_pretrained` for a checkpoint, such as num_labels and ignore_mismatched_sizes.

    Raises:
        ValueError: If its pixels are not known, or it has LoRA adapters, which would be lost.
        TypeError: On arguments for loading what is loaded, or other pixels than there are.
    """
    pixels = dict(pixels or {})
    unknown = [name for name in pixels if name not in PIXELS]
    if unknown:
        raise TypeError(f"`pixels` may hold {', '.join(PIXELS)}, got {unknown[0]!r}.")
    said = read_config(source, loading) if isinstance(source, str | os.PathLike) else getattr(source, "config", None)
    if isinstance(said, SmoothedClassifierConfig):
        if pixels:
            raise ValueError("A SmoothedClassifier says its pixels itself. Leave `pixels` out.")
        found = cast(SmoothedClassifier, find_network(source, loading))
    else:
        # A path as it is: once loaded, a model does not say any more which of its checkpoint's files it came from.
        found = SmoothedClassifier.from_base_pretrained(source, sigma=sigma, **pixels, **loading)
    check_merged(found.base_network)
    return found


def on_unit_pixels(
    model: PreTrainedModel, like: SmoothedClassifier, sigma: float, **kwargs: Any
) -> SmoothedClassifier:
    """Wrap a model that takes [0, 1] pixels and normalises inside.

    Args:
        model: Model made of parts such as `like`.
        like: Part that gives certified resolution and channels.
        sigma: Default noise level.
        kwargs: Further arguments of `SmoothedClassifier.from_base_pretrained`.
    """
    channels = len(like.config.image_mean)
    return SmoothedClassifier.from_base_pretrained(
        model, sigma=sigma, size=like.config.size, image_mean=[0.0] * channels, image_std=[1.0] * channels, **kwargs
    )
