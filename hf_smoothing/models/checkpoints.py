"""Reading checkpoints: safetensors only, and what they say of the pixels that a model takes."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.utils import CONFIG_NAME, IMAGE_PROCESSOR_NAME, PROCESSOR_NAME, cached_file

from hf_smoothing.data.processors import ProcessorPixels, noted_pixels, read_processor
from hf_smoothing.models.adapters import check_merged
from hf_smoothing.models.configuration import check_names, input_channels
from hf_smoothing.models.weights import load_whole, read_config, trusting
from hf_smoothing.units import check_whole


PROCESSORS = (PROCESSOR_NAME, IMAGE_PROCESSOR_NAME)
"""The files in which `transformers` looks for an image processor: inside the one of a processor of several inputs first."""
SAID = {"size", "image_mean", "image_std"}
"""What a caller says who needs no image processor."""


def load_base_classifier(path: str | os.PathLike[str], **kwargs: Any) -> PreTrainedModel:
    """`AutoModelForImageClassification.from_pretrained`, from safetensors only, in float32 unless `dtype` is given.

    Raises:
        ValueError: See `read_config` and `load_whole`; if `num_labels` is no number of classes.
    """
    if kwargs.get("num_labels") is not None:
        kwargs["num_labels"] = check_whole(kwargs["num_labels"], "num_labels")
        if kwargs["num_labels"] < 1:
            raise ValueError(
                f"`num_labels` must be the number of classes, at least 1, got {kwargs['num_labels']}. Pass that of the data set, such as num_labels=10."
            )
    if kwargs.get("id2label") is not None:
        check_names(kwargs["id2label"], kwargs.get("num_labels"))
    if "config" not in kwargs:
        kwargs = (
            _classes(read_config(path, kwargs), kwargs.pop("id2label", None), kwargs.pop("num_labels", None)) | kwargs
        )
    # Checkpoints are often stored in half precision; computing in it must be asked for.
    model: PreTrainedModel = load_whole(AutoModelForImageClassification.from_pretrained, path, in_float32(kwargs))
    return model


def _classes(config: PreTrainedConfig, id2label: Any, num_labels: int | None) -> dict[str, Any]:
    """The classes that are asked for, as arguments of `from_pretrained` of which none is compared with the checkpoint's own classes: it logs a warning where
    a number differs from theirs, and keeps their numbers by name where only names by number are given.

    Args:
        config: Configuration of the checkpoint.
        id2label, num_labels: As the caller gives them.
    """
    if id2label is None and num_labels not in (None, config.num_labels):
        id2label = {number: f"LABEL_{number}" for number in range(num_labels)}
    if id2label is None:
        return {} if num_labels is None else {"num_labels": num_labels}
    names = {int(number): name for number, name in id2label.items()}
    classes = {"id2label": names, "label2id": {name: number for number, name in names.items()}}
    # A PvtConfig keeps the number beside the names.
    counted = not isinstance(getattr(type(config), "num_labels", None), property)
    return classes | ({"num_labels": len(id2label)} if counted else {})


def in_float32(loading: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `from_pretrained`, with float32 where no dtype is given, by its new or old name."""
    given = "dtype" in loading or "torch_dtype" in loading
    return dict(loading) if given else {**loading, "dtype": torch.float32}


def find_network(base: str | os.PathLike[str] | PreTrainedModel, loading: Mapping[str, Any]) -> PreTrainedModel:
    """The network itself, or the one of a checkpoint.

    Args:
        base: Folder or Hub id of an image classifier, or the model.
        loading: Arguments of `from_pretrained`, for a checkpoint.

    Raises:
        TypeError: If it is neither, a `PeftModel`, or there are arguments for a model that is there already.
        ValueError: If the checkpoint is refused, see `load_whole`, or the network has adapters, which would be lost.
    """
    check_merged(base)
    if isinstance(base, PreTrainedModel):
        if loading:
            raise TypeError(
                f"{', '.join(loading)}: only a checkpoint is loaded with these, got a {type(base).__name__}."
            )
        return base
    if not isinstance(base, str | os.PathLike):
        raise TypeError(
            f"What is wrapped must be a folder, a Hub id or a model of transformers, got {type(base).__name__}. Any module of [0, 1] pixels can be "
            "certified without: hf_smoothing.certify(module, images, sigma=...)."
        )
    model = load_base_classifier(base, **loading)
    check_merged(model)  # a folder with an adapter beside the network
    return model


def pixel_settings(config: PreTrainedConfig, source: str, given: Mapping[str, Any], **hub: Any) -> dict[str, Any]:
    """What a checkpoint says of the pixels that its model takes: size (a `Framing`), model_size, image_mean, image_std, where known.

    Args:
        config: Configuration of the classifier, in which `RobustTrainer` leaves a note.
        source: Origin of the model, to look for an image processor; may be empty.
        given: What the caller says of them, which is not asked of the checkpoint.
        hub: Revision, subfolder, token and the like, as the weights were loaded with.

    Raises:
        ValueError: If the image processor cannot be read, does what a framing and `Preprocessing` cannot, or says otherwise than the note.
    """
    noted = noted_pixels(config)
    try:
        processor = _processor(source, hub)
        found = None if processor is None else read_processor(processor, input_channels(config))
    except ValueError as error:
        if given.keys() >= SAID:
            return _settings(noted)
        raise ValueError(f"{_place(source, hub)}: {error}") from error
    if found is None:
        return _settings(noted)
    if noted is None:
        return _settings(found)
    check_same_pixels(noted, found, f"{source}: `hf_smoothing` in config.json", "its image processor", given)
    return _settings(noted)


