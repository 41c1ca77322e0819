"""Certified accuracy as pictures: against the radius, and over the grid of pretraining and finetuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from examples.studies.figures import mean_interval
from examples.studies.smoothing_transfer.cells import Records
from examples.studies.smoothing_transfer.plan import rule
from hf_smoothing.drawing import FLOOR, floor, legend_above, new_figure, points, save, series, shifts


CURVES = {
    "mixture → mixture": ("mixture", "mixture"),
    "mixture → clean": ("mixture", "clean"),
    "matched single sigma": (None, None),
    "clean → mixture": ("clean", "mixture"),
    "clean → clean": ("clean", "clean"),
}
"""Pretraining → finetuning; None stands for the current sigma."""


def curves(config: dict[str, Any], records: Records, architecture: str, floor_percent: float, file: Path) -> bool:
    """Certified accuracy at the targets, a panel per sigma, mean over the seeds that are done; whether there was any.

    Args:
        config, records: Of the study.
        architecture: Name of the architecture.
        floor_percent: What one class for all images reaches.
        file: File to write.
    """
    sigmas = config["sigmas"]
    figure, grid = new_figure(0.9 + 2.5 * len(sigmas), len(sigmas), sharey=True)
    drawn = False
    for panel, sigma in zip(grid[:, 0], sigmas, strict=True):
        radii = rule(config["certification"] | {"sigma": sigma})["targets"]
        for number, (label, (pretraining, finetuning)) in enumerate(CURVES.items()):
            cell = pretraining or str(sigma), finetuning or str(sigma)
            cells = records.seeds(architecture, cell, sigma, config["seeds"]).values()
            if cells:
                drawn = True
                right = np.array([one.radii[:, None] >= np.array(radii) for one in cells])
                shift = shifts(len(CURVES), radii)[number]
                points(panel, radii, *mean_interval(right), label=label, style=series(number), shift=shift)
        floor(panel, floor_percent)
        panel.set_title(f"sigma {sigma}", fontsize=10)
        panel.set(ylim=(0, None))
        panel.grid(alpha=0.3)
    figure.supxlabel("l2 radius, [0, 1] pixel units; markers at the targets, side by side", fontsize=10)
    figure.supylabel("certified accuracy, %, with 95% intervals over the images", fontsize=10)
    if drawn:
        legend_above(figure, grid[0, 0], 3, "pretraining → finetuning")
        save(figure, file)
    return drawn


def heat_map(config: dict[str, Any], records: Records, architecture: str, floor_percent: float, file: Path) -> bool:
    """Certified accuracy at radius sigma / 2 with its interval, pretraining x finetuning, a panel per sigma in the same colours; whether there was any.

    Arguments as `curves`.
    """
    noises, sigmas = list(config["noises"]), config["sigmas"]
    rows = ["none", *noises]
    cells = {
        (sigma, i, j): cell.accuracy(sigma / 2)
        for sigma in sigmas
        for i, pretraining in enumerate(rows)
        for j, finetuning in enumerate(noises)
        if (cell := records.cell(architecture, pretraining, finetuning, sigma)) is not None
    }
    if not cells:
        return False
    top = max(value for value, _, _ in cells.values())
    figure, grid = new_figure(0.7 + (0.6 + 0.27 * len(rows)) * len(sigmas), len(sigmas))
    for panel, sigma in zip(grid[:, 0], sigmas, strict=True):
        values = np.full((len(rows), len(noises)), np.nan)
        for (at, i, j), (value, low, high) in cells.items():
            if at == sigma:
                values[i, j] = value
                text = f"{value:.1f} ({low:.0f}-{high:.0f})"
                colour = "white" if value < 0.6 * top else "black"
                panel.text(j, i, text, ha="center", va="center", fontsize=9, color=colour)
        image = panel.imshow(values, cmap="viridis", vmin=0, vmax=top, aspect="auto")
        panel.set_title(f"sigma {sigma}, r = {sigma / 2:g}", fontsize=10)
        panel.set(xticks=range(len(noises)), yticks=range(len(rows)))
        panel.set_xticklabels(noises)
        panel.set_yticklabels(rows)
    bar = figure.colorbar(image, ax=list(grid[:, 0]), label="certified at radius r, % (95% interval)", pad=0.01)
    bar.ax.axhline(floor_percent, color="white", linewidth=2)
    bar.ax.set_title(f"line: {FLOOR}", fontsize=8)
    figure.supxlabel("finetuned on", fontsize=10)
    figure.supylabel("pretrained on", fontsize=10)
    save(figure, file)
    return True
