"""Certified accuracy against the radius: at the targets of a run, or as a curve where every radius was decided."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_smoothing import statistics
from hf_smoothing.drawing import floor, legend_entries, new_figure, plain, points, save, shifts
from hf_smoothing.reports.legends import short_names, styles
from hf_smoothing.reports.measured import Measured, columns
from hf_smoothing.reports.remarks import norm_of


def plot(measured: Sequence[Measured], path: str | os.PathLike[str], title: str | None = None) -> Path:
    """`figure_of` runs as PNG; arguments and errors as there, and `path`, the file."""
    return save(figure_of(measured, title), path)


def figure_of(measured: Sequence[Measured], title: str | None = None) -> Any:
    """Certified accuracy with 95% confidence intervals over the images.

    A run with targets decided nothing between them or beyond the last: it has a marker with its interval at each. Runs of mode curve or
    fixed, and of interval bounds, have a curve with its band, which ends at the largest radius that the run tested. A dotted line is the floor:
    the share of the most frequent class, in the run with most images.

    Args:
        measured: The runs.
        title: Title of the figure.

    Raises:
        NoFiguresError: Without matplotlib, with the cure.
    """
    # The legend takes a third of the width. Many curves make the figure taller, not narrower.
    figure, panels = new_figure(max(4.0, 1.0 + 0.19 * len(measured)))
    axes = panels[0, 0]
    targets = [m.tested.chosen for m in measured]
    shared = [radius for some in targets for radius in some or ()]
    moved = shifts(sum(some is not None for some in targets), shared)
    beside, reach = iter(moved), max(abs(moved), default=0.0)
    curved = [m for m, some in zip(measured, targets, strict=True) if some is None]
    furthest = max([*shared, *(max(columns(m.run)[2]) for m in curved)], default=0.0) or 1.0
    margin = 0.02 * furthest
    ends = [min(m.tested.up_to, furthest + margin) for m in curved]
    names = short_names([m.name for m in measured])
    looks = styles([(m.name, m.settings.get("sigma")) for m in measured])
    for number, (m, name, look, some) in enumerate(zip(measured, names, looks, targets, strict=True)):
        label = m.label(name)
        if some is None:
            # Markers of different curves stand at different places, so that none hides another.
            places = (int(40 * number / len(measured)), 40)
            grid = np.linspace(0.0, min(m.tested.up_to, furthest + margin), 400)
            _curve(axes, m, grid, label, look, places, faint=len(measured) > 5)
        else:
            at = statistics.certified_accuracy(*columns(m.run), thresholds=some)
            heights = (100 * at.accuracy, 100 * at.lower, 100 * at.upper)
            points(axes, some, *heights, label=label, style=look, shift=next(beside), reach=reach)
    # Of the run with most images; any order would do that does not come from the command line.
    most = min(measured, key=lambda m: (-len(m.run.rows), str(m.run.path)))
    labels = columns(most.run)[1]
    floor(axes, 100 * np.unique(labels, return_counts=True)[1].max() / len(labels))
    kind = f"{norm_of(measured[0].settings)} radius ([0, 1] pixel units)"
    at_targets = (
        "\nmarkers: targets with 95% intervals" + (", side by side" if len(moved) > 1 else "") if shared else ""
    )
    cut = any(end < furthest + margin for end in ends)
    ending = "\na curve ends at the largest radius that was tested" if cut else ""
    axes.set(xlabel=f"{kind}{at_targets}{ending}", ylabel="certified accuracy (%)", ylim=(0, 100))
    right = max([*ends, *([max(shared) + reach + margin] if shared else [])], default=0.0)
    axes.set_xlim(-margin if shared else 0.0, right or 1.0)
    if title:
        axes.set_title(plain(title), fontsize="medium")
    axes.grid(alpha=0.3)
    entries = legend_entries(axes)
    axes.legend(
        *entries, loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, handlelength=3.5, borderaxespad=0.0
    )
    return figure


def _curve(
    axes: Any, m: Measured, grid: Any, label: str, look: dict[str, Any], places: tuple[int, int], *, faint: bool
) -> None:
    """A curve with its band."""
    curve = statistics.certified_accuracy(*columns(m.run), thresholds=grid)
    axes.plot(grid, 100 * curve.accuracy, label=plain(label), markevery=places, markersize=5, linewidth=1.3, **look)
    band = {"color": look["color"], "alpha": 0.05 if faint else 0.12, "linewidth": 0}
    axes.fill_between(grid, 100 * curve.lower, 100 * curve.upper, **band)
