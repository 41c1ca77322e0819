"""What adaptive radii cost, written to docs/results/interval.json.

    python tests/benchmarks/interval.py MODEL --dataset path/to/cifar10 --largest 0.0345 [--steps 10] [--pairs 7] [--images 1000]

MODEL is a network that was trained for interval bounds: how many radii need a search depends on it. Measured in one process:
a training step at adaptive radii over one at the fixed radius; and certifying images over one evaluation of their bounds.
"""

import argparse
import copy
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from results import record

from hf_smoothing import PixelDataset, SmoothedClassifier
from hf_smoothing.interval import Trace, box_around, linf_certificates, margin_bounds
from hf_smoothing.interval.objectives import adaptive_interval
from hf_smoothing.training import Batch, ObjectiveState


def parser_of(about: str | None, model: str = "model", **more: Any) -> argparse.ArgumentParser:
    """What the benchmarks of interval bounds are given: trained networks, a data set, the largest radius, threads.

    Args:
        about: Text of the module.
        model: Name of the argument that takes the network.
        more: Of `add_argument` for it.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(model, **more)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--largest", type=float, required=True)
    parser.add_argument("--threads", type=int, default=1)
    return parser


def step_seconds(
    model: SmoothedClassifier, pixels: torch.Tensor, labels: torch.Tensor, objective: partial, steps: int
) -> float:
    """Forward, backward and update, late in training, where the cap is the largest radius."""
    model = copy.deepcopy(model).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-6)  # so small that the network stays what it is
    state = ObjectiveState(None, torch.Generator().manual_seed(0), progress=1.0)
    began = time.perf_counter()
    for step in range(steps):
        chosen = slice((step * 128) % (len(pixels) - 127), (step * 128) % (len(pixels) - 127) + 128)
        optimizer.zero_grad()
        loss, _ = objective(lambda x: model(pixel_values=x).logits, Batch(pixels[chosen], labels[chosen]), state)
        loss.backward()
        optimizer.step()
    return time.perf_counter() - began


def network_and_images(args: argparse.Namespace, count: int) -> tuple[SmoothedClassifier, torch.Tensor, torch.Tensor]:
    """The network of the command line, in eval mode, the first test images in [0, 1], and their labels."""
    torch.set_num_threads(args.threads)
    model = SmoothedClassifier.from_pretrained(args.model).eval()
    data = PixelDataset(load_dataset(args.dataset, split="test").select(range(count)), model.config.size).decode()
    return model, data.pixels.float() / 255, data.labels


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--images", type=int, default=1_000)
    parser.set_defaults(threads=2)
    args = parser.parse_args()
    model, pixels, labels = network_and_images(args, args.images)
    command = f"python tests/benchmarks/interval.py {args.model} --dataset path/to/{Path(args.dataset).name} --largest {args.largest} --steps {args.steps} --pairs {args.pairs} --images {args.images} --threads {args.threads}"  # fmt: skip

    ratios = []
    for _ in range(args.pairs + 1):
        fixed = step_seconds(
            model, pixels, labels, partial(adaptive_interval, largest=args.largest, adaptive=False), args.steps
        )
        own = step_seconds(model, pixels, labels, partial(adaptive_interval, largest=args.largest), args.steps)
        ratios.append(own / fixed)
    ratios = ratios[1:]  # the first pair warms up
    record(
        "interval", "adaptive_step_over_fixed_step", round(statistics.median(ratios), 2), seed=0, command=command,
        ratios=[round(ratio, 2) for ratio in ratios], batch_size=128, threads=args.threads, dtype="float32",
    )  # fmt: skip

    exact, images = copy.deepcopy(model).double(), pixels.double()
    classes = exact.classify(images).argmax(1)
    evaluations = []
    for _ in range(3):
        began = time.perf_counter()
        with torch.no_grad():
            margin_bounds(exact.classify, box_around(images, args.largest / 2, Trace(outward=True)), classes)
        evaluations.append(time.perf_counter() - began)
    began = time.perf_counter()
    linf_certificates(model, pixels, largest=args.largest)
    whole = time.perf_counter() - began
    record(
        "interval", "radii_in_bound_evaluations", round(whole / min(evaluations), 1), seed=None, command=command,
        images=args.images, threads=args.threads, dtype="float64, rounded outward",
    )  # fmt: skip


if __name__ == "__main__":
    main()
