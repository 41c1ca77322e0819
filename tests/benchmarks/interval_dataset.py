"""Interval certificates of a whole test set in one command: seconds and memory, written to docs/results/guarantee.json.

    python tests/benchmarks/interval_dataset.py model_cards/cnn7-linf-cifar10 --dataset path/to/cifar10 --largest 0.0345098 [--threads 1]

The command is also run on every hundredth image: what it costs to begin, and what memory does not grow with the data set.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from interval import parser_of
from results import record

from hf_smoothing.records import read_run


def run(model: str, dataset: str, largest: float, threads: int, stride: int) -> dict[str, Any]:
    """Seconds, peak memory and images of one `hf-smoothing certify`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "hf_smoothing.cli", "certify", model, dataset, "--method", "interval", "--largest", str(largest),
            "--stride", str(stride), "--output-dir", folder + "/run",
        ]  # fmt: skip
        began = time.perf_counter()
        child = os.spawnve(os.P_NOWAIT, sys.executable, command, {**os.environ, "OMP_NUM_THREADS": str(threads)})
        _, status, usage = os.wait4(child, 0)
        seconds = time.perf_counter() - began
        if status:
            raise RuntimeError(f"`{' '.join(command)}` failed.")
        images = len(read_run(Path(folder) / "run").rows)
    return {"images": images, "seconds": round(seconds, 1), "peak_memory_mb": round(usage.ru_maxrss / 1024)}


def main() -> None:
    parser = parser_of(__doc__)
    args = parser.parse_args()
    few, all_ = (run(args.model, args.dataset, args.largest, args.threads, stride) for stride in (100, 1))
    record(
        "guarantee", "interval_dataset", {"all": all_, "every_hundredth": few}, seed=None,
        command=f"python tests/benchmarks/interval_dataset.py {args.model} --dataset path/to/{Path(args.dataset).name} --largest {args.largest} --threads {args.threads}",
        model=Path(args.model).name, dataset=Path(args.dataset).name, largest=args.largest, threads=args.threads,
    )  # fmt: skip


if __name__ == "__main__":
    main()
