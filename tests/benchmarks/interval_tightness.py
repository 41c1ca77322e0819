"""How far each kind of bounds certifies, and what it costs: docs/results/linf_frontier.json.

    python tests/benchmarks/interval_tightness.py RUNS/*/model --dataset path/to/cifar10 --largest 0.0156863 [--images 20] [--threads 1]

Each model is a network of `examples/adaptive_certified_training.py`, named by its folder. Images are the first of the test set, evenly spread,
that it gets right; radii are found to 1/100 of the largest. Seconds an image are of one kind of bounds by itself, from where the cheaper one
ended.
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
from hf_smoothing.interval.certificates import certificates_of, check_certifiable
from hf_smoothing.interval.search import BACKWARD


def measured(model: SmoothedClassifier, pixels: torch.Tensor, args: argparse.Namespace) -> dict[str, Any]:
    """By bound: median and mean radius, the share of images at the largest, of those whose radius it enlarged, seconds an image."""
    check_certifiable(model, args.largest)
    found: dict[str, Any] = {}
    spent = 0.0
    for backward in BACKWARD:
        began = time.perf_counter()
        _, radii, bounds = certificates_of(
            model, pixels, largest=args.largest, backward=backward, steps=args.steps, cover_run=True, tolerance=args.largest / 100
        )  # fmt: skip
        seconds = time.perf_counter() - began
        found[backward] = {
            "median_radius": round(float(radii.median()), 6),
            "mean_radius": round(float(radii.mean()), 6),
            "at_largest_percent": round(100 * float((radii == args.largest).double().mean()), 1),
            "enlarged_percent": round(100 * float((bounds == BACKWARD.index(backward)).double().mean()), 1),
            "seconds_per_image": round((seconds - spent) / len(pixels), 3),
        }
        spent = seconds  # which the next one spends again
        print(args.name, backward, found[backward], flush=True)
    return found


@torch.inference_mode()
def right_images(model: SmoothedClassifier, test: Any, count: int) -> torch.Tensor:
    """The first images, evenly spread over the test set, that the model gets right."""
    every = test.select(range(0, len(test), 10))
    data = PixelDataset(every, model.config.size).decode()
    right = model.classify(data.pixels.float() / 255).argmax(1) == data.labels
    chosen = right.nonzero()[:, 0]
    return data.pixels[chosen[:: max(1, len(chosen) // count)][:count]]


def main() -> None:
    parser = parser_of(__doc__, "models", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    test = load_dataset(args.dataset, split="test")
    found = {}
    for path in args.models:
        args.name = path.parent.name if path.name == "model" else path.name
        model = SmoothedClassifier.from_pretrained(path).eval()
        found[args.name] = measured(model, right_images(model, test, args.images), args)
    paths = " ".join(map(str, args.models))
    record(
        "linf_frontier", "tightness", found, seed=0,
        command=f"python tests/benchmarks/interval_tightness.py {paths} --dataset path/to/{Path(args.dataset).name} --largest {args.largest} --images {args.images} --steps {args.steps} --threads {args.threads}",
        dataset=Path(args.dataset).name, images=args.images, largest=args.largest, steps=args.steps, threads=args.threads,
    )  # fmt: skip


if __name__ == "__main__":
    main()
