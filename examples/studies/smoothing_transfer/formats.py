"""How numbers look in the tables of the report."""

from __future__ import annotations

from typing import Any

from examples.studies.smoothing_transfer.cells import Cell
from hf_smoothing.statistics import round_down


Table = tuple[str, dict[str, Any]]
"""Markdown, and the figures for the JSON file."""


def both(cell: Cell | None, sigma: float) -> str:
    """Certified accuracy at radius sigma / 2 in %, and ACR."""
    return (
        ""
        if cell is None
        else f"{cell.accuracy(sigma / 2)[0]:.1f} / {number(cell.acr)}{'†' if cell.collapsed else ''}"
    )


def value(found: float, measure: str) -> str:
    return number(found) if measure == "ACR" else f"{100 * found:.1f}"


def number(found: float) -> str:
    return round_down(found)


def ratio(found: Any) -> str:
    return f"{100 * found.value:.0f}% [{100 * found.low:.0f}, {100 * found.high:.0f}]"


def difference(found: Any, measure: str) -> str:
    if measure != "ACR":
        return f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def p_value(found: float) -> str:
    return "< 0.0001" if found < 1e-4 else f"{found:.4f}"


def percent(found: tuple[float, float, float]) -> str:
    return f"{found[0]:.1f} [{found[1]:.0f}, {found[2]:.0f}]"
