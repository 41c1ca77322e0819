"""Certified accuracy at all radii, as curves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hf_smoothing import statistics
from hf_smoothing.reports.legends import short_names, styles
from hf_smoothing.reports.measured import Measured, columns, sigma_text


def plot(measured: Sequence[Measured], path: str | os.PathLike[str], title: str | None = None) -> Path:
    """Certified accuracy curves with 95% confidence bands, as PNG.

    Args:
        measured: The runs.
        path: Path of the file.
        title: Title of the figure.

    Raises:
        ModuleNotFoundError: Without matplotlib, with the cure.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("Curves need matplotlib: pip install 'hf_smoothing[plots]'.") from error
    # Twice the size at which it is read: 850 px across, of which the legend takes a third. Many curves make it taller, not narrower.
    figure = Figure(figsize=(8.5, max(4.0, 1.0 + 0.19 * len(measured))), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    furthest = max(max(columns(m.run)[2]) for m in measured) or 1.0
    grid = np.linspace(0.0, furthest * 1.02, 400)
    names = short_names([m.name for m in measured])
    looks = styles([(m.name, m.settings.get("sigma")) for m in measured])
    for number, (m, name, look) in enumerate(zip(measured, names, looks, strict=True)):
        curve = statistics.certified_accuracy(*columns(m.run), thresholds=grid)
        label = name if m.settings.get("deterministic") else f"{name}, sigma {sigma_text(m.settings)}"
        # Markers of different curves stand at different places, so that none hides another.
        places = (int(40 * number / len(measured)), 40)
        axes.plot(grid, 100 * curve.accuracy, label=label, markevery=places, markersize=5, linewidth=1.3, **look)
        axes.fill_between(
            grid,
            100 * curve.lower,
            100 * curve.upper,
            color=look["color"],
            alpha=0.12 if len(measured) < 6 else 0.05,
            linewidth=0,
        )
    axes.set(
        xlabel=f"{measured[0].settings.get('norm', 'l2')} radius ([0, 1] pixel units)",
        ylabel="certified accuracy (%)",
        xlim=(0, grid[-1]),
        ylim=(0, 100),
    )
    if title:
        axes.set_title(title, fontsize="medium")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, handlelength=3.5, borderaxespad=0.0)
    figure.savefig(path, dpi=200)
    return Path(path)
