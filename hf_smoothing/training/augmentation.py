"""Random crop and flip of whole batches on the device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def random_crop(pixels: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Pad each image with zeros on all sides and cut its old size out at a random place.

    Args:
        pixels: Pixels (batch, channels, height, width).
        padding: Number of pixels per side; 0 changes nothing.
        generator: Generator on the device of `pixels`.
    """
    if padding == 0:
        return pixels
    batch, _, height, width = pixels.shape
    padded = F.pad(pixels, (padding,) * 4)
    top, left = torch.randint(0, 2 * padding + 1, (2, batch), generator=generator, device=pixels.device)
    rows = top[:, None] + torch.arange(height, device=pixels.device)
    columns = left[:, None] + torch.arange(width, device=pixels.device)
    images = torch.arange(batch, device=pixels.device)[:, None, None]
    # Advanced indices around the channel slice put it last: move it back.
    return padded[images, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def random_flip(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability 1/2.

    Args: as in `random_crop`.
    """
    flip = torch.rand(len(pixels), generator=generator, device=pixels.device) < 0.5
    return torch.where(flip[:, None, None, None], pixels.flip(-1), pixels)
