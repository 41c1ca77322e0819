"""The fixed images that a classifier is asked about before a run: the same on every machine and device."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor


FURTHER = 128
"""Number of further images, for classifiers whose answers to the first tell little."""

SOME = 32
"""How many of them are asked about where nothing is recorded."""

_AT_ONCE, _LARGEST = 16, 1 << 24
"""How many of them share a batch at most, and how many numbers they may have together."""
_CELLS = (1, 2, 5, None)
"""Blocks of one value along a side, from one colour for all to one for each pixel."""
_CONTRASTS = (0.05, 0.3, 1.0, 2.0)
"""The largest difference between two pixels; the last reach beyond the image, as noisy copies do."""
GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
"""Its multiples, without their whole parts, are spread evenly however many are taken; no threshold that people write lies on one."""
LEVELS = (0.25, 0.5, 1.0, 2.0)
"""Noise of the noisy images, in [0, 1] pixel units: what papers certify with."""
NOISY = 8 * len(LEVELS)
"""Number of noisy images for classifiers whose answers to the first tell little; others are asked about one image of each level."""


def probe_images(shape: tuple[int, ...]) -> Tensor:
    """A noisy image, three copies of less contrast, a dark and a bright one; the last two reach beyond the image, as noisy copies do."""
    generator = torch.Generator("cpu").manual_seed(0)
    image, dark, bright = torch.rand((3, *shape), generator=generator, dtype=torch.float32, device="cpu")
    return torch.stack(
        [image, *(0.5 + contrast * (image - 0.5) for contrast in (0.875, 0.75, 0.625)), dark - 2, bright + 2]
    )


def further_images(
    shape: tuple[int, ...], stop: int = FURTHER, *, regrouped: bool = False
) -> Iterator[tuple[list[int], Tensor]]:
    """The first of `FURTHER` images in small batches, with their numbers: blocks of noise of several sizes and contrasts, around greys in even steps.

    Args:
        shape: Shape of an image, (channels, height, width).
        stop: How many images.
        regrouped: Give each batch images of one size and nearly one contrast in place of a mixture, so that no image has its companions again.
    """
    batches = math.ceil(stop / max(1, min(_AT_ONCE, _LARGEST // math.prod(shape))))
    size = math.ceil(stop / batches)
    for batch in range(batches):
        numbers = range(batch, stop, batches) if regrouped else range(stop)[batch * size :][:size]
        yield list(numbers), torch.stack([_graded(number, shape) for number in numbers])


def noisy_image(number: int, shape: tuple[int, ...]) -> Tensor:
    """An image under Gaussian noise, not clamped: where noise puts them, most pixels lie outside [0, 1].

    Args:
        number: Number of the image, below `NOISY`; as many in a row as there are `LEVELS` have one each.
        shape: Shape of an image, (channels, height, width).
    """
    generator = torch.Generator("cpu").manual_seed(1 + FURTHER + number)
    noise = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
    return _graded(number, shape) + LEVELS[(number + number // len(LEVELS)) % len(LEVELS)] * noise


def _graded(number: int, shape: tuple[int, ...]) -> Tensor:
    cells, contrast = _CELLS[number % 4], _CONTRASTS[number // 4 % 4]
    sides = shape[1:] if cells is None else tuple(min(cells, side) for side in shape[1:])
    generator = torch.Generator("cpu").manual_seed(1 + number)
    blocks = torch.rand((1, shape[0], *sides), generator=generator, dtype=torch.float32, device="cpu")
    spread = torch.nn.functional.interpolate(blocks, size=shape[1:], mode="nearest")[0]
    return (1 + number) * GOLDEN % 1.0 + contrast * (spread - 0.5)
