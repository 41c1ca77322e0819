"""`hf-smoothing report --html`: the tables and curves of runs, with what each image got, as one page that needs no other file."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_smoothing import statistics
from hf_smoothing.drawing import legend_above, new_figure
from hf_smoothing.html_page import document, paragraph, picture, table
from hf_smoothing.records import Row
from hf_smoothing.reports.curves import figure_of
from hf_smoothing.reports.grouping import chosen_targets
from hf_smoothing.reports.legends import short_names, styles
from hf_smoothing.reports.measured import Measured, columns, sigma_text
from hf_smoothing.reports.tables import cells


MOST_ROWS = 2_000
"""Images listed for one run; a page of more is slow."""

_SORT = """<script>
document.querySelectorAll("table.images").forEach(table => table.querySelectorAll("th").forEach((head, column) => {
  head.tabIndex = 0; head.setAttribute("role", "button"); head.title = "Sort";
  const sort = () => {
    const down = head.getAttribute("aria-sort") !== "descending";
    table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = row => { const text = row.cells[column].textContent; return isNaN(text) ? text : Number(text); };
    [...table.tBodies[0].rows].sort((a, b) => (value(a) < value(b) ? 1 : value(a) > value(b) ? -1 : 0) * (down ? 1 : -1))
      .forEach(row => table.tBodies[0].append(row));
  };
  head.onclick = sort; head.onkeydown = event => { if (event.key === "Enter") sort(); };
}));
</script>"""


def page(groups: Sequence[tuple[str, Sequence[Measured], Sequence[str]]]) -> str:
    """The page.

    Args:
        groups: For each group of comparable runs: what they have in common, the measured runs, and notes.

    Raises:
        ModuleNotFoundError: Without matplotlib, with the cure.
    """
    parts = ["<h1>Certified accuracy</h1>"]
    for common, measured, notes in groups:
        parts += [
            f"<h2>{html.escape(', '.join(dict.fromkeys(m.name for m in measured)))}</h2>",
            *(paragraph(text) for text in dict.fromkeys(guarantee(m.settings) for m in measured)),
            _accuracies(measured),
            paragraph(f"{common}."),
            *(paragraph(note) for note in notes),
            picture(figure_of(measured), "Certified accuracy against the radius, with 95% intervals"),
            _histograms(measured),
            *(_settings(m) for m in measured),
            *(_images(m) for m in measured),
        ]
    return document("Certified accuracy", [*parts, _SORT])


def guarantee(settings: dict[str, Any]) -> str:
    """What the certificates of a run say, in one sentence or two."""
    shape = settings.get("resolution")
    at = f" at {' x '.join(map(str, shape))} (channels x height x width)" if shape else ""
    if settings.get("label_aware"):
        return f"These figures measure certified accuracy{at} with the true labels known; they are no certificates."
    norm = settings.get("norm", "l2")
    said = f"No change of {norm} length up to an image's radius{at} alters the answer of the "
    if settings.get("deterministic"):
        return f"{said}classifier."
    alpha = settings.get("alpha")
    chance = f" with probability at most {alpha}" if isinstance(alpha, float) else ""
    units = ""
    if shape and norm == "l2":
        units = f" A radius r is 255 r grey levels, and implies an l-infinity radius of r / {math.ceil(100 * math.sqrt(math.prod(shape))) / 100}."
    return (
        f"{said}smoothed classifier; each certificate is wrong{chance}.{units}"
        if chance
        else f"{said}smoothed classifier.{units}"
    )


def _accuracies(measured: Sequence[Measured]) -> str:
    head, *rows = cells(measured)
    return table(head, rows)


def _histograms(measured: Sequence[Measured]) -> str:
    """Draws of all images; radii too where each is as large as the draws allow, which those of a run with targets are not."""
    whole = [m for m in measured if chosen_targets(m.settings) is None]
    figure, panels = new_figure(3.2, columns=2 if whole else 1)
    looks = styles([(m.name, m.settings.get("sigma")) for m in measured])
    names = short_names([m.name for m in measured])
    for m, name, look in zip(measured, names, looks, strict=True):
        label = f"{name}, sigma {sigma_text(m.settings)}"
        line = {"histtype": "step", "color": look["color"], "linestyle": look["linestyle"], "label": label}
        if draws := [row["draws"] for row in m.run.rows.values() if row.get("draws")]:
            panels[0, 0].hist(np.log10(draws), bins=20, **line)
        if m in whole:
            predictions, labels, radii = (np.asarray(column) for column in columns(m.run))
            panels[0, 1].hist(radii[(predictions == labels) & (radii > 0.0)], bins=20, **line)
    panels[0, 0].set(xlabel="draws of an image, log10", ylabel="images")
    if whole:
        panels[0, 1].set(xlabel="certified radius of images that are right", ylabel="images")
    legend_above(figure, panels[0, 0], columns=2)
    return picture(figure, f"Number of images by draws{' and by radius' if whole else ''}")


def _settings(m: Measured) -> str:
    flat = [(key, value) for key, value in _flat(m.settings) if key.split(".")[0] not in ("informative", "format")]
    title = html.escape(f"Settings: {m.name}, sigma {sigma_text(m.settings)}")
    return f"<details><summary>{title}</summary>{table(['setting', 'value'], flat)}</details>"


def _flat(settings: dict[str, Any], above: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in settings.items():
        found += _flat(value, f"{above}{key}.") if isinstance(value, dict) else [(f"{above}{key}", value)]
    return found


def _images(m: Measured) -> str:
    """A table of the images that sorts by any column."""
    rows = [m.run.rows[index] for index in sorted(m.run.rows)][:MOST_ROWS]
    of = len(m.run.rows)
    shown = f"{of} images" if of <= MOST_ROWS else f"the first {MOST_ROWS:,} of {of:,} images"
    title = html.escape(f"Images: {m.name}, sigma {sigma_text(m.settings)}, {shown}")
    body = table(["image", "label", "answer", "radius", "outcome", "draws"], [_image(row) for row in rows])
    sortable = body.replace("<table><tr>", "<table class='images'><thead><tr>").replace(
        "</th></tr>", "</th></tr></thead><tbody>"
    )
    return f"<details><summary>{title}</summary>{sortable.replace('</table>', '</tbody></table>')}</details>"


def _image(row: Row) -> list[Any]:
    abstained = row["prediction"] == statistics.ABSTAIN
    outcome = "abstained" if abstained else "right" if row["prediction"] == row.get("label") else "wrong"
    answer = "-" if abstained else row["prediction"]
    return [
        row["index"],
        row.get("label", "-"),
        answer,
        statistics.round_down(row["radius"]),
        outcome,
        row.get("draws", "-"),
    ]
