"""The pictures of docs/explanation that need no measurement: noise of several strengths, and how a share of votes becomes a radius."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import load_dataset
from scipy.special import ndtr

from hf_smoothing import PixelDataset, drawing
from hf_smoothing.sample import sample_images
from hf_smoothing.statistics import l2_radius, lower_bound


SIGMAS = (0.0, 0.12, 0.25, 0.5, 1.0)
INDEX = 1
"""Of the sample; that of `one_certificate`."""
POINT, TOY_SIGMA = np.array([0.36, 0.5]), 0.13
BORDER = 0.52
"""Of the toy: the network changes its mind at this value of the first pixel."""


def draw(docs: Path) -> None:
    """Both pictures."""
    folder = docs / "figures" / "explanation"
    figure, (panels,) = drawing.new_figure(1.85, columns=len(SIGMAS))
    pixels = PixelDataset(load_dataset(sample_images(), split="test"), 32)[INDEX]["pixel_values"].float() / 255
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    for axes, sigma in zip(panels, SIGMAS, strict=True):
        axes.imshow((pixels + sigma * noise).clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest")
        axes.set_title("the image" if sigma == 0 else f"sigma = {sigma:g}", fontsize=9)
        axes.axis("off")
    drawing.save(figure, folder / "noise_levels.png")
    figure, ((left, right),) = drawing.new_figure(3.4, columns=2, width_ratios=(1, 1.35))
    _toy(left)
    _radii(right)
    drawing.save(figure, folder / "radius.png")


def _toy(axes: Any) -> None:
    """An image of two pixels, its copies, and the border of the classes."""
    copies = POINT + TOY_SIGMA * np.random.default_rng(0).standard_normal((150, 2))
    near = copies[:, 0] < BORDER
    for some, style, name in ((near, 0, "copy: class A"), (~near, 1, "copy: class B")):
        look = drawing.series(style)
        axes.scatter(*copies[some].T, s=9, color=look["color"], marker=look["marker"], alpha=0.55, label=name)
    axes.axvline(BORDER, color="#000000", linewidth=1.2, label="border of the network")
    turn = np.linspace(0, 2 * np.pi, 100)
    certified = float(l2_radius(float(ndtr((BORDER - POINT[0]) / TOY_SIGMA)), TOY_SIGMA))
    ball = POINT[:, None] + certified * np.array([np.cos(turn), np.sin(turn)])
    axes.plot(*ball, color="#000000", linestyle="--", linewidth=1.2, label="certified: class A")
    axes.plot(*POINT, color="#000000", marker="D", markersize=6, linestyle="", label="the image")
    axes.set(xlim=(-0.05, 0.95), ylim=(0, 1), xlabel="first pixel", ylabel="second pixel", aspect="equal")
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, handlelength=1.5)


def _radii(axes: Any) -> None:
    """The radius, in units of sigma, by the share of the votes."""
    shares = np.linspace(0.5, 1.0, 501)
    axes.plot(100 * shares[:-1], l2_radius(shares[:-1], 1.0), label="the true share", **_line(0))
    for number, n in enumerate((100_000, 1_000), start=1):
        votes = np.floor(shares * n).astype(np.int64)
        bounds = np.array([float(lower_bound(int(k), n, 0.001)) for k in votes])
        found = np.where(bounds > 0.5, l2_radius(np.maximum(bounds, 0.5), 1.0), 0.0)
        axes.plot(100 * shares, found, label=f"{n:,} copies, alpha = 0.001", **_line(number))
    axes.set(xlabel="share of the votes for the winner, %", ylabel="certified radius / sigma", xlim=(50, 100.5))
    axes.set_ylim(0, 4)
    axes.legend(fontsize=8, loc="upper left")
    axes.grid(alpha=0.3)


def _line(number: int) -> dict[str, Any]:
    return {key: value for key, value in drawing.series(number).items() if key != "marker"}
