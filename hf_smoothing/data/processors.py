"""What an image processor makes of an image, in the terms of this package; proven on probe images, or refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hf_smoothing.data.framing import Framing, check_size_alone, framing_of_settings, parse_filter, parse_framing
from hf_smoothing.data.image_processing import NoisyImageProcessorPil
from hf_smoothing.data.probe_pictures import more_probe_pictures, probe_pictures
from hf_smoothing.data.processor_outputs import CURE, measured_normalisation, outputs
from hf_smoothing.preprocessing import Preprocessing
from hf_smoothing.spelling import has_names


if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedConfig, PreTrainedModel

PixelSource: TypeAlias = (
    "int | Sequence[int] | Framing | Mapping[str, Any] | PreTrainedModel | PreTrainedConfig | BaseImageProcessor"
)
"""What says how images become pixels; see `framing_of`."""


LARGEST, MEAN = 2.5 / 255, 0.5 / 255
"""By how much two ways to the same pixels may differ, in [0, 1] pixel units: at one pixel, and on average.

PIL and torchvision round to 8 bits between and after their two passes in other ways, which moves a pixel by a level or two and the mean by
less than half of one. Another filter, crop or normalisation moves the pixels of the probe images by tens of levels."""

STEPS = {
    "do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb", "do_noise", "do_reduce_labels",
}  # fmt: skip
"""Steps of processors that `Framing` and `Preprocessing` say, or that change no pixel of an image without noise."""


@dataclass(frozen=True)
class ProcessorPixels:
    """What an image processor does: an image to pixels (`framing`), and those to what the network takes (`preprocessing`)."""

    framing: Framing
    preprocessing: Preprocessing


def named_classes(source: PixelSource) -> dict[int, str] | None:
    """The classes of what says how images become pixels, if it is a model, or its configuration, whose classes have names.

    Args:
        source: As in `framing_of`.
    """
    known = getattr(getattr(source, "config", source), "id2label", None) or {}
    return dict(known) if has_names([known[number] for number in sorted(known)]) else None


def framing_of(source: PixelSource) -> Framing:
    """How images become the pixels of a classifier, from whatever says it.

    Args:
        source: A `SmoothedClassifier`, a backbone with a note of `RobustTrainer`, the configuration of either, an image processor, a `Framing`,
            its dictionary, or a size alone: then whole RGB images are resized to it.

    Raises:
        ValueError: If it does not say, or its image processor does what cannot be expressed.
    """
    config: Any = getattr(source, "config", source)
    if callable(getattr(config, "framing", None)):
        return config.framing()  # type: ignore[no-any-return]  # of a SmoothedClassifierConfig or NoisyImageProcessor
    if callable(getattr(source, "preprocess", None)):
        return read_processor(source).framing
    if not hasattr(config, "model_type"):
        if isinstance(source, torch.nn.Module):
            raise ValueError(
                f"A network of your own, got {type(source).__name__}, does not say how images become its pixels. Pass the size, such as 32, or "
                "(height, width), or a Framing: Framing(28, channels=1) for grey images."
            )
        return parse_framing(source)
    noted = noted_pixels(config)
    if noted is None:
        raise ValueError(
            f"This {type(source).__name__} does not say how images become its pixels. Pass its image processor, or the size: a number of pixels or "
            "(height, width)."
        )
    return noted.framing


def noted_pixels(config: PreTrainedConfig) -> ProcessorPixels | None:
    """What `RobustTrainer` has noted of the pixels in the configuration of a plain backbone.

    Raises:
        ValueError: If the note is not whole.
    """
    noted = getattr(config, "hf_smoothing", None)
    if not isinstance(noted, dict) or noted.get("image_mean") is None or noted.get("size") is None:
        return None
    try:
        mean, std = tuple(noted["image_mean"]), tuple(noted["image_std"])
        framing = Framing(noted["size"], noted.get("resize"), noted.get("resample") or "bilinear", len(mean))
        return ProcessorPixels(framing, Preprocessing(mean, std, noted.get("model_size")))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"`hf_smoothing` in config.json must say size, image_mean and image_std, one value per channel, got {noted} ({type(error).__name__}: {error}). "
            "Correct it, or remove it and pass the values."
        ) from error


def frame(framing: Framing, images: Sequence[Image.Image]) -> Tensor:
    """uint8 (images, channels, *framing.size), as `PixelDataset` makes them."""
    processor = NoisyImageProcessorPil(**framing.processor_settings(), do_rescale=False, do_normalize=False)
    return torch.stack([torch.from_numpy(np.ascontiguousarray(x)) for x in processor(list(images))["pixel_values"]])


def read_processor(processor: BaseImageProcessor, channels: int | None = None) -> ProcessorPixels:
    """What an image processor does, checked: our pixels of the probe images are its own, within `LARGEST` and `MEAN`.

    Two of them find the way; those of `more_probe_pictures` then confirm it, since some processors treat images of other proportions or sizes otherwise.

    Args:
        processor: Processor of any class of `transformers`, or one with its attributes and call.
        channels: Number of channels that the network takes; by default as many as there are means.

    Raises:
        ValueError: If it does what a resize, a centre crop and a normalisation cannot express; with the difference.
    """
    name = type(processor).__name__
    if callable(getattr(processor, "framing", None)):
        framing = processor.framing()
        if channels not in (None, framing.channels):
            raise ValueError(
                f"{name} makes images of {framing.channels} channel(s), but the network takes {channels}. Make it with num_channels={channels}."
            )
        images = probe_pictures(framing.size, framing.channels)
        theirs = outputs(processor, images)
        found = ProcessorPixels(framing, measured_normalisation(processor, framing.channels, theirs.shape[-2:]))
        if not _agree(_difference(found, images, theirs)):
            raise ValueError(_refusal(name, found, images, theirs))
        return _confirmed(processor, found)
    check_size_alone(processor)
    mean = getattr(processor, "image_mean", None)
    channels = channels or (len(mean) if isinstance(mean, Sequence) and len(mean) == 1 else 3)
    shape = outputs(processor, probe_pictures((64, 64), channels)).shape
    if shape[1] != channels:
        raise ValueError(f"{name} makes images of {shape[1]} channel(s), but the network takes {channels}. {CURE}")
    size = (int(shape[-2]), int(shape[-1]))
    images = probe_pictures(size, channels)
    theirs = outputs(processor, images)
    preprocessing = measured_normalisation(processor, channels, size)
    best: tuple[tuple[float, float], ProcessorPixels] | None = None
    for framing in _candidates(processor, size, channels):
        found = ProcessorPixels(framing, preprocessing)
        difference = _difference(found, images, theirs)
        if _agree(difference):
            return _confirmed(processor, found)
        if best is None or difference < best[0]:
            best = difference, found
    assert best is not None
    turned = (ProcessorPixels(way, preprocessing) for way in _candidates(processor, size, channels))
    if any(_agree(_difference(found, images, theirs.flip(1))) for found in turned):
        raise ValueError(
            f"{name} turns RGB into BGR, which cannot be expressed by a resize, a crop and a normalisation. Reorder the first convolution's "
            "input channels, save the model with a processor that keeps RGB, and load that."
        )
    raise ValueError(_refusal(name, best[1], images, theirs))


def _confirmed(processor: BaseImageProcessor, found: ProcessorPixels) -> ProcessorPixels:
    """The same, if it holds for images of all proportions and sizes as well.

    Raises:
        ValueError: If it does not, or the processor has a further step, which images of yet another kind may take.
    """
    name = type(processor).__name__
    images = more_probe_pictures(found.framing.size, found.framing.channels)
    theirs = outputs(processor, images)
    if not _agree(_difference(found, images, theirs)):
        raise ValueError(_refusal(name, found, images, theirs))
    further = [step for step in dir(processor) if step.startswith("do_") and getattr(processor, step) is True]
    if unknown := sorted(set(further) - STEPS):
        raise ValueError(
            f"{name} has {unknown[0]}=True, which cannot be expressed by a resize, a crop and a normalisation. {CURE}"
        )
    return found


def _candidates(processor: BaseImageProcessor, size: tuple[int, int], channels: int) -> Iterator[Framing]:
    """Ways to images of this size, the ones that the processor's settings suggest first."""
    resample = getattr(processor, "resample", None)
    filters = "bilinear" if resample is None else parse_filter(getattr(resample, "value", resample))
    try:
        said = replace(framing_of_settings(processor), channels=channels)
        if said.size == size:
            yield said
    except ValueError:
        pass
    yield Framing(size, None, filters, channels)
    if getattr(processor, "do_resize", True) is False:
        yield Framing(size, False, filters, channels)
    # Some classes resize to more than their `size` says before they crop, each by a rule of its own: the length is found by trying.
    elif getattr(getattr(processor, "size", None), "shortest_edge", None):
        for edge in range(max(size), 2 * max(size)):
            yield Framing(size, edge, filters, channels)