def check_pixels_known(settings: Mapping[str, Any], source: str, config: PreTrainedConfig) -> None:
    """Refuse settings that leave open what an image becomes, naming all that is missing.

    Args:
        settings: What is known of size, image_mean and image_std.
        source: Origin of the model; may be empty.
        config: Configuration of the network, which says how many channels its images have.

    Raises:
        ValueError: If one of them is None, or not there.
    """
    whose, missing = source or "this model", []
    if settings.get("size") is None:
        missing.append(
            f"The certified resolution of {whose} is not known. Pass `size`, the number of pixels per side at which images are certified and noise is added, such "
            "as size=224 for an ImageNet model."
        )
    if settings.get("image_mean") is None or settings.get("image_std") is None:
        values = [0.5] * (input_channels(config) or 3)
        missing.append(
            f"The normalisation of {whose} is not known: it has no image processor. Pass image_mean={values} and image_std={values}, or what it was "
            "trained with, in [0, 1] pixel units; or save its image processor beside it: processor.save_pretrained(path)."
        )
    if missing:
        raise ValueError(" ".join(missing))


def origin_of(model: PreTrainedModel, given: Mapping[str, Any]) -> str:
    """The folder that a model which is there already came from; empty if it came from none, or its pixels are known otherwise.

    `transformers` notes only the name that a model was loaded by: no subfolder, revision or cache, nor which folder was the current one. So
    the name of a checkpoint is enough only if it is an absolute path, below which there is one image processor.

    Args:
        model: The model.
        given: What the caller says of its pixels.

    Raises:
        ValueError: If its image processor may be another one than that of the name.
    """
    name = model.config._name_or_path
    folder = Path(name)
    if not name or (folder.is_absolute() and folder.is_dir() and len(_statements(folder)) == 1):
        return str(name)
    if given.keys() >= SAID or noted_pixels(model.config) is not None:
        return ""
    raise ValueError(
        f"Which image processor belongs to this {type(model).__name__} is not certain: it says that it was loaded from {name!r}, but not from which folder, "
        "subfolder, revision or cache. Pass the folder or Hub id in place of the model, with subfolder=... or revision=... if it is in one; or size, "
        "image_mean and image_std (and model_size)."
    )


def _statements(folder: Path) -> set[tuple[bytes, ...]]:
    """What the checkpoints in a folder and below say of their pixels, in the files of an image processor or else, as those of timm, in config.json."""
    places = {folder} | {file.parent for name in (*PROCESSORS, CONFIG_NAME) for file in folder.rglob(name)}
    files = [[file for name in PROCESSORS if (file := place / name).is_file()] for place in places]
    configs = [[file] if (file := place / CONFIG_NAME).is_file() else [] for place in places]
    return {tuple(file.read_bytes() for file in own or config) for own, config in zip(files, configs, strict=True)}


def check_same_pixels(
    first: ProcessorPixels, second: ProcessorPixels, one: str, other: str, given: Iterable[str] = ()
) -> None:
    """Refuse two statements about one network that differ in what it sees.

    Args:
        first, second: The statements.
        one, other: Names of the two.
        given: Values that the caller has settled, by name.

    Raises:
        ValueError: The message names the values of both.
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
    """The image processor of a checkpoint, or None if it has no file of one.

    Raises:
        ValueError: If it has one that cannot be used, whatever `transformers` raises then; with the reason.
    """
    if not source:
        return None
    try:
        return AutoImageProcessor.from_pretrained(source, **trusting(hub))
    except Exception as error:
        if not (files := _processor_files(source, hub)):
            return None
        raise ValueError(
            f"its {' and '.join(files)} cannot be used ({type(error).__name__}: {textwrap.shorten(str(error), 500)}). Correct the file, install what it needs, or say all of it: size, "
            "image_mean and image_std (and model_size)."
        ) from error


def _processor_files(source: str, hub: Mapping[str, Any]) -> list[str]:
    """Names of the files of a checkpoint that state an image processor, or may."""
    where = {name: value for name, value in hub.items() if name != "trust_remote_code"}
    return [name for name in PROCESSORS if _states_one(name, source, where)]


def _states_one(name: str, source: str, where: Mapping[str, Any]) -> bool:
    try:
        found = cached_file(source, name, **where, _raise_exceptions_for_missing_entries=False)
        if found is None or name == IMAGE_PROCESSOR_NAME:
            return found is not None
        return "image_processor" in json.loads(Path(found).read_bytes())  # else it is of a tokenizer alone
    except (OSError, ValueError, TypeError):  # there may be one, but it cannot be read
        return True


def _place(source: str, hub: Mapping[str, Any]) -> str:
    said = [f"{name}={hub[name]!r}" for name in ("subfolder", "revision") if hub.get(name)]
    return f"The image processor of {source}" + (f" ({', '.join(said)})" if said else "")
