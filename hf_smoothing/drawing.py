"""What all figures share: their size, how their series differ, and how values with intervals are drawn.

Series differ in marker and line, not in colour alone; values carry their intervals; legends stand beside the data, not on it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


WIDTH = 8.5
"""Inches. A page shows a figure 850 px wide, 100 px an inch, so that text of 8 points is 11 px high; it is saved with twice as many."""

COLOURS = ("#0072B2", "#D55E00", "#56B4E9", "#000000", "#E69F00", "#009E73", "#CC79A7", "#8C6D31")
"""Okabe and Ito (2008), distinguishable for most colour-blind people; the first five also from each other for those who do not see green. Their
yellow, too pale on white, is brown here."""

LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (7, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "p")
"""As many lines as markers would repeat together; 7 and 11 give 77 pairs."""

FILLS = ("full", "none", "left", "bottom", "right", "top")
"""Of markers with the same shape."""

FLOOR = "one class for all"


class NoFiguresError(ModuleNotFoundError):
    """There is no matplotlib to draw with; tables need none."""


def new_figure(height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Any, NDArray[Any]]:
    """A figure 850 px wide, and its panels (rows, columns).

    Args:
        height: Inches; 100 px each where a page shows it.
        rows, columns: Number of panels.
        options: More arguments of matplotlib's `Figure.subplots`.

    Raises:
        NoFiguresError: Without matplotlib, with the cure.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise NoFiguresError("Figures need matplotlib: pip install 'hf_smoothing[plots]'.") from error
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def save(figure: Any, path: str | os.PathLike[str]) -> Path:
    """Write a figure as PNG, in a folder that is made where it is missing."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=200)
    return path


def plain(name: str) -> str:
    """A name as every figure must pass it to matplotlib to be shown as it is: "$" sets formulas there, and "_" at the start hides an entry of a legend.

    >>> plain("a$b$"), plain("_new").endswith("_new"), plain("resnet")
    ('a\\\\$b\\\\$', True, 'resnet')
    """
    shown = name.encode("utf-8", "replace").decode("utf-8").replace("$", r"\$")
    return f"\u200b{shown}" if shown.startswith("_") else shown  # a space without width


def series(number: int) -> dict[str, Any]:
    """Colour, line and marker of the k-th series, as keywords of matplotlib.

    >>> series(1)
    {'color': '#D55E00', 'linestyle': '--', 'marker': 's'}
    """
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": LINES[number % len(LINES)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def points(
    axes: Any,
    x: ArrayLike,
    values: ArrayLike,
    lower: ArrayLike,
    upper: ArrayLike,
    *,
    label: str,
    style: dict[str, Any],
    shift: float = 0.0,
    reach: float = 0.0,
) -> None:
    """Values that were measured at some places only: a marker with its interval at each, joined by a thin line.

    Args:
        axes: Panel to draw on.
        x: Places (N,).
        values, lower, upper: Values and limits of their intervals, (N,) each.
        label: Name in the legend.
        style: Colour, line and marker, of `series`.
        shift: How far the markers stand beside their places, so that those of another series do not cover them.
        reach: How far those of any series stand beside theirs. Where a place is nearer to 0 all are moved so that none is below it, where no radius is.
    """
    middle = np.asarray(values, dtype=np.float64)
    bars = np.maximum(0.0, [middle - np.asarray(lower), np.asarray(upper) - middle])
    axes.errorbar(
        np.maximum(np.asarray(x, dtype=np.float64), reach) + shift, middle, bars,
        label=plain(label), linewidth=0.8, elinewidth=1.2, capsize=2.0, markersize=5, **style,
    )  # fmt: skip


def shifts(count: int, places: ArrayLike) -> NDArray[np.float64]:
    """How far each of several series stands beside places that they share: side by side, and within half of the smallest gap.

    >>> shifts(3, [0.0, 0.05, 1.0]).round(4).tolist()
    [-0.0125, 0.0, 0.0125]
    """
    found = np.unique(np.asarray(places, dtype=np.float64))
    gap = float(np.diff(found).min()) if found.size > 1 else 1.0
    reach = float(found[-1] - found[0]) if found.size > 1 else 1.0
    step = min(0.5 * gap / max(count - 1, 1), 0.018 * reach)  # a marker is that wide
    return np.asarray((np.arange(count) - (count - 1) / 2) * step, dtype=np.float64)


def floor(axes: Any, percent: float) -> None:
    """The accuracy of a classifier that gives all images the class that is most frequent among them, which no perturbation changes.

    Args:
        axes: Panel to draw on.
        percent: Share of that class, %.
    """
    axes.axhline(percent, color="#555555", linewidth=1.1, linestyle=(0, (1, 2)), label=f"_{FLOOR}", zorder=1)


def legend_entries(axes: Any) -> tuple[list[Any], list[str]]:
    """(handles, names) of the series of a panel, and of its floor if it has one: what its legend shows."""
    handles, names = axes.get_legend_handles_labels()
    floors = [line for line in axes.get_lines() if line.get_label() == f"_{FLOOR}"][:1]
    return [*handles, *floors], [*names, *[FLOOR] * len(floors)]


def legend_above(figure: Any, axes: Any, columns: int, title: str | None = None) -> None:
    """One legend for all panels, above them, of what one of them shows.

    Args:
        figure, axes: Figure, and the panel.
        columns: Entries per line.
        title: What the entries are.
    """
    look = {"ncols": columns, "fontsize": 9, "title_fontsize": 9, "handlelength": 3.5}
    figure.legend(*legend_entries(axes), loc="outside upper center", title=title, **look)
