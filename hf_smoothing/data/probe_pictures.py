"""Images that tell two ways from an image to pixels apart: noise over a slope, in several proportions and sizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image


def probe_pictures(size: tuple[int, int], channels: int = 3) -> list[Image.Image]:
    """Two 8-bit images of noise over a slope, the same ones every time: wide and larger than `size` (height, width); tall and smaller."""
    shapes = ((1.21, 1.83), (0.87, 0.53))
    return _noisy_slopes(
        [(max(int(size[0] * high) + 1, 9), max(int(size[1] * wide) + 2, 7)) for high, wide in shapes], channels
    )


def more_probe_pictures(size: tuple[int, int], channels: int = 3) -> list[Image.Image]:
    """Of other proportions and sizes: of `size` itself, a strip, a panorama, a square, and one as large as a photograph."""
    (height, width), edge = size, max(size)
    strip, panorama = (2 * height + 5, width // 4 + 3), (height // 4 + 3, 2 * width + 5)
    return _noisy_slopes([size, strip, panorama, (edge + 9, edge + 9), (683, 1024)], channels)


def _noisy_slopes(shapes: Sequence[tuple[int, int]], channels: int) -> list[Image.Image]:
    draw = np.random.default_rng(0)
    images = []
    for height, width in shapes:
        # Far enough from 0 and 255 that no filter overshoots them, where the backends cut off at different times.
        slope = np.linspace(40, 140, width)[None, :, None] * np.linspace(0.8, 1.0, height)[:, None, None]
        values = (slope + draw.integers(0, 90, (height, width, channels), dtype=np.uint8)).astype(np.uint8)
        images.append(Image.fromarray(values[..., 0] if channels == 1 else values))
    return images
