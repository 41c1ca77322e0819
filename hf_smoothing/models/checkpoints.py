"""Reading checkpoints: safetensors only, and what they say of the pixels that a model takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification, PreTrainedModel

from hf_smoothing.data.processors import ProcessorPixels, noted_pixels, read_processor
from hf_smoothing.models.configuration import input_channels


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


def pixel_settings(model: PreTrainedModel, source: str, given: Mapping[str, Any], **hub: Any) -> dict[str, Any]:
    """What a checkpoint says of the pixels that its model takes: size (a `Framing`), model_size, image_mean, image_std, where known.

    Args:
        model: the classifier; `RobustTrainer` leaves a note in its configuration.
        source: where it came from, to look for an image processor; may be empty.
        given: what the caller says of them, which is not asked of the checkpoint.
        hub: revision, subfolder, token and the like, as the weights were loaded with.

    Raises:
        ValueError: if the image processor does what a framing and `Preprocessing` cannot, or says otherwise than the note.
    """
    noted, processor = noted_pixels(model.config), _processor(source, hub)
    if processor is None:
        return _settings(noted)
    try:
        found = read_processor(processor, input_channels(model.config))
    except ValueError:
        if {"size", "image_mean", "image_std"} <= given.keys():
            return _settings(noted)
        raise
    if noted is None:
        return _settings(found)
    check_same_pixels(noted, found, f"{source}: `hf_smoothing` in config.json", "preprocessor_config.json", given)
    return _settings(noted)


def check_same_pixels(
    first: ProcessorPixels, second: ProcessorPixels, one: str, other: str, given: Iterable[str] = ()
) -> None:
    """Refuse two statements about one network that differ in what it sees.

    Args:
        first, second: the statements.
        one, other: how they are called.
        given: names that the caller has settled.

    Raises:
        ValueError: naming the values of both.
    """
    said = [_seen(pixels) for pixels in (first, second)]
    for name, tolerance in (("image_mean", 1e-4), ("image_std", 1e-4), ("model_size", 0.0)):
        a, b = (values[name] for values in said)
        same = len(a) == len(b) and all(abs(x - y) <= tolerance for x, y in zip(a, b, strict=True))
        if name not in given and not same:
            raise ValueError(
                f"{one} and {other} disagree: {name} is {list(a)} in the first and {list(b)} in the second. Only one can be what the network "
                f"was trained on: correct or remove the other, or say which by passing {name}={list(a)}."
            )


def _seen(pixels: ProcessorPixels) -> dict[str, tuple[float, ...]]:
    ready = pixels.preprocessing
    return {
        "image_mean": ready.image_mean,
        "image_std": ready.image_std,
        "model_size": ready.model_size or pixels.framing.size,
    }


def _settings(known: ProcessorPixels | None) -> dict[str, Any]:
    if known is None:
        return {}
    # The backbone was trained at one size: another certified resolution is resized to it.
    size = known.preprocessing.model_size or known.framing.size
    return {"size": known.framing, **known.preprocessing.to_dict(), "model_size": size}


def _processor(source: str, hub: Mapping[str, Any]) -> Any:
    if not source:
        return None
    try:
        return AutoImageProcessor.from_pretrained(source, **hub)
    except (OSError, ValueError):
        return None
