"""Runs written by hand, so that every figure of a report is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_smoothing.records import FORMAT


SETTINGS: dict[str, Any] = {
    "method": "randomized-smoothing", "norm": "l2", "rule": {"name": "fixed-n", "n0": 100, "n": 1000}, "sigma": 0.5,
    "alpha": 0.001, "bound": "one-sided", "label_aware": False, "noise_kind": "gaussian", "noise_dtype": "float32",
    "resolution": [3, 16, 16], "num_images": 4, "seed": 0, "model": {"id": "tiny"},
    "dataset": {"id": "toys", "split": "test", "sha256": "0123456789abcdef"},
}  # fmt: skip
ROWS = [(0, 0, 0.9999), (1, 1, 0.25), (2, -1, 0.0), (3, 1, 0.7)]  # label, prediction, radius


def written_run(folder: Path, rows: Sequence[tuple[int, int, float]] = ROWS, **changes: Any) -> Path:
    """A run folder with these rows."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"format": FORMAT} | SETTINGS | changes))
    lines = [
        json.dumps({"index": index, "label": label, "prediction": prediction, "radius": radius})
        for index, (label, prediction, radius) in enumerate(rows)
    ]
    (folder / "certificates-0.jsonl").write_text("\n".join(lines) + "\n")
    return folder


LINF: dict[str, Any] = {
    "method": "interval-bounds", "norm": "linf", "deterministic": True, "sigma": None,
    "rule": {"name": "interval bounds", "covers_run": True, "largest": 1.0},
}  # fmt: skip
"""What is other in a run of interval bounds."""
SEQUENTIAL: dict[str, Any] = {
    "name": "sequential, union bound",
    "n0": 100,
    "n": 1000,
    "targets": [0.0, 0.25],
    "looks": [20, 1000],
}
CURVE = SEQUENTIAL | {"targets": [round(0.05 * k, 12) for k in range(25)]}
"""The whole curve of sigma 0.5: 1,000 draws certify less than 1.25."""
