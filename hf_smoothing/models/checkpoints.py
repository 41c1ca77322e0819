"""Reading checkpoints: safetensors only, and what they say of the pixels that a model takes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification, PreTrainedModel

from hf_smoothing.preprocessing import Preprocessing, parse_size


def load_base_classifier(path: str | os.PathLike[str], **kwargs: Any) -> PreTrainedModel:
    """`AutoModelForImageClassification.from_pretrained`, from safetensors only, in float32 unless `dtype` is given.

    Raises:
        ValueError: if the checkpoint is a pickle, which could execute code.
    """
    # Checkpoints are often stored in half precision; computing in it must be asked for.
    return from_safetensors(AutoModelForImageClassification.from_pretrained, path, {"dtype": torch.float32} | kwargs)


def from_safetensors(load: Callable[..., Any], path: Any, kwargs: dict[str, Any], *args: Any) -> PreTrainedModel:
    """Call a `from_pretrained` so that it reads safetensors only.

    Raises:
        ValueError: if the checkpoint is a pickle, which could execute code.
    """
    try:
        model: PreTrainedModel = load(path, *args, **{"use_safetensors": True} | kwargs)
    except OSError as error:
        if "safetensors" not in str(error):
            raise
        raise ValueError(
            f"{path} has no safetensors weights. Pickle checkpoints can execute code and are not loaded; convert it once in an "
            "environment you trust: model.save_pretrained(new_path)."
        ) from error
    return model


def pixel_settings(model: PreTrainedModel, source: str) -> dict[str, Any]:
    """What a checkpoint says of the pixels that its model takes: size, model_size, image_mean, image_std, where known.

    Args:
        model: the classifier; `RobustTrainer` leaves a note in its configuration.
        source: where it came from, to look for an image processor; may be empty.
    """
    noted = getattr(model.config, "hf_smoothing", None)
    if isinstance(noted, dict):
        settings = {key: noted.get(key) for key in ("size", "model_size", "image_mean", "image_std")}
        # The backbone was trained at one size: another certified resolution is resized to it.
        return settings | {"model_size": settings["model_size"] or settings["size"]}
    if not source:
        return {}
    try:
        processor = AutoImageProcessor.from_pretrained(source)
    except (OSError, ValueError):
        return {}
    size = parse_size(getattr(processor, "crop_size", None) or processor.size)
    if not getattr(processor, "do_normalize", True):
        normalisation = Preprocessing((0.0,) * 3, (1.0,) * 3).to_dict()
    else:
        normalisation = {"image_mean": processor.image_mean, "image_std": processor.image_std}
    # The certified resolution is what the backbone sees, unless the processor resizes once more.
    model_size = parse_size(getattr(processor, "model_size", None), "model_size") or size
    return {"size": size, "model_size": model_size} | {key: normalisation[key] for key in ("image_mean", "image_std")}
