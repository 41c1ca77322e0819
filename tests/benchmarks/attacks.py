"""Attacks against bare forward and backward passes of the same count, written to docs/results/attacks.json.

    python tests/benchmarks/attacks.py [--threads 2] [--pairs 7] [--images 250]

Counted are the passes of the network that an attack really makes; the bare loop takes the gradient of the cross-entropy to the same images as often.
Both in eval mode and float32; pairs alternate in one process, and the ratio of each pair is taken.
"""

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from networks import NETWORKS
from results import asked, record
from torch import Tensor

from hf_smoothing.attacks import ATTACKS


def bare(classify: Callable[[Tensor], Tensor], pixels: Tensor, labels: Tensor, passes: int) -> float:
    """Seconds of this number of forward and backward passes."""
    began = time.perf_counter()
    for _ in range(passes):
        point = pixels.detach().requires_grad_()
        torch.autograd.grad(F.cross_entropy(classify(point), labels, reduction="sum"), point)
    return time.perf_counter() - began


def main() -> None:
    args = asked(__doc__, pairs=7, images=250)
    model = NETWORKS["resnet-small"]().eval()
    model.requires_grad_(False)  # as for any attack: only the image moves
    pixels = torch.rand(args.images, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = model.classify(pixels).argmax(1)
    passes = {"forward": 0.0}

    def classify(x: Tensor) -> Tensor:
        # A pass without a gradient, such as the last look at the loss, is a third of one with it.
        passes["forward"] += 1.0 if torch.is_grad_enabled() and x.requires_grad else 1 / 3
        return model.classify(x)

    found = {}
    for name, attack in ATTACKS.items():
        again = 10 if name == "fgsm" else 1  # a single pass is over too soon to be timed
        for norm, epsilon in (("linf", 2 / 255), ("l2", 0.2)):
            ratios = []
            for _ in range(args.pairs + 1):
                passes["forward"] = 0.0
                began = time.perf_counter()
                for _ in range(again):
                    generator = torch.Generator().manual_seed(0)
                    attack(classify, pixels, labels, epsilon=epsilon, norm=norm, steps=10, generator=generator)
                taken = time.perf_counter() - began
                count = max(round(passes["forward"]), 1)
                ratios.append(bare(model.classify, pixels, labels, count) * passes["forward"] / count / taken)
            found[f"{name}, {norm}"] = ratios[1:]  # the first pair warms up
    record(
        "attacks", "throughput_over_bare_passes", {key: round(statistics.median(r), 3) for key, r in found.items()}, seed=0,
        command=f"python tests/benchmarks/attacks.py --threads {args.threads} --pairs {args.pairs} --images {args.images}",
        ratios={key: [round(one, 3) for one in r] for key, r in found.items()}, images=args.images, threads=args.threads, steps=10, dtype="float32",
    )  # fmt: skip


if __name__ == "__main__":
    main()
