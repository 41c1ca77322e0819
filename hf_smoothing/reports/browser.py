"""`hf-smoothing report --html`: the tables and curves of runs, with what each image got, as one page that needs no other file."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

from hf_smoothing import statistics
from hf_smoothing.drawing import legend_above, new_figure
from hf_smoothing.html_page import document, paragraph, picture, table
from hf_smoothing.records import Row
from hf_smoothing.reports.curves import figure_of
from hf_smoothing.reports.grouping import chosen_targets
from hf_smoothing.reports.legends import short_names, styles
from hf_smoothing.reports.measured import Measured, columns
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
    wrong = f"; each certificate is wrong with probability at most {alpha}" if isinstance(alpha, float) else ""
    units = ""
    if shape and norm == "l2":
        root = math.ceil(100 * math.sqrt(math.prod(shape))) / 100
        units = f" A radius r is 255 r grey levels, and implies an l-infinity radius of r / {root}."
    return f"{said}smoothed classifier{wrong}.{units}"


def _accuracies(measured: Sequence[Measured]) -> str:
    head, *rows = cells(measured)
    return table(head, rows)


def _histograms(measured: Sequence[Measured]) -> str:
    """Images by draws, where draws were made, and by radius, where each is as large as the draws allow: not in a run with targets."""
    panels = {"draws of an image, log10": _draws, "certified radius of images that are right": _radii}
    found = {about: [values(m) for m in measured] for about, values in panels.items()}
    shown = {about: values for about, values in found.items() if any(map(len, values))}
    if not shown:
        return ""
    figure, axes = new_figure(3.2, columns=len(shown))
    looks = styles([(m.name, m.settings.get("sigma")) for m in measured])
    names = short_names([m.name for m in measured])
    for panel, (about, values) in zip(axes[0], shown.items(), strict=True):
        for m, name, look, numbers in zip(measured, names, looks, values, strict=True):
            line = {"color": look["color"], "linestyle": look["linestyle"], "label": m.label(name)}
            panel.hist(numbers, bins=20, histtype="step", **line)
        panel.set(xlabel=about, ylabel="images")
    legend_above(figure, axes[0, 0], columns=2)
    return picture(figure, f"Number of images by {' and by '.join(shown)}")


def _draws(m: Measured) -> list[float]:
    return [math.log10(row["draws"]) for row in m.run.rows.values() if row.get("draws")]


def _radii(m: Measured) -> list[float]:
    if chosen_targets(m.settings) is not None:
        return []
    return [radius for answer, label, radius in zip(*columns(m.run), strict=True) if answer == label and radius > 0.0]


def _settings(m: Measured) -> str:
    flat = [(key, value) for key, value in _flat(m.settings) if key.split(".")[0] not in ("informative", "format")]
    title = html.escape(f"Settings: {m.label(m.name)}")
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
    title = html.escape(f"Images: {m.label(m.name)}, {shown}")
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
