"""What an image processor gives for images, and the mean and standard deviation that are in it."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from hf_smoothing.preprocessing import Preprocessing


if TYPE_CHECKING:
    from transformers import BaseImageProcessor

CURE = (
    "To certify this network on images prepared otherwise than its processor does, say all of it: size, image_mean and image_std "
    "(and model_size). Or save a processor that only resizes, crops and normalises: processor.save_pretrained(path)."
)


def outputs(processor: BaseImageProcessor, images: Sequence[Image.Image]) -> Tensor:
    """What the processor makes of the images, float (images, channels, height, width).

    Raises:
        ValueError: If it is no tensor of pixels, or a failure of its own.
    """
    name = type(processor).__name__
    options = {"do_noise": False} if hasattr(processor, "do_noise") else {}
    values = []
    for image in images:
        try:
            made = processor(image, return_tensors="pt", **options)
        except Exception as error:
            raise ValueError(
                f"{name} fails on an 8-bit image of mode {image.mode}: {str(error).rstrip('.')}. {CURE}"
            ) from error
        pixels = made.get("pixel_values")
        if not isinstance(pixels, Tensor) or pixels.ndim != 4 or pixels.shape[0] != 1:
            what = {key: tuple(getattr(value, "shape", ())) for key, value in made.items()}
            raise ValueError(
                f"{name} does not make pixels (1, channels, height, width) of an image, but {what}. Networks that take patches, colour "
                "numbers or several crops cannot be certified in pixels."
            )
        values.append(pixels[0].float())
    if len(shapes := {tuple(value.shape) for value in values}) > 1:
        raise ValueError(
            f"{name} gives images in different shapes, {sorted(shapes)}, but a certificate needs one. {CURE}"
        )
    return torch.stack(values)


def measured_normalisation(processor: BaseImageProcessor, channels: int, size: Sequence[int]) -> Preprocessing:
    """Mean and standard deviation that give what black and white images become: offsets and repeated normalisation are in it."""
    ends = [Image.new("L", (int(size[1]), int(size[0])), level) for level in (0, 255)]
    images = [end if channels == 1 else end.convert("RGB") for end in ends]
    black, white = outputs(processor, images).double().mean((-2, -1))
    span = white - black
    if not bool((span > 1e-6).all()):
        raise ValueError(
            f"{type(processor).__name__} makes black {black.tolist()} and white {white.tolist()}, which no mean and standard deviation "
            f"in [0, 1] pixel units give. {CURE}"
        )
    measured = Preprocessing(tuple((-black / span).tolist()), tuple((1.0 / span).tolist()), _model_size(processor))
    said = _said(processor, channels)
    if said is None or not _close(said, measured):
        return measured
    return replace(measured, image_mean=said[0], image_std=said[1])  # the same, without rounding


def _said(processor: BaseImageProcessor, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation for [0, 1] pixels, from the settings that all classes have."""
    mean, std = (0.0,) * channels, (1.0,) * channels
    if getattr(processor, "do_normalize", True):
        mean, std = (_per_channel(name, getattr(processor, name), channels) for name in ("image_mean", "image_std"))
    if not len(mean) == len(std) == channels:
        return None
    # From 0..255 the processor goes to its own range before it normalises; from [0, 1] that is this factor.
    scale = 255.0 * processor.rescale_factor if getattr(processor, "do_rescale", True) else 255.0
    if abs(scale - 1.0) > 1e-6:
        mean, std = tuple(m / scale for m in mean), tuple(s / scale for s in std)
    return mean, std


def _per_channel(name: str, value: Any, channels: int) -> tuple[float, ...]:
    values = (value,) * channels if isinstance(value, numbers.Real) else tuple(value or ())
    if not all(isinstance(number, numbers.Real) for number in values):
        raise ValueError(f"`{name}` must be a number, or one for each of {channels} channel(s), got {value!r}. {CURE}")
    return tuple(float(number) for number in values)


def _close(said: tuple[tuple[float, ...], tuple[float, ...]], measured: Preprocessing) -> bool:
    pairs = zip(said[0] + said[1], measured.image_mean + measured.image_std, strict=True)
    return all(abs(a - b) <= 1e-5 * max(1.0, abs(a)) for a, b in pairs)


def _model_size(processor: BaseImageProcessor) -> Any:
    size = getattr(processor, "model_size", None)
    return None if size is None else (size["height"], size["width"])
