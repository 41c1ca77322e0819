"""From [0, 1] pixels at the certified resolution to what a backbone takes: the one resize and normalisation.

It comes after the noise, so it is part of the classifier that is certified: any filter, any dtype, is sound here.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_smoothing.pixels import check_image_batch
from hf_smoothing.units import is_truth_value


__all__ = ["Preprocessing", "parse_size"]

Size = tuple[int, int]


def parse_size(size: Any, name: str = "size") -> Size | None:
    """(height, width) from an int, a pair, or transformers' {"height": h, "width": w} / {"shortest_edge": s}.

    Raises:
        ValueError: If it is none of these or not positive.
    """
    if size is None:
        return None
    if is_truth_value(size):
        raise ValueError(f"`{name}` must be a number of pixels or (height, width), got {size}.")
    if isinstance(size, numbers.Integral):
        pair: tuple[Any, ...] = (int(size), int(size))
    elif hasattr(size, "get"):
        edge = size.get("shortest_edge") or 0
        pair = (size.get("height") or edge, size.get("width") or edge)
    elif isinstance(size, Sequence) and not isinstance(size, str):
        pair = tuple(size)
    else:
        pair = (getattr(size, "height", None), getattr(size, "width", None))
    if len(pair) != 2 or not all(isinstance(edge, numbers.Integral) and int(edge) > 0 for edge in pair):
        raise ValueError(f"`{name}` must be a positive number of pixels or (height, width), got {size!r}.")
    return int(pair[0]), int(pair[1])


@dataclass(frozen=True)
class Preprocessing:
    """Resize to the backbone's input and normalise.

    Args:
        image_mean, image_std: One number per channel, in [0, 1] pixel units. `image_std` is never the noise level.
        model_size: The pair (height, width) that the backbone sees, or None for the certified resolution itself.

    Raises:
        ValueError: If the numbers do not make sense.
    """

    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    model_size: Size | None = None

    def __post_init__(self) -> None:
        for name in ("image_mean", "image_std"):
            value = getattr(self, name)
            values = (value,) if isinstance(value, numbers.Real) else tuple(value)
            if not all(isinstance(x, numbers.Real) for x in values):
                raise ValueError(f"`{name}` must hold one number per channel, got {value!r}.")
            object.__setattr__(self, name, tuple(float(x) for x in values))
        object.__setattr__(self, "model_size", parse_size(self.model_size, "model_size"))
        if len(self.image_mean) != len(self.image_std) or not self.image_mean:
            raise ValueError(
                f"`image_mean` and `image_std` need one number per channel each, got {self.image_mean} and {self.image_std}."
            )
        if not all(s > 0.0 for s in self.image_std):
            raise ValueError(f"`image_std` must be positive, got {self.image_std}.")
        if not all(math.isfinite(x) for x in self.image_mean + self.image_std):
            raise ValueError(
                f"`image_mean` and `image_std` must be finite, got {self.image_mean} and {self.image_std}."
            )
        if any(abs(m) > 2.0 or s > 2.0 for m, s in zip(self.image_mean, self.image_std, strict=True)):
            raise ValueError(
                f"`image_mean` and `image_std` must be in [0, 1] pixel units, got {self.image_mean} and {self.image_std}. "
                "Divide figures in 0..255 units by 255."
            )

    def __call__(self, pixels: Tensor) -> Tensor:
        """The pixels, float (batch, channels, height, width) with any finite values, resized and normalised.

        Raises:
            TypeError: If the pixels are integers.
            ValueError: If the number of channels is not that of `image_mean`.
        """
        pixels = check_image_batch(pixels, "pixels")
        if not pixels.dtype.is_floating_point:
            raise TypeError(
                f"`pixels` must be floating point in [0, 1] units, got {pixels.dtype}. Divide uint8 pixels by 255."
            )
        channels = pixels.shape[1]
        if channels != len(self.image_mean) and len(self.image_mean) != 1:
            raise ValueError(
                f"Pixels have {channels} channel(s) but `image_mean` has {len(self.image_mean)}. "
                "Convert grey images to RGB with image.convert('RGB')."
            )
        if self.model_size is not None and tuple(pixels.shape[-2:]) != self.model_size:
            pixels = resize(pixels, self.model_size)
        mean, std = (
            torch.tensor(values, dtype=pixels.dtype, device=pixels.device)[None, :, None, None]
            for values in (self.image_mean, self.image_std)
        )
        return (pixels - mean) / std

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "image_mean": list(self.image_mean),
            "image_std": list(self.image_std),
            "model_size": None if self.model_size is None else list(self.model_size),
        }


def resize(pixels: Tensor, size: Size) -> Tensor:
    """Bilinear resize, antialiased when it shrinks (as PIL does).

    Args:
        pixels: Pixels, float (batch, channels, height, width).
        size: The pair (height, width).
    """
    shrinks = size[0] < pixels.shape[-2] or size[1] < pixels.shape[-1]
    # Not in half precision, since the antialiased filter has no kernel for it on the CPU.
    wide = pixels if pixels.dtype in (torch.float32, torch.float64) else pixels.float()
    resized = F.interpolate(wide, size=size, mode="bilinear", align_corners=False, antialias=shrinks)
    return resized.to(pixels.dtype)
