"""Whatever holds an image, as one upright PIL image with 8 bits per channel: grey or RGB."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor


TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")
"""Modes with an alpha channel. LAB has a band called A, which is a colour."""


def eight_bit_image(image: Image.Image, grey: bool = False) -> Image.Image:
    """The image upright, as its EXIF orientation says, and opaque: transparency is laid over white, as `transformers` does.

    Args:
        image: Image of any mode.
        grey: Convert it to grey (ITU-R 601 luma).

    Raises:
        ValueError: If it has one channel of more than 8 bits, which conversion to RGB would clip to white. Of files with several channels of 16
            bits Pillow gives the upper 8.
    """
    if image.mode[:1] in "IF":
        raise ValueError(
            f"Images must have 8 bits per channel, got PIL mode {image.mode!r}. Scale to 0..255 first, all images by one fixed number, such as 257 for 16 bits: "
            "Image.fromarray((values // 257).astype('uint8'))."
        )
    # As `datasets` and the pipelines do, so that one file gives the same pixels whichever way it comes.
    upright = ImageOps.exif_transpose(image)
    if upright.mode in TRANSPARENT or upright.info.get("transparency") is not None:
        over = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    if upright.mode not in ("L", "RGB"):
        upright = upright.convert("RGB")  # an array of any other mode holds no colours: indices, bits, inks
    return upright.convert("L") if grey else upright


CHANNELS = (1, 3, 4)
"""How many channels an array may have: grey, RGB, or RGB with transparency."""


def has_channels_first(shape: Sequence[int], cure: str) -> bool:
    """Whether the channels of an array are its first axis, or its last one.

    Args:
        shape: Shape of an image of three axes.
        cure: How to say which it is.

    Raises:
        ValueError: If they can be either, with other pixels.
    """
    first, last = shape[0] in CHANNELS, shape[-1] in CHANNELS
    if first and last and tuple(shape) != (1, 1, 1):
        raise ValueError(
            f"arrays must have one axis that can be that of the channels, the first or the last, got {tuple(shape)}, which fits both. {cure}"
        )
    return first


def image_of_array(values: Any) -> Image.Image:
    """A PIL image from a uint8 array, tensor or nested list: (height, width), channels first or last; 1 or 3 of them, or 4 with transparency.

    Raises:
        ValueError: On any other shape, on one whose first and last axis can both be channels, and on values that are not 8-bit.
    """
    array = values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    # `datasets` hands a uint8 column on as lists, or as arrays of int64. Floats that happen to be whole would pass for 0..255.
    if array.dtype != np.uint8 and not (
        array.dtype in (np.int32, np.int64) and array.size and array.min() >= 0 and array.max() <= 255
    ):
        span = f" from {array.min()} to {array.max()}" if array.dtype.kind in "iuf" and array.size else ""
        raise ValueError(
            f"arrays must be uint8, 0 to 255, got {array.dtype}{span}. Floats are not decoded here: pass tensors in [0, 1] to certify() "
            "directly, or convert with (255 * values).round().astype('uint8')."
        )
    if array.ndim == 3 and has_channels_first(array.shape, _AS_PICTURES):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if 0 in array.shape or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (3, 4)):
        raise ValueError(
            "arrays must have shape (height, width), (height, width, channels) or (channels, height, width) with 1, 3 or 4 channels, "
            f"got {tuple(np.shape(values))}."
        )
    return Image.fromarray(np.ascontiguousarray(array, dtype=np.uint8))


_AS_PICTURES = (
    "Pass PIL images: Image.fromarray(array) of channels last, Image.fromarray(np.moveaxis(array, 0, -1)) of channels first; of grey ones pass "
    "(height, width) alone."
)
