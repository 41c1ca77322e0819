"""Draws of grid noise: by the stream, by a slow twin, and on a device that poses as a GPU."""

from __future__ import annotations

from typing import cast

import pytest
import torch

from hf_smoothing.noise import GridStream
from hf_smoothing.noise.grid_law import grid_law, tables


SHAPE = (1, 4, 4)
SIGMAS = [0.01, 0.12, 0.25, 0.5, *(pytest.param(sigma, marks=pytest.mark.slow) for sigma in (1.0, 2.0))]
VERDICT = 1e-4
"""A p-value below this, under a seed fixed beforehand, is a verdict against the sampler."""


def draws(stream: GridStream, image: int, start: int, count: int) -> torch.Tensor:
    out = torch.full((count, *stream.shape), float("nan"))
    stream.draw(out, image, start)
    return out


def twin_draw(stream: GridStream, image: int, draw: int) -> list[float]:
    """The sampler in Python's integers, one number at a time."""
    modulus = 1 << 64
    table, filled, thresholds = tables(stream.sigma)
    values = grid_law(stream.sigma)[0]

    def mixed(counter: int) -> int:
        word = (counter + stream._key[0]) * 0x9E3779B97F4A7C15 % modulus
        word = ((word ^ word >> 30) * 0xBF58476D1CE4E5B9 + stream._key[1]) % modulus
        word = (word ^ word >> 27) * 0x94D049BB133111EB % modulus
        return word ^ word >> 31

    noise, base = [], image << 46 | draw << 27
    for element in range(stream.pixels):
        lane = mixed(base + element // 4) >> 16 * (element % 4) & 0xFFFF
        slot = lane ^ 0x8000  # signed lanes, moved up by 2^15
        if slot < filled:
            noise.append(float(table[slot]))
        else:
            bits = mixed(base + (1 << 26) + element) & ((1 << 62) - 1)
            noise.append(float(values[sum(int(t) <= bits for t in thresholds)]))
    return noise


class PretendGPU(str):
    """Names the CPU to torch, and a GPU to whoever asks for its type: so the CUDA branch can be walked without one."""

    type = "cuda"


def on_pretended_gpu(stream: GridStream) -> GridStream:
    stream.device = cast(torch.device, PretendGPU("cpu"))
    return stream
