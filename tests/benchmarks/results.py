"""Where benchmarks write their figures: one JSON file per subject, one key per figure, each with what is needed to repeat it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


FOLDER = Path(__file__).resolve().parents[2] / "docs" / "results"


def asked(about: str, **numbers: int) -> argparse.Namespace:
    """Whole numbers from the command line, by option with their defaults; `--threads`, 2, are those of torch from now on."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"threads": 2, **numbers}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    return args


def record(subject: str, figure: str, value: Any, *, seed: int | None, command: str, **facts: Any) -> None:
    """Set one figure of docs/results/<subject>.json and print it."""
    file = FOLDER / f"{subject}.json"
    figures = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    figures[figure] = {
        "value": value,
        **facts,
        "command": command,
        "seed": seed,
        "machine": machine(),
        "versions": {name: version(name) for name in ("hf_smoothing", "torch", "transformers", "numpy", "scipy")},
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(f"{figure}: {value}", *(f"{key} = {fact}" for key, fact in facts.items()), sep="\n    ")


def machine() -> str:
    """Processor, number of cores and Python."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8").splitlines() if cpu.exists() else []
    model = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    return f"{model}, {os.cpu_count()} cores, Python {sys.version.split()[0]}"