def _pixels(found: ProcessorPixels, normalised: Tensor) -> Tensor:
    """Back in [0, 1] pixel units."""
    mean, std = (
        torch.tensor(values)[:, None, None]
        for values in (found.preprocessing.image_mean, found.preprocessing.image_std)
    )
    return normalised * std + mean


def _difference(found: ProcessorPixels, images: Sequence[Image.Image], theirs: Tensor) -> tuple[float, float]:
    """(at most, on average), in [0, 1] pixel units."""
    ours = found.preprocessing(frame(found.framing, images).float() / 255)
    if ours.shape != theirs.shape:
        return float("inf"), float("inf")
    gap = _pixels(found, ours - theirs) - _pixels(found, torch.zeros_like(theirs))
    return float(gap.abs().max()), float(gap.abs().mean())


def _agree(difference: tuple[float, float]) -> bool:
    return difference[0] <= LARGEST and difference[1] <= MEAN


def _refusal(name: str, found: ProcessorPixels, images: Sequence[Image.Image], theirs: Tensor) -> str:
    ours = found.preprocessing(frame(found.framing, images).float() / 255)
    largest, mean = _difference(found, images, theirs)
    shapes = ", ".join(f"{image.height} x {image.width}" for image in images)
    return (
        f"{name} does what a resize, a centre crop and a normalisation cannot express: for probe images of {shapes} its pixels differ from the closest "
        f"that we can make by {largest:.3g} of the pixel range at most and {mean:.3g} on average (allowed: {LARGEST:.2g} and {MEAN:.2g}); standard "
        f"deviation {float(theirs.std()):.3g}, ours {float(ours.std()):.3g}. {CURE}"
    )
