"""Our claims before other people's verifiers: docs/results/verified_claims.json.

    python tests/benchmarks/verifiers.py --dataset path/to/mnist [--images 12] [--timeout 10] [--threads 1]

Small networks are trained on MNIST at 14 px, certified by interval bounds and exported; Marabou (complete) and auto_LiRPA (CROWN, then
alpha-CROWN) are asked about each claim, and about a radius 10% larger. Both are installed into `.venv-verifiers` from the package index.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from environments import run_there
from results import record
from torch import nn

from hf_smoothing import PixelDataset
from hf_smoothing.data import DecodedPixels
from hf_smoothing.interval import certify_dataset_linf, initialise_for_intervals
from hf_smoothing.interval.export import box_inside, export_run, vnnlib_text
from hf_smoothing.interval.objectives import adaptive_interval, sabr
from hf_smoothing.training import Batch, ObjectiveState
from tests.support.verifiers import Verdict, ask_lirpa, ask_marabou


SIZE, LARGEST, BEYOND = 14, 0.1, 1.1
STEPS, BATCH, TRAINING_IMAGES = 1_500, 128, 10_000
LOSSES = {
    "adaptive radii": partial(adaptive_interval, largest=LARGEST, kappa=0.0),
    "SABR, share 0.4": partial(sabr, largest=LARGEST, share=0.4),
}
PACKAGES = ["maraboupy==2.0.0", "auto_LiRPA==0.3", "appdirs==1.4.4", "onnxruntime==1.32.0"]
"""The verifiers, and what they import."""


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(SIZE**2, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)
    )


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 10)
    )  # fmt: skip


def grey(dataset: Any, indices: list[int]) -> DecodedPixels:
    """One channel, for MNIST has no more."""
    found = PixelDataset(dataset, SIZE).decode(indices=indices, progress=False)
    return DecodedPixels(found.pixels[:, :1].contiguous(), found.labels)


def trained(build: Callable[[], nn.Module], loss: Any, data: DecodedPixels) -> nn.Module:
    torch.manual_seed(0)
    model = build()
    initialise_for_intervals(model)
    optimizer, generator = torch.optim.Adam(model.parameters(), 2e-3), torch.Generator().manual_seed(0)
    for step in range(STEPS):
        chosen = torch.randint(len(data.pixels), (BATCH,), generator=generator)
        batch = Batch(data.pixels[chosen].float() / 255, data.labels[chosen])
        optimizer.zero_grad()
        value, _ = loss(model, batch, ObjectiveState(None, generator, progress=step / STEPS))
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
    return model.eval()


def tally(verdicts: list[Verdict]) -> dict[str, Any]:
    """How many are confirmed, refuted, and open for what reason."""
    counts = Counter(one.answer if one.answer != "open" else f"open: {one.why[:80]}" for one in verdicts)
    return {
        **{answer: counts.pop(answer, 0) for answer in ("confirmed", "refuted")},
        "open": sum(counts.values()),
        "why_open": {name.removeprefix("open: "): count for name, count in counts.items()},
        "median_seconds": round(statistics.median(one.seconds for one in verdicts), 2),
    }


def verified(model: nn.Module, test: DecodedPixels, timeout: int, backward: str) -> dict[str, Any]:
    """What the verifiers say of all claims of a network, and of radii that are 10% larger."""
    shape = tuple(test.pixels.shape[1:])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run = certify_dataset_linf(model, test, folder / "run", largest=0.4, backward=backward, progress=False)
        found = export_run(model, test, run, folder / "out")
        (folder / "beyond").mkdir()
        for claim in found.claims:
            ends = box_inside(test.pixels[claim.index].double() / 255, BEYOND * claim.radius)
            text = vnnlib_text(*ends, claim.prediction, 10)
            (folder / "beyond" / f"image-{claim.index}.vnnlib").write_text(text)
        asked = {
            "Marabou": partial(ask_marabou, folder / "out" / "network.onnx", timeout=timeout),
            "auto_LiRPA": partial(ask_lirpa, model, shape),
        }
        answers = {
            name: {
                what: tally([ask(file) for file in sorted(place.glob("*.vnnlib"))])
                for what, place in (("claims", folder / "out" / "vnnlib"), ("10% beyond", folder / "beyond"))
            }
            for name, ask in asked.items()
        }
    correct = sum(run.rows[index]["prediction"] == int(test.labels[index]) for index in run.rows)
    return {
        "accuracy": round(correct / len(test.pixels), 3),
        "claims": len(found.claims),
        "left_out": found.left_out,
        "median_radius": round(statistics.median(claim.radius for claim in found.claims), 6),
        **answers,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--timeout", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--here", action="store_true", help="the verifiers are installed in this environment")
    args = parser.parse_args()
    if not args.here:
        run_there("verifiers", PACKAGES)
    torch.set_num_threads(args.threads)
    train, test = (load_dataset(args.dataset, split=split) for split in ("train", "test"))
    data = grey(train, list(range(0, len(train), len(train) // TRAINING_IMAGES)))
    images = grey(test, list(range(0, len(test), len(test) // args.images))[: args.images])
    value = {}
    for build in (mlp, cnn):
        for name, loss in LOSSES.items():
            model = trained(build, loss, data)
            for bound, backward in (("intervals", "none"), ("optimised", "optimised")):
                value[f"{build.__name__}, {name}, {bound}"] = verified(model, images, args.timeout, backward)
                print(build.__name__, name, bound, value[f"{build.__name__}, {name}, {bound}"], flush=True)
    record(
        "verified_claims", "small_networks", value, seed=0, images=args.images, timeout=args.timeout, threads=args.threads, size=SIZE,
        training={"largest": LARGEST, "steps": STEPS, "batch_size": BATCH, "images": len(data.pixels)}, verifiers=PACKAGES[:2],
        command=f"python tests/benchmarks/verifiers.py --dataset path/to/mnist --images {args.images} --timeout {args.timeout} --threads {args.threads}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
