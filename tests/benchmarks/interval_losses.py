"""What a training step of each interval loss costs, over one at the fixed radius: docs/results/linf_frontier.json.

    python tests/benchmarks/interval_losses.py MODEL --dataset path/to/cifar10 --largest 0.0078431 [--steps 4] [--rounds 6] [--threads 1]

MODEL is a network that was trained for interval bounds. All losses take turns in one process; the first round warms up.
"""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path

from interval import network_and_images, parser_of, step_seconds
from results import record

from hf_smoothing.interval.objectives import adaptive_interval, cc_ibp, exp_ibp, mtl_ibp, sabr


LOSSES = {
    "fixed radius": partial(adaptive_interval, adaptive=False),
    "adaptive radii": adaptive_interval,
    "SABR, 8 steps": partial(sabr, steps=8),
    "SABR, 8 steps, adaptive": partial(sabr, steps=8, adaptive=True),
    "MTL-IBP, 1 step": mtl_ibp,
    "MTL-IBP, 8 steps": partial(mtl_ibp, steps=8, step_size=0.25),
    "MTL-IBP, 1 step, adaptive": partial(mtl_ibp, adaptive=True),
    "CC-IBP, 1 step": cc_ibp,
    "Exp-IBP, 1 step": exp_ibp,
}
"""Each with its own defaults but for the number of attack steps; the first is the baseline."""


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=6)
    args = parser.parse_args()
    model, pixels, labels = network_and_images(args, 1_000)
    ratios: dict[str, list[float]] = {name: [] for name in LOSSES}
    for _ in range(args.rounds + 1):
        seconds = {
            name: step_seconds(model, pixels, labels, partial(loss, largest=args.largest), args.steps)
            for name, loss in LOSSES.items()
        }
        for name, found in ratios.items():
            found.append(seconds[name] / seconds["fixed radius"])
    record(
        "linf_frontier", "step_cost", {name: round(statistics.median(found[1:]), 2) for name, found in ratios.items()},
        seed=0, ratios={name: [round(ratio, 2) for ratio in found[1:]] for name, found in ratios.items()},
        command=f"python tests/benchmarks/interval_losses.py {args.model} --dataset path/to/{Path(args.dataset).name} --largest {args.largest} --steps {args.steps} --rounds {args.rounds} --threads {args.threads}",
        model=Path(args.model).name, batch_size=128, threads=args.threads, dtype="float32", baseline="the fixed radius (Shi et al.), same network, images and batch, late in training",
    )  # fmt: skip


if __name__ == "__main__":
    main()
