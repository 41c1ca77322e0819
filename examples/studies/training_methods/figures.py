"""The picture of the study: certified accuracy at the targets, each method beside the baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.studies.figures import mean_interval
from examples.studies.training_methods.plan import targets
from hf_smoothing.drawing import floor, legend_above, new_figure, plain, points, save, series, shifts


COLUMNS = 2


def curves(
    config: dict[str, Any],
    found: dict[str, dict[int, NDArray[np.float64]]],
    sigma: float,
    floor_percent: float | None,
    file: Path,
) -> None:
    """A panel per method, with the baseline in each; mean over the seeds that are done.

    Args:
        config: Of the study.
        found: Radii of the images by method and seed, the baseline among them or not.
        sigma: Noise level.
        floor_percent: What one class for all images reaches, if it is known.
        file: File to write.
    """
    baseline, radii = config["baseline"], targets(config, sigma)
    methods = [name for name in found if name != baseline] or list(found)
    shown = {name: mean_interval(_right(seeds, radii)) for name, seeds in found.items()}
    rows = -(-len(methods) // COLUMNS)
    figure, grid = new_figure(0.9 + 2.3 * rows, rows, COLUMNS, sharex=True, sharey=True)
    panels = grid.flatten()
    for panel in panels[len(methods) :]:
        panel.set_axis_off()
    for panel, method in zip(panels, methods, strict=False):
        pair = [name for name in (baseline, method) if name in shown]
        for number, (name, shift) in enumerate(zip(pair, shifts(len(pair), radii), strict=True)):
            label = _named(name, found[name]) if name == baseline else "the method"
            points(panel, radii, *shown[name], label=label, style=series(number), shift=shift)
        if floor_percent is not None:
            floor(panel, floor_percent)
        panel.set_title(plain(_named(method, found[method])), fontsize=10)
        panel.set(ylim=(0, None))
        panel.grid(alpha=0.3)
        panel.tick_params(labelbottom=True)
    figure.supxlabel("l2 radius, [0, 1] pixel units; markers at the targets, side by side", fontsize=10)
    figure.supylabel("certified accuracy, %, with 95% intervals over the images", fontsize=10)
    legend_above(figure, panels[0], 3)
    save(figure, file)


def _named(name: str, seeds: dict[int, NDArray[np.float64]]) -> str:
    return f"{name}, {'one seed' if len(seeds) == 1 else f'mean of {len(seeds)} seeds'}"


def _right(seeds: dict[int, NDArray[np.float64]], radii: list[float]) -> NDArray[np.bool_]:
    """Whether each image is certified at each radius, (seeds, images, radii)."""
    return np.array([one[:, None] >= np.array(radii) for one in seeds.values()])
