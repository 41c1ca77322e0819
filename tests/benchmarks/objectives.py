"""What a training step of each objective costs beside plain noise training, written to docs/results/training_methods.json and the cards.

    python tests/benchmarks/objectives.py [--threads 2] [--rounds 5] [--steps 3]

The small ResNet, batches of 64 images of 32 px resized to 64, float32, the settings of docs/objectives.md. In each round all objectives take
their turn, and each is divided by that round's plain noise training.
"""

import argparse
import ast
import re
import statistics
import time
from pathlib import Path

import torch
from networks import NETWORKS
from results import record

from hf_smoothing import NoiseMixture, SmoothedClassifier
from hf_smoothing.training import Batch, ObjectiveState
from hf_smoothing.training.objectives import OBJECTIVES, Network, find_objective


PAGE = Path(__file__).resolve().parents[2] / "docs" / "objectives.md"
BATCH = 64


def cards() -> dict[str, dict]:
    """Settings by name, as the cards of the page give them to the Trainer."""
    page = PAGE.read_text(encoding="utf-8").partition("## Without training")[0]
    found = re.findall(r'objective="([\w-]+)"(?:,\s*objective_args=(\{.*?\}))?', page, flags=re.DOTALL)
    return {name: ast.literal_eval(text) if text else {} for name, text in found}


def seconds(objective, model: SmoothedClassifier, steps: int) -> float:
    """Forward, backward and update."""
    network = Network(model, model.classify)
    optimizer = torch.optim.SGD(model.parameters(), 1e-6)
    generator = torch.Generator().manual_seed(0)
    began = time.perf_counter()
    for _ in range(steps):
        batch = Batch(torch.rand(BATCH, 3, 32, 32), torch.arange(BATCH) % 10)
        loss, _ = objective(network, batch, ObjectiveState(NoiseMixture((0.25,)), generator, progress=0.5))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = NETWORKS["resnet-small"]().train()
    settings = cards()
    objectives = {name: find_objective(name, OBJECTIVES, own) for name, own in settings.items()}
    ratios: dict[str, list[float]] = {name: [] for name in objectives}
    for number in range(args.rounds + 1):
        taken = {name: seconds(objective, model, args.steps) for name, objective in objectives.items()}
        for name in objectives:
            if number:  # the first round warms up
                ratios[name].append(taken[name] / taken["mixture"])
    medians = {name: round(statistics.median(found), 1) for name, found in ratios.items()}
    text = PAGE.read_text(encoding="utf-8")
    for name, value in medians.items():
        text = re.sub(rf"(<!-- cost {name} -->).*?(<!-- end -->)", rf"\g<1>, {value} times measured\g<2>", text)
    PAGE.write_text(text, encoding="utf-8")
    record(
        "training_methods", "cost_of_a_step", medians, seed=0,
        command=f"python tests/benchmarks/objectives.py --threads {args.threads} --rounds {args.rounds} --steps {args.steps}",
        ratios={name: [round(r, 2) for r in found] for name, found in ratios.items()}, settings=settings, batch_size=BATCH, threads=args.threads,
        dtype="float32",
    )  # fmt: skip


if __name__ == "__main__":
    main()
