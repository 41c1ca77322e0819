"""The pictures of the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from examples.studies.smoothing_transfer.cells import Records
from examples.studies.smoothing_transfer.plan import rule


matplotlib.use("Agg")
from matplotlib import pyplot as plt


CURVES = {
    "mixture → mixture": ("mixture", "mixture", "tab:blue", "-"),
    "mixture → clean": ("mixture", "clean", "tab:blue", "--"),
    "matched single sigma": (None, None, "tab:orange", "-"),
    "clean → mixture": ("clean", "mixture", "tab:green", "-"),
    "clean → clean": ("clean", "clean", "tab:green", "--"),
}
"""Pretraining → finetuning, colour, line; None stands for the current sigma."""


def curves(config: dict[str, Any], records: Records, architecture: str, file: Path) -> bool:
    """Certified accuracy at the target radii, a panel per sigma, mean over the seeds that are done."""
    figure, panels = _panels(config, 4.2, 3.6)
    drawn = False
    for panel, sigma in zip(panels, config["sigmas"], strict=True):
        radii = rule(config["certification"] | {"sigma": sigma})["targets"]
        for label, (pretraining, finetuning, colour, line) in CURVES.items():
            cell = pretraining or str(sigma), finetuning or str(sigma)
            cells = records.seeds(architecture, cell, sigma, config["seeds"]).values()
            if cells:
                drawn = True
                share = np.mean([[(cell.radii >= r).mean() for r in radii] for cell in cells], axis=0)
                panel.plot(radii, 100 * share, color=colour, linestyle=line, marker=".", label=label)
        panel.set(title=f"sigma {sigma}", xlabel="l2 radius, [0, 1] pixels", ylim=(0, None))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("certified accuracy, %")
    if drawn:
        panels[-1].legend(fontsize=8)
    _save(figure, file, drawn)
    return drawn


def heat_map(config: dict[str, Any], records: Records, architecture: str, file: Path) -> bool:
    """Certified accuracy at radius sigma / 2, pretraining x finetuning, a panel per sigma; each panel has its own colours."""
    noises = list(config["noises"])
    rows = ["none", *noises]
    figure, panels = _panels(config, 4.4, 4.2)
    drawn = False
    for panel, sigma in zip(panels, config["sigmas"], strict=True):
        values = np.full((len(rows), len(noises)), np.nan)
        for i, pretraining in enumerate(rows):
            for j, finetuning in enumerate(noises):
                cell = records.cell(architecture, pretraining, finetuning, sigma)
                values[i, j] = np.nan if cell is None else cell.accuracy(sigma / 2)[0]
        drawn = drawn or bool(np.isfinite(values).any())
        image = panel.imshow(values, cmap="viridis", vmin=0)
        for i, j in np.ndindex(values.shape):
            if np.isfinite(values[i, j]):
                dark = values[i, j] < 0.6 * np.nanmax(values)
                panel.text(
                    j,
                    i,
                    f"{values[i, j]:.1f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if dark else "black",
                )
        panel.set(
            title=f"% certified at r = {sigma / 2:g}, sigma {sigma}",
            xlabel="finetuned on",
            xticks=range(len(noises)),
            yticks=range(len(rows)),
        )
        panel.set_xticklabels(noises, rotation=30)
        panel.set_yticklabels(rows)
        figure.colorbar(image, ax=panel, shrink=0.75)
    panels[0].set_ylabel("pretrained on")
    _save(figure, file, drawn)
    return drawn


def gallery(
    images: np.ndarray, names: list[str], predictions: dict[str, list[list[str]]], sigmas: list[float], file: Path
) -> None:
    """Noisy images with what each model sees in them.

    Args:
        images: Images (sigmas, images, height, width, 3) in [0, 1].
        names: True classes.
        predictions: Classes by model, one for each sigma and image.
        sigmas: Noise levels of the rows.
        file: File to write.
    """
    rows, columns = images.shape[:2]
    figure, panels = plt.subplots(rows, columns, figsize=(1.75 * columns, 2.35 * rows), layout="constrained")
    for i, j in np.ndindex(rows, columns):
        panel = panels[i, j]
        panel.imshow(images[i, j], interpolation="nearest")
        panel.set(xticks=[], yticks=[])
        if i == 0:
            panel.set_title(names[j], fontsize=9, fontweight="bold")
        lines = [(model, seen[i][j]) for model, seen in predictions.items()]
        for k, (model, seen) in enumerate(lines):
            right = seen == names[j]
            panel.text(
                0.5,
                -0.05 - 0.14 * k,
                f"{model}: {seen}",
                transform=panel.transAxes,
                ha="center",
                va="top",
                fontsize=7,
                color="tab:green" if right else "tab:red",
            )
        if j == 0:
            panel.set_ylabel(f"sigma {sigmas[i]}", fontsize=9)
    _save(figure, file, True)


def _panels(config: dict[str, Any], width: float, height: float) -> tuple[Any, Any]:
    """A figure with a panel per sigma."""
    count = len(config["sigmas"])
    figure, panels = plt.subplots(
        1, count, figsize=(width * count, height), sharey=True, squeeze=False, layout="constrained"
    )
    return figure, panels[0]


def _save(figure: Any, file: Path, drawn: bool) -> None:
    if drawn:
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=110)
    plt.close(figure)
