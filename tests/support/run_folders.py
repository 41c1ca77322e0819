"""Run folders with a few rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hf_smoothing.records import Row, RunWriter


SETTINGS: dict[str, Any] = {
    "sigma": 0.5,
    "rule": {"name": "fixed-n", "n": 100},
    "resolution": (3, 4, 4),
    "created": "today",
}
ROWS: list[Row] = [{"index": i, "radius": i / 7, "name": "Köln 雪", "seconds": 0.1} for i in range(4)]


def write(folder: Path, rows: Iterable[Row], rank: int = 0, settings: Mapping[str, Any] = SETTINGS) -> Path:
    """Add rows to a run folder; the file of the rank."""
    with RunWriter(folder, settings, rank=rank) as writer:
        for row in rows:
            writer.append(row)
    return folder / f"certificates-{rank}.jsonl"
