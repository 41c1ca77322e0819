"""Certificates without their times, and noisy copies drawn one at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor

from hf_smoothing.certification import Certificate
from hf_smoothing.noise import GaussianStream, GridStream


def timeless(certificates: Iterable[Certificate]) -> list[Certificate]:
    """The same, without the one thing that may differ between two calls."""
    return [dataclasses.replace(certificate, seconds=0.0) for certificate in certificates]


def noisy_copy(x: Tensor, sigma: float, noise: str, seed: int, image: int, j: int) -> Tensor:
    """Draw `j` of an image, (channels, height, width), under a seed, as a batch of one."""
    drawn = torch.empty(1, *x.shape)
    if noise == "gaussian":
        GaussianStream(seed, tuple(x.shape), sigma=sigma).draw(drawn, image, j)
        return x[None] + sigma * drawn
    GridStream(seed, tuple(x.shape), sigma=sigma).draw(drawn, image, j)
    return ((255 * x[None]).round() + drawn) / 255
