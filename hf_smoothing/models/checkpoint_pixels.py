"""What a checkpoint says of the pixels that its model takes: in the note of `RobustTrainer`, and in its image processor."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.utils import CONFIG_NAME, IMAGE_PROCESSOR_NAME, PROCESSOR_NAME, cached_file

from hf_smoothing.data.processors import ProcessorPixels, noted_pixels, read_processor
from hf_smoothing.models.configuration import input_channels, per_channel
from hf_smoothing.models.level_range import warn_of_levels
from hf_smoothing.models.weights import trusting


PROCESSORS = (PROCESSOR_NAME, IMAGE_PROCESSOR_NAME)
"""The files in which `transformers` looks for an image processor: inside the one of a processor of several inputs first."""
SAID = {"size", "image_mean", "image_std"}
"""What a caller says who needs no image processor."""


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
        if not given.keys() >= {"image_mean", "image_std"}:
            warn_of_levels(processor, found, _place(source, hub))
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


def with_channels(
    settings: Mapping[str, Any], known: Mapping[str, Any], config: PreTrainedConfig
) -> list[dict[str, Any]]:
    """The settings with a mean and a standard deviation for each channel; where nothing says how many there are, for colour first, then for grey.

    Args:
        settings: The settings, with image_mean and image_std.
        known: What the checkpoint says of them.
        config: Configuration of the network, which says how many channels its images have, or not.
    """
    if input_channels(config) is not None:
        return [dict(settings)]
    values = {name: per_channel(settings[name], None) for name in ("image_mean", "image_std")}
    most = max(map(len, values.values()))
    counts = [most] if most > 1 else [known["size"].channels] if "size" in known else [3, 1]
    return [{**settings, **{name: per_channel(value, count) for name, value in values.items()}} for count in counts]


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
    first: ProcessorPixels, second: ProcessorPixels, one: str, other: str, given: Iterable[str] = (), cure: str = ""
) -> None:
    """Refuse two statements about one network that differ in what it sees.

    Args:
        first, second: The statements.
        one, other: Names of the two.
        given: Values that the caller has settled, by name.
        cure: What to do; by default to correct one of the two, or to pass the value that is right.

    Raises:
        ValueError: The message names the values of both.
    """
    said = [_seen(pixels) for pixels in (first, second)]
    for name, tolerance in (("image_mean", 1e-4), ("image_std", 1e-4), ("model_size", 0.0)):
        a, b = (values[name] for values in said)
        same = len(a) == len(b) and all(abs(x - y) <= tolerance for x, y in zip(a, b, strict=True))
        if name not in given and not same:
            cure = cure or f"correct or remove the other, or say which by passing {name}={list(a)}"
            raise ValueError(
                f"{one} and {other} disagree: {name} is {list(a)} in the first and {list(b)} in the second. Only one can be what the network "
                f"was trained on: {cure}."
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
