"""Certified accuracy at a few radii, as a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hf_smoothing import statistics
from hf_smoothing.reports.measured import Measured, sigma_text
from hf_smoothing.reports.remarks import norm_of
from hf_smoothing.statistics import exact_text


def table(measured: Sequence[Measured]) -> str:
    """A Markdown table: certified accuracy x radius, a row per run, with 95% intervals; "-" beyond what a run tested.

    Raises:
        ValueError: If the runs were measured at different radii.
    """
    # A name from a record is one cell, whatever it holds.
    rows = [[" ".join(cell.replace("|", "\\|").split()) for cell in row] for row in cells(measured)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def cells(measured: Sequence[Measured]) -> list[list[str]]:
    """The rows of `table`, the head first; arguments and errors as there."""
    radii = measured[0].curve.thresholds
    if any(not np.array_equal(m.curve.thresholds, radii) for m in measured):
        raise ValueError("Runs of one table must be measured at the same radii.")
    header = ["model", "sigma", *(f"r = {exact_text(r)}" for r in radii), "ACR", "abstained", "images"]
    rows = [header]
    for m in measured:
        at_radii = [
            "-"
            if r > m.tested.up_to
            else f"{100 * a:.1f} ({100 * lo:.1f}-{100 * hi:.1f}){'' if m.tested.decided(r) else '†'}"
            for r, a, lo, hi in zip(radii, m.curve.accuracy, m.curve.lower, m.curve.upper, strict=True)
        ]
        images = str(len(m.run.rows)) if m.run.finished else f"{m.run.progress} (unfinished)"
        stopped = "" if m.tested.targets is None else "†"
        acr = statistics.radius_text(m.average_radius, norm_of(m.settings)) + stopped
        abstained = "-" if m.settings.get("label_aware") else f"{100 * m.abstention:.1f}"
        rows.append([m.name, sigma_text(m.settings), *at_radii, acr, abstained, images])
    return rows
