"""Figures of certification, written to docs/results/certification.json: `make bench-certification`.

Speeds are ratios within one run, taken in turns, since machines are shared and noisy. `--quick` (a few minutes) prints the figures
of a small workload and writes nothing. All that is needed is in the repository: 2,000 training and 500 test images, and the small mixture
backbone, which is finetuned on them first. With `--dataset uoft-cs/cifar10`, or a folder of its parquet files, the classifier learns from
the whole set, as for the figures in docs/certification.md; the 500 test images are the same. `--model` takes another classifier. The
comparison with ART installs it into `.venv-art` from the package index.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from certification_accuracy import accuracy_difference
from certification_first_draw import child as first_draw
from certification_first_draw import time_to_first_draw
from certification_shared import EMBEDDED, ROOT, SIGMA, every_20th, keep, small_classifier
from certification_speed import certify_over_forward, rounds_speed
from certification_speedup import speedups
from certification_start import start_seconds
from networks import NETWORKS

from hf_smoothing import PixelDataset, SmoothedClassifier, certify, certify_dataset


HERE = Path(__file__).resolve().parent


def memory_ratio(args: argparse.Namespace) -> None:
    """(d) Peak memory of a process that certifies two images at n = 100,000 over that at n = 1,000, with the small network."""
    peak = {n: int(_child("memory", str(n))) for n in (1_000, 4_000 if args.quick else 100_000)}
    values = list(peak.values())
    keep("peak_memory_ratio_n100k_over_n1k", "resnet-small", round(values[1] / values[0], 3), args, peak_kib=peak)


def two_ranks(args: argparse.Namespace) -> None:
    """(e) Speed of two ranks over one, one thread each, on images that need different numbers of draws."""
    seconds = {1: [], 2: []}
    for _ in range(1 if args.quick else 2):
        for ranks, found in seconds.items():
            words = ("200" if args.quick else "2000", small_classifier(args), str(args.dataset))
            found.append(float(_child("ranks", *words, ranks=ranks)))
    best = {ranks: statistics.median(found) for ranks, found in seconds.items()}
    keep("two_ranks_over_one", "resnet-small", round(best[1] / best[2], 3), args, seconds=seconds, threads_per_rank=1)


def memory_kept_over_usual(args: argparse.Namespace) -> None:
    """(f) Speed of certification where freed memory stays with the process, over that by the C library's own rule; processes in turns, one thread."""
    for name in NETWORKS:
        ratios, speeds = [], []
        for _ in range(2 if args.quick else 5):
            # Any setting of the environment keeps ours away, and this one changes nothing for a single thread.
            usual, kept = (float(_child("kept", name, MALLOC_ARENA_MAX=value)) for value in ("64", None))
            ratios.append(kept / usual)
            speeds.append([round(usual), round(kept)])
        low, middle, high = (round(float(q), 3) for q in np.quantile(ratios, [0.25, 0.5, 0.75]))
        keep(
            "memory_kept_over_usual", name, middle, args, quartiles=[low, high], pairs=len(ratios), dtype="bfloat16", copies_per_second=speeds,
            threads_per_process=1,
        )  # fmt: skip


def _child(what: str, *words: str, ranks: int = 1, **changes: str | None) -> str:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", **changes}
    if what in ("ranks", "kept"):
        environment["OMP_NUM_THREADS"] = "1"
    environment = {name: value for name, value in environment.items() if value is not None}
    command = [sys.executable, *launcher, str(HERE / "certification.py"), "--child", what, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return next(line for line in done.stdout.splitlines() if line.startswith("RESULT")).split()[1]


def child(what: str, words: list[str]) -> None:
    """What a figure does in a process of its own."""
    if what == "memory":
        model = NETWORKS["resnet-small"]().eval()
        certify(model, torch.rand(2, 3, 32, 32), sigma=SIGMA, mode="fixed", n=int(words[0]), seed=0)
        print("RESULT", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    if what == "kept":
        print("RESULT", rounds_speed(words[0]))
        return
    if what == "first":
        first_draw(int(words[0]))
        return
    n, path, dataset = words
    model = SmoothedClassifier.from_pretrained(path).eval()
    pixels = PixelDataset(every_20th(argparse.Namespace(dataset=dataset)), 32, id2label=model.config.id2label)
    from accelerate.utils import broadcast_object_list

    from hf_smoothing.certification import process_state

    state = process_state(cpu=True)
    folder = [tempfile.mkdtemp()]
    if state.num_processes > 1:
        broadcast_object_list(folder)
    began = time.perf_counter()
    certify_dataset(
        model, pixels, folder[0], sigma=SIGMA, targets=(0.0, 0.5), n=int(n), indices=range(60), dtype="bfloat16",
        channels_last=True, copies_per_batch=64, progress=False,
    )  # fmt: skip
    if state.is_main_process:
        print("RESULT", time.perf_counter() - began)


FIGURES = {
    "forward": certify_over_forward, "memory": memory_ratio, "ranks": two_ranks, "accuracy": accuracy_difference,
    "speedups": speedups, "start": start_seconds, "first": time_to_first_draw, "kept": memory_kept_over_usual,
}  # fmt: skip


def main() -> None:
    """Measure the figures named on the command line, all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", nargs="*", help=f"of {', '.join(FIGURES)}; all by default")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--no-art", action="store_true", help="leave out the comparison with ART, which installs it")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--model", help="a SmoothedClassifier of CIFAR-10; made by default")
    parser.add_argument(
        "--dataset", default=EMBEDDED, help="CIFAR-10: its name on the Hub, or a folder of parquet files (%(default)s)"
    )
    parser.add_argument("--runs", default=ROOT / "runs", help="where classifier and run folders go (%(default)s)")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child[0], args.child[1:])
        return
    for name in args.figures or FIGURES:
        FIGURES[name](args)


if __name__ == "__main__":
    main()
