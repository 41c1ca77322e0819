"""How long a command takes before it certifies."""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from certification_shared import EMBEDDED, ROOT, keep


MODEL = "model_cards/resnet-mixture-cifar10"

# What no command that certifies can do without, imported as any program imports it.
_ALONE = "import torch, datasets; from transformers import PreTrainedModel"


def start_seconds(args: argparse.Namespace) -> None:
    """(f) Processor time of `hf-smoothing certify` for two images and a hundred draws each, as a process: imports, model, data, table."""
    with tempfile.TemporaryDirectory() as folder:
        words = (
            "certify",
            MODEL,
            str(EMBEDDED),
            "--sigma",
            "0.25",
            "--n",
            "100",
            "--max-images",
            "2",
            "--device",
            "cpu",
        )
        certify, alone = [], []
        for turn in range(1 if args.quick else 3):
            certify.append(_seconds("-m", "hf_smoothing.cli", *words, "--output-dir", f"{folder}/{turn}"))
            alone.append(_seconds("-c", _ALONE))
    processor, wall = [statistics.median(one[place] for one in certify) for place in (0, 1)]
    keep(
        "start_seconds", "resnet-small", round(processor, 2), args,
        wall_seconds=round(wall, 2), imports_of_torch_transformers_datasets=round(statistics.median(one for one, _ in alone), 2),
        repeats=len(certify), images=2, n=100, unit="seconds of one processor, user and system; wall time depends on what else runs",
    )  # fmt: skip


def _seconds(*words: str) -> tuple[float, float]:
    """(processor, wall) seconds of a Python process with one thread, offline."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, check=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, wall
