"""`hf-smoothing report --html`: the tables and curves of runs, with what each image got, as one page that needs no other file."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_smoothing.drawing import NoFiguresError, legend_above, new_figure, plain
from hf_smoothing.html_page import document, paragraph, picture, table
from hf_smoothing.records.rows import TOLERANCE
from hf_smoothing.reports.curves import figure_of
from hf_smoothing.reports.images import SORT, PixelsOf, image_table
from hf_smoothing.reports.legends import short_names, styles
from hf_smoothing.reports.measured import Measured, columns
from hf_smoothing.reports.remarks import by_row, limit, norm_of
from hf_smoothing.reports.tables import cells
from hf_smoothing.statistics import exact_text


DRAWS = "draws of an image"
RADII = "certified radius of images that are right"
HASHED = "config"
"""Of a network in a record: its settings, by a short hash."""


def page(
    groups: Sequence[tuple[str, Sequence[Measured], Sequence[str]]],
    pixels_of: PixelsOf | None = None,
) -> str:
    """The page.

    Args:
        groups: For each group of comparable runs: what they have in common, the measured runs, and notes.
        pixels_of: What an image of a run looks like; without it images have their number only.

    Without matplotlib the page has a line in place of each picture.
    """
    parts = ["<h1>Certified accuracy</h1>"]
    for common, measured, notes in groups:
        parts += [
            f"<h2>{html.escape(', '.join(dict.fromkeys(m.name for m in measured)))}</h2>",
            *(paragraph(text) for text in dict.fromkeys(guarantee(m.settings) for m in measured)),
            _accuracies(measured),
            paragraph(f"{common}."),
            *(paragraph(note.removeprefix("- ")) for note in notes),  # of a list in Markdown
            _drawn(_curves, measured),
            _drawn(_histograms, measured),
            *(_settings(m) for m in measured),
            *(image_table(m, pixels_of) for m in measured),
        ]
    return document("Certified accuracy", [*parts, SORT])


def guarantee(settings: dict[str, Any]) -> str:
    """What the certificates of a run say, and of which perturbed images and which runs of the network, in a few sentences."""
    shape = settings.get("resolution")
    at = f" at {' x '.join(map(str, shape))} (channels x height x width)" if shape else ""
    if settings.get("label_aware"):
        return f"These figures measure certified accuracy{at} with the true labels known; they are no certificates."
    norm = norm_of(settings)
    said = f"No change of {norm} length up to an image's radius{at} alters the answer of the "
    if settings.get("deterministic"):
        return f"{said}classifier.{_scope(settings)}"
    alpha = settings.get("alpha")
    wrong = f"; each certificate is wrong with probability at most {alpha}"
    if alpha is None:  # of a published log
        wrong = f", unless its certificate is wrong: how probable that is, is not stated. Radii are {settings.get('rounding', 'as published')}"
    units = ""
    if shape and norm == "l2":
        root = math.ceil(100 * math.sqrt(math.prod(shape))) / 100
        units = f" A radius r is 255 r grey levels, and implies an l-infinity radius of r / {root}."
    return f"{said}smoothed classifier{wrong}.{_scope(settings)}{units}"


def _scope(settings: dict[str, Any]) -> str:
    """To what a run itself says that its certificates are limited; empty where it names no limit."""
    covers_run, threat = settings.get("rule", {}).get("covers_run"), settings.get("threat_model")
    if covers_run is False:
        return " This holds in real arithmetic: the rounding of a float32 run is not covered."
    if covers_run:
        return " This holds for runs of the network in its own dtype, whatever the order of summation."
    return "" if threat is None else f" This holds for {threat}."


def _drawn(draw: Callable[[Sequence[Measured]], str], measured: Sequence[Measured]) -> str:
    """A picture, or why there is none."""
    try:
        return draw(measured)
    except NoFiguresError as error:
        return paragraph(str(error))


def _curves(measured: Sequence[Measured]) -> str:
    return picture(figure_of(measured), "Certified accuracy against the radius, with 95% intervals")


def _accuracies(measured: Sequence[Measured]) -> str:
    head, *rows = cells(measured)
    return table(head, rows)


def _histograms(measured: Sequence[Measured]) -> str:
    """Images by draws, where draws were made, and by radius, where each is as large as the draws allow: not in a run with targets."""
    panels = {DRAWS: _draws, RADII: _radii}
    found = {about: [values(m) for m in measured] for about, values in panels.items()}
    shown = {about: values for about, values in found.items() if any(map(len, values))}
    if not shown:
        return ""
    figure, axes = new_figure(3.2, columns=len(shown))
    looks = styles([(m.name, m.settings.get("sigma")) for m in measured])
    names = short_names([m.name for m in measured])
    for panel, (about, values) in zip(axes[0], shown.items(), strict=True):
        bins = _bins(values, about == DRAWS)
        for m, name, look, numbers in zip(measured, names, looks, values, strict=True):
            line = {"color": look["color"], "linestyle": look["linestyle"], "label": plain(m.label(name))}
            panel.hist(numbers, bins=bins, histtype="step", **line)
        panel.set(xlabel=about, ylabel="images")
        if about == DRAWS:
            _count_on_log_axis(panel, bins)
    legend_above(figure, axes[0, 0], columns=2)
    ends = by_row([[_limit_reached(m)] for m in measured]) if RADII in shown else []
    return picture(figure, f"Number of images by {' and by '.join(shown)}") + "".join(map(paragraph, ends))


def _draws(m: Measured) -> list[float]:
    return [row["draws"] for row in m.run.rows.values() if row.get("draws")]


def _bins(values: Sequence[Sequence[float]], log: bool) -> NDArray[np.float64]:
    """Ends of 20 bins that all runs of a panel share, of equal ratios on a logarithmic axis."""
    every = np.concatenate([np.asarray(numbers, dtype=np.float64) for numbers in values])
    low, high = float(every.min()), float(every.max())
    if log:
        return np.geomspace(low / 1.1, high * 1.1, 21)
    return np.linspace(low, high if high > low else low + 1.0, 21)


def _count_on_log_axis(panel: Any, bins: NDArray[np.float64]) -> None:
    """A logarithmic axis whose ticks are round counts, such as 100, 200, 500, or where the counts are near each other 200, 250, 300."""
    panel.set_xscale("log")
    first, last = math.floor(math.log10(bins[0])), math.ceil(math.log10(bins[-1]))
    ticks = [digit * 10**power for power in range(first, last + 1) for digit in (1, 2, 5)]
    ticks = [tick for tick in ticks if bins[0] <= tick <= bins[-1]]
    if len(ticks) > 6:  # decades alone, where there are many
        ticks = [tick for tick in ticks if f"{tick:g}".startswith("1")]
    if len(ticks) < 3:  # counts within one decade: round steps, as on a linear axis
        ticks = _even_ticks(float(bins[0]), float(bins[-1]))
    panel.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    panel.set_xticks([], minor=True)


def _even_ticks(low: float, high: float) -> list[int]:
    """The multiples in an interval of the largest of 1, 2, 5, 10, 20, ... that has at least three there, or of 1."""
    steps = [digit * 10**power for power in range(math.ceil(math.log10(high)), -1, -1) for digit in (5, 2, 1)]
    found = [[step * k for k in range(math.ceil(low / step), math.floor(high / step) + 1)] for step in steps]
    return next((ticks for ticks in found if len(ticks) >= 3), found[-1])


def _radii(m: Measured) -> list[float]:
    if m.tested.chosen is not None:
        return []
    return [radius for answer, label, radius in zip(*columns(m.run), strict=True) if answer == label and radius > 0.0]


def _limit_reached(m: Measured) -> str:
    """How many images of a histogram of radii stand where their run went no further; empty where none does."""
    count = sum(radius >= m.tested.up_to * (1.0 - TOLERANCE) for radius in _radii(m))
    if not count:
        return ""
    if m.tested.targets is None:
        ends = limit(m.settings)
    else:
        ends = f"draws stopped at {exact_text(m.tested.up_to)}, the last radius of the curve"
    return f"{ends[0].upper()}{ends[1:]}: {count} of these images {'reaches' if count == 1 else 'reach'} it, and might have more."


def _settings(m: Measured) -> str:
    flat = [
        (key, value) for key, value in _flat(_folded(m.settings)) if key.split(".")[0] not in ("informative", "format")
    ]
    title = html.escape(f"Settings: {m.label(m.name)}")
    return f"<details><summary>{title}</summary>{table(['setting', 'value'], flat)}</details>"


def _folded(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with the number of parts that a network is compared by, in place of the parts: a comparison of networks needs them, a reader does not."""
    model = settings.get("model")
    if not isinstance(model, dict):
        return settings
    parts = {
        key: f"{len(_flat(value))} parts, in run.json"
        for key, value in model.items()
        if key == HASHED and isinstance(value, dict)
    }
    return {**settings, "model": {**model, **parts}}


def _flat(settings: dict[str, Any], above: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in settings.items():
        found += _flat(value, f"{above}{key}.") if isinstance(value, dict) else [(f"{above}{key}", value)]
    return found
