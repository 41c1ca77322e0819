"""Reading checkpoints: safetensors only, and what they say of the pixels that a model takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification, PreTrainedModel

from hf_smoothing.preprocessing import parse_size


def load_base_classifier(path: str | os.PathLike[str], **kwargs: Any) -> PreTrainedModel:
    """`AutoModelForImageClassification.from_pretrained`, from safetensors only, in float32 unless `dtype` is given.

    Raises:
        ValueError: if the checkpoint is a pickle, which could execute code, its head is for other classes than are asked for, or it has
            LoRA adapters of which its configuration says nothing.
    """
    # Checkpoints are often stored in half precision; computing in it must be asked for.
    try:
        model, info = from_safetensors(
            AutoModelForImageClassification.from_pretrained,
            path,
            {"dtype": torch.float32} | kwargs | {"output_loading_info": True},
        )
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise ValueError(
            f"{path} has weights of other shapes than were asked for, most likely a head for other classes. To finetune it pass "
            "ignore_mismatched_sizes=True, which gives it a new head; to certify it as it is, leave num_labels, id2label and label2id out."
        ) from error
    if any(".lora_" in name for name in info["unexpected_keys"]):
        raise ValueError(
            f"{path} has LoRA adapters that a plain checkpoint cannot hold. Save the SmoothedClassifier around it, or call merge_lora(model) first."
        )
    plain: PreTrainedModel = model
    return plain


def check_nothing_to_load(model: PreTrainedModel, loading: Mapping[str, Any]) -> None:
    """Refuse arguments of `from_pretrained` for a model that is there already.

    Raises:
        TypeError: naming them.
    """
    if loading:
        raise TypeError(f"{', '.join(loading)}: only a checkpoint is loaded with these, got a {type(model).__name__}.")


def from_safetensors(load: Callable[..., Any], path: Any, kwargs: dict[str, Any], *args: Any) -> Any:
    """Call a `from_pretrained` so that it reads safetensors only.

    Raises:
        ValueError: if the checkpoint is a pickle, which could execute code.
    """
    try:
        return load(path, *args, **kwargs | {"use_safetensors": True})
    except OSError as error:
        if "safetensors" not in str(error):
            raise
        raise ValueError(
            f"{path} has no safetensors weights. Pickle checkpoints can execute code and are not loaded; convert it once in an "
            "environment you trust: model.save_pretrained(new_path)."
        ) from error


def pixel_settings(model: PreTrainedModel, source: str, **hub: Any) -> dict[str, Any]:
    """What a checkpoint says of the pixels that its model takes: size, model_size, image_mean, image_std, where known.

    Args:
        model: the classifier; `RobustTrainer` leaves a note in its configuration.
        source: where it came from, to look for an image processor; may be empty.
        hub: revision, subfolder, token and the like, as the weights were loaded with.

    Raises:
        ValueError: if the image processor does what `Preprocessing` cannot.
    """
    noted = getattr(model.config, "hf_smoothing", None)
    if isinstance(noted, dict):
        settings = {key: noted.get(key) for key in ("size", "model_size", "image_mean", "image_std")}
        # The backbone was trained at one size: another certified resolution is resized to it.
        return settings | {"model_size": settings["model_size"] or settings["size"]}
    if not source:
        return {}
    try:
        processor = AutoImageProcessor.from_pretrained(source, **hub)
    except (OSError, ValueError):
        return {}
    return processor_pixels(processor)


def processor_pixels(processor: Any) -> dict[str, Any]:
    """What an image processor does to pixels, as size, model_size, image_mean and image_std for [0, 1] pixels.

    Raises:
        ValueError: if it reorders channels, which no normalisation can express.
    """
    if getattr(processor, "do_flip_channel_order", False):
        raise ValueError(
            f"{type(processor).__name__} turns RGB into BGR, which cannot be expressed by a resize and a normalisation. Reorder the first "
            "convolution's input channels, save the model with a processor that keeps RGB, and load that."
        )
    cropped = getattr(processor, "do_center_crop", False) and getattr(processor, "crop_size", None)
    size = parse_size(cropped or processor.size)
    channels = len(processor.image_mean) if processor.image_mean else 3
    mean, std = (0.0,) * channels, (1.0,) * channels
    if getattr(processor, "do_normalize", True):
        mean, std = tuple(processor.image_mean), tuple(processor.image_std)
    # From 0..255 the processor goes to its own range before it normalises; from [0, 1] that is this factor.
    scale = 255.0 * processor.rescale_factor if getattr(processor, "do_rescale", True) else 255.0
    if abs(scale - 1.0) > 1e-6:
        mean, std = tuple(m / scale for m in mean), tuple(s / scale for s in std)
    # The certified resolution is what the backbone sees, unless the processor resizes once more.
    model_size = parse_size(getattr(processor, "model_size", None), "model_size") or size
    return {"size": size, "model_size": model_size, "image_mean": mean, "image_std": std}
