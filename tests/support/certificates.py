"""Certificates without their times, and noisy copies drawn one at a time."""

from __future__ import annotations

import dataclasses

import torch

from hf_smoothing.noise import GaussianStream, GridStream


def timeless(certificates):
    return [dataclasses.replace(certificate, seconds=0.0) for certificate in certificates]


def noisy_copy(x, sigma, noise, seed, image, j):
    drawn = torch.empty(1, *x.shape)
    if noise == "gaussian":
        GaussianStream(seed, tuple(x.shape), sigma=sigma).draw(drawn, image, j)
        return x[None] + sigma * drawn
    GridStream(seed, tuple(x.shape), sigma=sigma).draw(drawn, image, j)
    return ((255 * x[None]).round() + drawn) / 255
