"""How far each kind of bounds certifies, and what it costs: docs/results/linf_frontier.json.

    python tests/benchmarks/interval_tightness.py RUNS/*/model --dataset path/to/cifar10 --largest 0.0156863 [--images 50] [--threads 1]

Each model is a network of `examples/adaptive_certified_training.py`, named by its folder. Radii are of the images that it gets right, the
median over them; seconds an image are of one kind of bounds by itself, from where the cheaper one ended, for all images of a batch.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from interval import parser_of
from results import record

from hf_smoothing import PixelDataset, SmoothedClassifier
from hf_smoothing.interval.certificates import BACKWARD, certificates_of, check_certifiable


def measured(model: SmoothedClassifier, data: Any, args: argparse.Namespace) -> dict[str, Any]:
    """By bound: the median radius in % of the largest, the share of images whose radius it enlarged, seconds an image."""
    check_certifiable(model, args.largest)
    found: dict[str, Any] = {}
    spent = 0.0
    for backward in BACKWARD:
        began = time.perf_counter()
        classes, radii, bounds = certificates_of(
            model, data.pixels, largest=args.largest, backward=backward, steps=args.steps, cover_run=True, tolerance=args.largest / 1000
        )  # fmt: skip
        seconds = time.perf_counter() - began
        right = classes == data.labels
        found[backward] = {
            "median_radius": round(float(radii[right].median()), 6),
            "mean_radius": round(float(radii[right].mean()), 6),
            "at_largest_percent": round(100 * float((radii[right] == args.largest).double().mean()), 1),
            "enlarged_percent": round(100 * float((bounds[right] == BACKWARD.index(backward)).double().mean()), 1),
            "seconds_per_image": round((seconds - spent) / len(data), 3),
        }
        spent = seconds  # which the next one spends again
        print(args.name, backward, found[backward], flush=True)
    return found | {"right": int(right.sum())}


def main() -> None:
    parser = parser_of(__doc__, "models", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    test = load_dataset(args.dataset, split="test")
    test = test.select(range(0, len(test), len(test) // args.images)[: args.images])
    found = {}
    for path in args.models:
        args.name = path.parent.name if path.name == "model" else path.name
        model = SmoothedClassifier.from_pretrained(path).eval()
        found[args.name] = measured(model, PixelDataset(test, model.config.size).decode(), args)
    paths = " ".join(map(str, args.models))
    record(
        "linf_frontier", "tightness", found, seed=0,
        command=f"python tests/benchmarks/interval_tightness.py {paths} --dataset path/to/{Path(args.dataset).name} --largest {args.largest} --images {args.images} --steps {args.steps} --threads {args.threads}",
        dataset=Path(args.dataset).name, images=args.images, largest=args.largest, steps=args.steps, threads=args.threads,
    )  # fmt: skip


if __name__ == "__main__":
    main()
