"""Common corruptions, for a shift between the images of two data sets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


CORRUPTIONS = ("gaussian-noise", "gaussian-blur", "contrast", "pixelate")


def corrupted(pixels: Tensor, kind: str, strength: float, seed: int = 0) -> Tensor:
    """8-bit images, corrupted alike whenever they are asked for.

    Args:
        pixels: Pixels, uint8 (images, channels, height, width).
        kind: "gaussian-noise", of that standard deviation in [0, 1] units; "gaussian-blur", of that standard deviation in pixels;
            "contrast", lowered by that share in [0, 1] around each image's mean; "pixelate", squares of that many pixels per side
            (a whole number that divides the image's sides).
        strength: Strength of the corruption, >= 0.
        seed: Seed of the noise generator.

    Raises:
        ValueError: On an unknown kind, or a strength that makes no sense.

    Source: four of the families of Hendrycks and Dietterich (2019), arXiv 1903.12261, without their five levels.
    """
    if kind not in CORRUPTIONS:
        raise ValueError(f"A corruption must be one of {', '.join(CORRUPTIONS)}, got {kind!r}.")
    if not strength >= 0.0 or (kind == "contrast" and strength > 1.0):
        raise ValueError(f"The strength of {kind} must be >= 0 (contrast: at most 1), got {strength}.")
    images = pixels.float() / 255
    if kind == "gaussian-noise":
        generator = torch.Generator(pixels.device).manual_seed(seed)
        images = images + strength * torch.randn(images.shape, generator=generator, device=images.device)
    elif kind == "gaussian-blur" and strength:
        images = _blurred(images, strength)
    elif kind == "contrast":
        mean = images.mean((1, 2, 3), keepdim=True)
        images = mean + (1.0 - strength) * (images - mean)
    elif kind == "pixelate":
        side = int(strength)
        if side != strength or side < 1 or images.shape[2] % side or images.shape[3] % side:
            raise ValueError(
                f"Squares of pixelate must divide the image, {tuple(images.shape[2:])}, got {strength}. Give a whole number."
            )
        images = F.avg_pool2d(images, side).repeat_interleave(side, 2).repeat_interleave(side, 3)
    return (images.clamp(0.0, 1.0) * 255).round().to(torch.uint8)


def _blurred(images: Tensor, sigma: float) -> Tensor:
    """Both axes one after the other, the border repeated."""
    reach = min(max(1, round(3 * sigma)), min(images.shape[2:]) - 1)
    where = torch.arange(-reach, reach + 1, device=images.device, dtype=torch.float32)
    weights = torch.exp(-0.5 * (where / sigma) ** 2)
    weights = (weights / weights.sum())[None, None, None]
    channels = images.shape[1]
    for kernel in (weights, weights.transpose(2, 3)):
        rows, columns = (size // 2 for size in kernel.shape[2:])
        padded = F.pad(images, (columns, columns, rows, rows), mode="replicate")
        images = F.conv2d(padded, kernel.expand(channels, 1, *kernel.shape[2:]), groups=channels)
    return images
