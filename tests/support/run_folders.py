"""Run folders with a few rows."""

from __future__ import annotations

from hf_smoothing.records import RunWriter


SETTINGS = {"sigma": 0.5, "rule": {"name": "fixed-n", "n": 100}, "resolution": (3, 4, 4), "created": "today"}
ROWS = [{"index": i, "radius": i / 7, "name": "Köln 雪", "seconds": 0.1} for i in range(4)]


def write(folder, rows, rank=0, settings=SETTINGS):
    with RunWriter(folder, settings, rank=rank) as writer:
        for row in rows:
            writer.append(row)
    return folder / f"certificates-{rank}.jsonl"
