"""Which tensors are images: the one check behind every entry that takes pixels."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor


# Resizing with bicubic filters and float rounding leave the range by less than this; normalised pixels by far more.
RANGE_TOLERANCE = 1e-3
FAINT = 1.001 / 255
"""White that was divided by 255 twice, with room for rounding."""
PROCESS = 'model.image_processor()(images, return_tensors="pt")["pixel_values"]'
"""The line that makes the pixels of a `SmoothedClassifier`: resized, cropped and filtered as its network expects."""


class UnreadableImageError(ValueError):
    """An image that is damaged or missing, named by its index and, where it has one, its file.

    Args:
        index: Index of the image in its data set.
        file: Its path, or None.
        message: Fault and cure.
    """

    def __init__(self, index: int, file: str | None, message: str) -> None:
        super().__init__(index, file, message)
        self.index, self.file, self.message = index, file, message

    def __str__(self) -> str:
        return self.message


_MAKES = (
    f"For a SmoothedClassifier `model`, {PROCESS} makes one; for another network use the image processor that belongs to it, with "
    "do_normalize=False. Of a data set, PixelDataset(dataset, model) makes such pixels."
)


def check_image_batch(images: Any, name: str = "images") -> Tensor:
    """Return `images` if it is one tensor of shape (batch, channels, height, width).

    Raises:
        TypeError: If it is not a tensor.
        ValueError: If it has not four dimensions, an empty one, or not one or three channels.
    """
    if isinstance(images, (list, tuple)) and images and all(isinstance(image, Tensor) for image in images):
        shapes = sorted({tuple(image.shape) for image in images})
        cure = "torch.stack makes one of them." if len(shapes) == 1 else f"Make it of the images themselves. {_MAKES}"
        raise TypeError(
            f"`{name}` must be one tensor of shape (batch, channels, height, width), got a list of tensors of shapes {shapes}. {cure}"
        )
    # What torch functions take in a tensor's place, such as a box of `interval`, is taken here too.
    if not isinstance(images, Tensor) and not hasattr(images, "__torch_function__"):
        shape: Any = getattr(images, "shape", ())
        stacked = len(shape) == 4 and shape[1] in (1, 3)
        cure = "It has that shape: torch.from_numpy makes a tensor of an array." if stacked else _MAKES
        raise TypeError(
            f"`{name}` must be a torch tensor of shape (batch, channels, height, width), got {type(images).__name__}. {cure}"
        )
    if images.ndim != 4:
        raise ValueError(
            f"`{name}` must have shape (batch, channels, height, width), got {tuple(images.shape)}. {_missing_dimensions(tuple(images.shape))}"
        )
    if images.shape[0] == 0:
        raise ValueError(f"`{name}` must hold at least one image, got an empty batch.")
    if images.shape[1] not in (1, 3) or 0 in images.shape:
        cure = "Convert images of other channels, such as RGBA, with image.convert('RGB')."
        if images.shape[3] in (1, 3):
            cure = "The channels are last: move them with .permute(0, 3, 1, 2)."
        elif images.shape[3] == 4:
            cure = "The channels are last, and four: take three of them and move them, images[..., :3].permute(0, 3, 1, 2)."
        raise ValueError(f"`{name}` must have 1 or 3 channels in dimension 1, got shape {tuple(images.shape)}. {cure}")
    batch: Tensor = images
    return batch


def _missing_dimensions(shape: tuple[int, ...]) -> str:
    """How images of fewer dimensions become a batch."""
    if len(shape) == 2:
        return "Of one grey image make a batch: image[None, None]."
    if len(shape) == 3 and shape[0] not in (1, 3):
        if shape[2] in (1, 3):
            return "It looks like one image with its channels last: image.permute(2, 0, 1)[None]."
        return "They look like grey images without the dimension of their channel: images[:, None]."
    return "For a single image add the batch dimension: image[None]."


def grid_to_unit(steps: Tensor) -> Tensor:
    """Grid steps k as pixels k / 255, each the nearest number of its dtype, so the same on every device.

    Args:
        steps: Floating point, any shape, in units of 1/255.
    """
    # By a tensor on the device: divided by a Python number, CUDA multiplies with the rounded 1/255, which now and then gives a neighbour.
    return steps / steps.new_full((), 255.0)


def to_unit_pixels(images: Tensor, name: str = "images") -> Tensor:
    """Pixels as float32 in [0, 1]: uint8 0..255 is divided by 255, floats in [0, 1] pass.

    Half precision cannot hold most multiples of 1/255. An image of which every pixel is what rounding such a multiple to its dtype gives is taken
    for the 8-bit image that it was, so that a certificate is about that one.

    Args:
        images: Images (batch, channels, height, width), uint8 in 0..255 or floating point in [0, 1], before any noise.
        name: How the caller calls them, for the message.

    Raises:
        TypeError: If it is not a tensor of one of these kinds.
        ValueError: On any other shape, on nan or infinite pixels, and on float pixels outside [0, 1].
    """
    images = check_image_batch(images, name)
    if images.dtype == torch.uint8:
        return grid_to_unit(images.to(torch.float32))
    if not images.is_floating_point():
        raise TypeError(
            f"`{name}` must be uint8 in 0..255 or floating point in [0, 1], got {images.dtype}. Convert with .to(torch.uint8)."
        )
    pixels = images.to(torch.float32)
    check_range(pixels, name)
    return pixels if images.dtype not in (torch.float16, torch.bfloat16) else _unrounded(pixels, images.dtype)


def check_range(pixels: Tensor, name: str) -> None:
    """Refuse float pixels that are nan, or beyond [0, 1] by more than `RANGE_TOLERANCE`.

    Raises:
        ValueError: The message names the range that was received.
    """
    low, high = (float(x) for x in torch.aminmax(pixels.detach()))
    if not (low >= -RANGE_TOLERANCE and high <= 1.0 + RANGE_TOLERANCE):  # written so that nan fails
        raise ValueError(_range_message(name, pixels, low, high))


def is_faint(pixels: Tensor) -> bool:
    """Whether pixels go up to one level of 255, as those do that were divided twice. Black images have few levels, also in a lossy format."""
    if not pixels.is_floating_point():
        return False
    low, high = (float(x) for x in torch.aminmax(pixels.detach()))
    return 0.0 <= low < high <= FAINT and len(pixels.detach().unique()) > 8


def warn_faint(name: str, stacklevel: int) -> None:
    """Warn of pixels of which all are faint, see `is_faint`."""
    warnings.warn(
        f"`{name}` should hold pixels up to 1, got none above one level of 255: next to black. Were they divided by 255 twice? Pass uint8 pixels, or divide once.",
        stacklevel=stacklevel + 1,
    )


def without_tolerance(pixels: Tensor) -> Tensor:
    """Float pixels that are beyond [0, 1] by no more than `RANGE_TOLERANCE` moved to its ends, any dtype; others stay, for what comes next to refuse.

    Balls within [0, 1] and attacks need this. The host does not wait for the device.
    """
    near = (pixels >= -RANGE_TOLERANCE) & (pixels <= 1.0 + RANGE_TOLERANCE)
    return torch.where(near, pixels.clamp(0.0, 1.0), pixels)


def _unrounded(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """Float32 copies of half-precision images, those that were 8-bit moved back onto the 1/255 grid; gradients pass."""
    exact = grid_to_unit((pixels.detach() * 255.0).round())
    was_8_bit = (exact.to(dtype).to(torch.float32) == pixels.detach()).flatten(1).all(dim=1)[:, None, None, None]
    # The difference of two floats this near to each other is exact, and so is the sum.
    return pixels + torch.where(was_8_bit, exact - pixels.detach(), 0.0)


def warn_other_framing(classifier: object, dataset: object, stacklevel: int = 3) -> None:
    """Warn if a data set makes its pixels otherwise than the classifier is for, at the same resolution and where both say how.

    Args:
        classifier: A `SmoothedClassifier`, or anything.
        dataset: A `PixelDataset`, or anything.
        stacklevel: Of the warning: 3 is the line that called the caller.
    """
    wanted, made = getattr(getattr(classifier, "config", None), "framing", None), getattr(dataset, "framing", None)
    if callable(wanted) and made is not None and made.size == wanted().size and made != wanted():
        warnings.warn(
            f"The data set makes its pixels as {made}, but the classifier is for {wanted()}. Pass it the classifier instead of a size: "
            "PixelDataset(dataset, model).",
            stacklevel=stacklevel,
        )


def _range_message(name: str, pixels: Tensor, low: float, high: float) -> str:
    if not bool(torch.isfinite(pixels).all()):
        return f"`{name}` must hold finite pixels in [0, 1], got nan or infinite values. Look at how they were loaded."
    cure = "It looks already normalised: use do_normalize=False; normalisation is done inside the model."
    beyond, outside = max(-low, high - 1.0), ((pixels < 0.0) | (pixels > 1.0)).float().mean()
    if beyond <= 0.1 or (beyond <= 0.5 and outside < 0.25):
        cure = "That is a little beyond, as resizing with a bicubic filter or brightening leaves it: pass pixels.clamp(0, 1)."
    if low >= 0.0 and high > 2.0:
        cure = "It looks like 0..255 as floats: divide by 255, or pass uint8."
    return f"`{name}` must hold pixels in [0, 1] before noise, got values from {low:.6g} to {high:.6g}. {cure}"
