"""Draws of grid noise, on the CPU and on a device that poses as a GPU."""

from __future__ import annotations

from typing import cast

import pytest
import torch

from hf_smoothing.noise import GridStream


SHAPE = (1, 4, 4)
SIGMAS = [0.01, 0.12, 0.25, 0.5, *(pytest.param(sigma, marks=pytest.mark.slow) for sigma in (1.0, 2.0))]
VERDICT = 1e-4
"""A p-value below this, under a seed fixed beforehand, is a verdict against the sampler."""


def draws(stream: GridStream, image: int, start: int, count: int) -> torch.Tensor:
    out = torch.full((count, *stream.shape), float("nan"))
    stream.draw(out, image, start)
    return out


class PretendGPU(str):
    """Names the CPU to torch, and a GPU to whoever asks for its type: so the CUDA branch can be walked without one."""

    type = "cuda"


def on_pretended_gpu(stream: GridStream) -> GridStream:
    stream.device = cast(torch.device, PretendGPU("cpu"))
    return stream
