"""What a network listens to: low and high spatial frequencies of its images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from hf_smoothing.attacks.ascent import check_positive
from hf_smoothing.attacks.losses import check_answers, check_labels, logits_of_batch
from hf_smoothing.pixels import to_unit_pixels
from hf_smoothing.robustness_transfer.records import bits


def radial_filter(pixels: Tensor, radius: float, keep: Literal["low", "high"]) -> Tensor:
    """Images with only the frequencies up to a radius, or with only those above it and the mean.

    Args:
        pixels: Pixels (batch, channels, height, width), uint8 or float in [0, 1]; floats are taken as float32.
        radius: Radius in cycles per image side (the shorter one).
        keep: The keep, "low" or "high". Before they are clamped, which changes images with much black or white, low
            and high part add up to the image plus its mean.

    Returns:
        Float32, the same shape, clamped to [0, 1].

    Raises:
        ValueError: On a negative radius, pixels outside [0, 1], or something else to keep.

    Source: the radial mask of the discrete Fourier transform in arXiv 2106.10989 (radius 16 at 80 px).
    """
    pixels = to_unit_pixels(pixels, "pixels")
    if keep not in ("low", "high"):
        raise ValueError(f"`keep` must be 'low' or 'high', got {keep!r}.")
    if not radius >= 0.0:
        raise ValueError(f"`radius` must be >= 0 cycles per image, got {radius}.")
    height, width = pixels.shape[2:]
    rows = torch.fft.fftfreq(height, device=pixels.device) * min(height, width)
    columns = torch.fft.fftfreq(width, device=pixels.device) * min(height, width)
    low = rows[:, None] ** 2 + columns[None] ** 2 <= radius**2
    mask = low if keep == "low" else ~low
    mask = mask.clone()
    mask[0, 0] = True  # the mean: without it a high-pass image would be black
    filtered: Tensor = torch.fft.ifft2(torch.fft.fft2(pixels) * mask).real
    return filtered.clamp(0.0, 1.0)


@torch.no_grad()
def frequency_curve(
    classify: Callable[[Tensor], Tensor],
    pixels: Tensor,
    labels: Tensor,
    cutoffs: Sequence[float],
    *,
    batch_size: int = 250,
) -> dict[str, list[dict[str, Any]]]:
    """Accuracy and mean confidence on the low and the high part at each radius.

    Args:
        classify: Pixels -> logits.
        pixels: Pixels (count, channels, height, width), as for `radial_filter`.
        labels: Labels, whole numbers (count,).
        cutoffs: Radii of the masks, cycles per image side.
        batch_size: Number of images per forward pass.

    Returns:
        A dictionary {"low" | "high": for each radius a dict of radius, right (a 0 or 1 per image) and confidence}.

    Raises:
        TypeError, ValueError: As `radial_filter`, on labels that are not one class for each image, or logits that are nan.
    """
    pixels = to_unit_pixels(pixels, "pixels")
    labels, batch_size = check_labels(labels, pixels), check_positive(batch_size, "batch_size")
    found: dict[str, list[dict[str, Any]]] = {}
    parts: tuple[Literal["low", "high"], ...] = ("low", "high")
    for part in parts:
        found[part] = []
        for radius in cutoffs:
            right: list[bool] = []
            confidence = 0.0
            for images, truth in zip(pixels.split(batch_size), labels.split(batch_size), strict=True):
                logits = logits_of_batch(classify, radial_filter(images, radius, part))
                check_answers(logits, truth)
                shares = logits.float().softmax(1)
                right += (shares.argmax(1) == truth.to(shares.device)).tolist()
                confidence += float(shares.amax(1).sum())
            found[part].append({"radius": float(radius), "right": bits(right), "confidence": confidence / len(pixels)})
    return found
