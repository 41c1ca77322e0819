"""The images of a run as a table of the HTML report: what each got, and how it looks."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from hf_smoothing import statistics
from hf_smoothing.html_page import thumbnail
from hf_smoothing.records import Row, Run
from hf_smoothing.reports.measured import Measured
from hf_smoothing.reports.remarks import norm_of
from hf_smoothing.spelling import has_names


PixelsOf = Callable[[Run, int], NDArray[np.uint8]]
"""(run, index) -> the pixels of that image, (channels, height, width)."""

MOST_ROWS = 2_000
"""Images listed for one run; a page of more is slow."""

SORT = """<script>
const rank = text => text === "-" ? 0 : isNaN(text) ? 2 : 1;
const order = (a, b) => rank(a) - rank(b) || (rank(a) === 1 ? a - b : a < b ? -1 : a > b ? 1 : 0);
document.querySelectorAll("table.images").forEach(table => {
  const rows = [...table.tBodies[0].rows];
  table.querySelectorAll("th").forEach((head, column) => {
    head.tabIndex = 0; head.setAttribute("role", "button"); head.title = "Sort";
    const sort = () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const text = row => row.cells[column].textContent.trim();
      rows.sort((a, b) => order(text(a), text(b)) * (down ? -1 : 1));
      table.tBodies[0].append(...rows);
    };
    head.onclick = sort; head.onkeydown = event => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); } };
  });
  table.closest("details").querySelectorAll("input").forEach(box => box.onchange = () =>
    rows.forEach(row => { if (row.dataset.outcome === box.value) row.hidden = !box.checked; }));
});
</script>"""
"""A click on a head sorts by its column, another the other way round; the boxes above choose outcomes.

A dash is below every number, and numbers are below names: cells of one column may be of each kind."""

HEAD = ("image", "label", "answer", "radius", "outcome", "draws")


def image_table(m: Measured, pixels_of: PixelsOf | None = None) -> str:
    """The images of a run, sortable by any column.

    Args:
        m: A measured run.
        pixels_of: What an image looks like.
    """
    rows = [m.run.rows[index] for index in sorted(m.run.rows)][:MOST_ROWS]
    of = len(m.run.rows)
    shown = f"{of} images" if of <= MOST_ROWS else f"the first {MOST_ROWS:,} of {of:,} images"
    title = html.escape(f"Images: {m.label(m.name)}, {shown}")
    outcomes = [outcome(row) for row in rows]
    boxes = "".join(
        f"<label><input type='checkbox' value='{kind}' checked> {kind} ({outcomes.count(kind)})</label> "
        for kind in dict.fromkeys(sorted(outcomes))
    )
    head = "".join(f"<th>{name}</th>" for name in HEAD)
    names = m.run.class_names if has_names(m.run.class_names) else []
    body = "".join(_line(m.run, row, kind, pixels_of, names) for row, kind in zip(rows, outcomes, strict=True))
    table = (
        f"<div class='wide'><table class='images'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
    return f"<details{' open' if pixels_of else ''}><summary>{title}</summary><p>{boxes}</p>{table}</details>"


def outcome(row: Row) -> str:
    """What became of an image: "right", "wrong" or "abstained"."""
    if row["prediction"] == statistics.ABSTAIN:
        return "abstained"
    return "right" if row["prediction"] == row.get("label") else "wrong"


def _line(run: Run, row: Row, kind: str, pixels_of: PixelsOf | None, names: Sequence[str]) -> str:
    picture = ""
    if pixels_of is not None and "image_sha256" in row:  # a published log does not say which image it was
        picture = f"{thumbnail(pixels_of(run, row['index']))} "
    cells = [
        _called(row.get("label"), names),
        "-" if kind == "abstained" else _called(row["prediction"], names),
        statistics.radius_text(row["radius"], norm_of(run.settings)) if _bounded(run, kind) else "-",
        kind,
        row.get("draws", "-"),
    ]
    rest = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells)
    return f"<tr data-outcome='{kind}'><td>{picture}{row['index']}</td>{rest}</tr>"


def _bounded(run: Run, kind: str) -> bool:
    """Whether a radius was looked for: not where a run of interval bounds left out what is answered wrong."""
    return not (kind == "wrong" and run.settings.get("rule", {}).get("only_right"))


def _called(number: int | None, names: Sequence[str]) -> str | int:
    """A class by its name, with its number behind it: two classes may have one name."""
    if number is None:
        return "-"
    return f"{names[number]} ({number})" if 0 <= number < len(names) else number
