"""From a file to the pixels that are certified, and from pixels to pictures of the page."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor

from hf_smoothing import Framing, PixelDataset
from hf_smoothing.html_page import png_uri


MOST_PIXELS = 50_000_000
"""Pixels of a file; more would take the memory of a small machine."""


class UnusableFileError(ValueError):
    """A file that cannot be certified; the message is for the person who chose it."""


@dataclass(frozen=True)
class Chosen:
    """An image, as it is certified.

    Attributes:
        pixels: Pixels, uint8 (channels, height, width), at the certified resolution.
        about: Sentences on where it comes from and what was done to it.
        label: Name of its true class, where it is known; certification does not see it.
    """

    pixels: Tensor
    about: str
    label: str | None = None


def sample(image: Image.Image, name: str, framing: Framing) -> Chosen:
    """An image that the page offers.

    Args:
        image: The image, of any size.
        name: Name of its class.
        framing: How it becomes pixels: that of the classifiers.
    """
    about = f"A CIFAR-10 test image of 32 x 32 pixels. Its label is {name}; the certificate does not depend on it."
    return Chosen(_pixels(image, framing), about, name)


def read_file(path: str | Path, framing: Framing) -> Chosen:
    """The image in a file, read as `PixelDataset` reads it: upright, transparency over white, grey or palette as RGB; of several frames the first.

    Args:
        path: Path of the file.
        framing: As in `sample`.

    Raises:
        UnusableFileError: If it is no image, is damaged, has more than 8 bits per channel, or is larger than `MOST_PIXELS`.
    """
    name, content = Path(path).name, Path(path).read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is lower
            opened = Image.open(io.BytesIO(content))
    except Image.DecompressionBombError as error:
        raise UnusableFileError(_too_large(name)) from error
    except Exception as error:
        raise UnusableFileError(
            f"{name} is not an image that can be read. Choose a PNG, JPEG, GIF or WebP file; a file that is only renamed to .png is none."
        ) from error
    if opened.width * opened.height > MOST_PIXELS:
        raise UnusableFileError(_too_large(name, opened.size))
    try:
        pixels = _pixels(opened, framing)
    except ValueError as error:
        if opened.mode[:1] in "IF":
            cure = "Save it with 8 bits per channel and choose it again."
            raise UnusableFileError(f"{name} has more than 8 bits per channel (mode {opened.mode}). {cure}") from error
        cure = "It may be cut off: save or download it again."
        raise UnusableFileError(f"{name} begins as a {opened.format} image but cannot be read. {cure}") from error
    return Chosen(pixels, _what_was_done(name, opened, framing))


def _pixels(image: Image.Image, framing: Framing) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Image 0 is .*smaller than the certified resolution"
        )  # the page says so itself
        pixels: Tensor = PixelDataset([{"image": image}], framing)[0]["pixel_values"]
    return pixels


def _too_large(name: str, size: tuple[int, int] | None = None) -> str:
    shown = f"has {size[0]:,} x {size[1]:,} pixels" if size else "is far too large"
    return f"{name} {shown}; at most {MOST_PIXELS:,} pixels are read here. Make it smaller: 32 x 32 pixels are enough."


def _what_was_done(name: str, image: Image.Image, framing: Framing) -> str:
    height, width = framing.size
    across, down = ImageOps.exif_transpose(image).size
    parts = [f"{name}, {across:,} x {down:,} pixels."]
    if (down, across) != (height, width):
        verb = "enlarged" if across < width and down < height else "resized"
        parts.append(
            f"It is {verb} to {width} x {height} pixels; the certificate is about the image that you see here."
        )
    if _is_animated(image):
        parts.append("Only its first frame is used.")
    if image.has_transparency_data or "transparency" in image.info:
        parts.append("Transparent parts are laid over white.")
    return " ".join(parts)


def _is_animated(image: Image.Image) -> bool:
    """Whether an image is known to have several frames: those of a file that is cut off after the first cannot be counted."""
    try:
        return getattr(image, "n_frames", 1) > 1
    except Exception:  # decoders raise whatever comes first
        return False


def data_uri(pixels: Tensor) -> str:
    """Pixels as a PNG inside a page.

    Args:
        pixels: Pixels, uint8, or float in [0, 1] and clamped to it, (3, height, width).
    """
    if pixels.is_floating_point():
        pixels = (pixels.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
    return png_uri(pixels.numpy())
