"""Published logs, all synthetic, and a run that is as like one as it can be."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.written_runs import written_run


HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime"
# Every kind of line: right, wrong, abstained; idx in no order, as in a log that was joined from several.
LINES = [
    "0\t3\t3\t0.61\t1\t0:00:17.123456",
    "40\t7\t2\t0.25\t0\t0:00:16.9",
    "20\t1\t-1\t0.0\t0\t1 day, 0:00:01",
    "60\t5\t5\t1e-05\t1\t0:00:17",
    "80\t0\t0\t0.5\t1\t0:00:17.5",
]


def log(path: Path, lines: Sequence[str] = LINES, header: str = HEADER, end: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(("\n".join([header, *lines]) + end).encode())
    return path


def synthetic(seed: int, count: int = 200) -> list[str]:
    """Lines of every kind, with radii that lie on thresholds and between them."""
    chance = random.Random(seed)
    lines = []
    for index in range(0, 20 * count, 20):
        label, prediction = chance.randrange(4), chance.choice([-1, 0, 1, 2, 3])
        radius = 0.0 if prediction == -1 else chance.choice([0.25, 0.5, chance.uniform(0, 1.5)])
        lines.append(
            f"{index}\t{label}\t{prediction}\t{radius:.3}\t{int(label == prediction)}\t0:00:0{chance.random():.6f}"
        )
    return lines


def own_run(folder: Path, **changes: Any) -> Path:
    """A run of this library that is as like a published log as it can be."""
    settings = {"num_images": len(LINES), "model": {"id": "own"}, "resolution": [3, 8, 8]} | changes
    return written_run(folder, [(1, 1, 0.3)] * len(LINES), **settings)


def cells(text: str, line: int = 0) -> dict[str, str]:
    """A row of the first table in a report: column -> what stands in it."""
    lines = [row for row in text.splitlines() if row.startswith("| ")]
    head, row = ([cell.strip() for cell in lines[i].strip("|").split("|")] for i in (0, 1 + line))
    return dict(zip(head, row, strict=True))
