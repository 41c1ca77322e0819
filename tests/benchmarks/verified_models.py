"""The certificates beside the published l-infinity networks before auto_LiRPA: docs/results/verified_claims.json.

    python tests/benchmarks/verified_models.py --cifar10 path/to/cifar10 --mnist path/to/mnist [--claims 1000] [--threads 1]

Each claim of their records is put to its intervals, what these leave open to its CROWN-IBP, and what that leaves open to its CROWN. It is installed
into `.venv-verifiers` from the package index. Its bounds can confirm a claim and never refute one; the attacks beside the cards look for that.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from environments import ROOT, run_there
from results import record
from torch import Tensor, nn

from hf_smoothing import PixelDataset, SmoothedClassifier
from hf_smoothing.interval.export import box_inside
from hf_smoothing.interval.export.claims import claims_of
from hf_smoothing.records import Run, read_run
from model_cards.linf import LINF
from tests.benchmarks.verifiers import PACKAGES
from tests.support.verifiers import Logits, lirpa_bounds


METHODS = {"IBP": 50, "CROWN-IBP": 50, "CROWN": 4}
"""Bounds of auto_LiRPA, from the cheapest to the dearest, and how many images at once."""


class Base(nn.Module):
    """The network behind the wrapper, of normalised pixels: auto_LiRPA 0.3 does not bound a division by constants of another shape."""

    def __init__(self, model: SmoothedClassifier) -> None:
        super().__init__()
        self.network = model.base_network

    def forward(self, pixels: Tensor) -> Any:
        return self.network(pixel_values=pixels)


def normalised_box(model: SmoothedClassifier, pixels: Tensor, radius: float) -> Tensor:
    """Lower and upper ends of a claim's box, normalised, (2, channels, height, width); no smaller than the claim in float32."""
    mean, std = (
        torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)
        for values in (model.config.image_mean, model.config.image_std)
    )
    ends = [((end - mean) / std).float() for end in box_inside(pixels.double() / 255, radius)]
    return torch.stack([torch.nextafter(end, torch.tensor(sign)) for end, sign in zip(ends, (-9.0, 9.0), strict=True)])


def put(name: str, run: Run, dataset: Any, count: int) -> dict[str, Any]:
    """How many claims of a network each kind of bounds confirms."""
    model = SmoothedClassifier.from_pretrained(ROOT / "model_cards" / name).eval()
    claims, left_out = claims_of(run, max_claims=count)
    decoded = PixelDataset(dataset, model).decode(indices=[claim.index for claim in claims], progress=False)
    predictions = torch.tensor([claim.prediction for claim in claims])
    network, waiting, confirmed = Logits(Base(model)), torch.arange(len(claims)), {}
    for method, batch in METHODS.items():
        worst = []
        for some in waiting.split(batch) if len(waiting) else ():
            boxes = [normalised_box(model, decoded.pixels[k], claims[k].radius) for k in some.tolist()]
            lower, upper = torch.stack(boxes, 1)
            worst += [lirpa_bounds(network, lower, upper, predictions[some], model.config.num_labels, method)]
        proved = torch.cat([torch.empty(0), *worst]) > 0.0
        confirmed[method] = int(proved.sum())
        waiting = waiting[~proved]
        print(f"{name}, {method}: {confirmed[method]} confirmed, {len(waiting)} open", flush=True)
    return {
        "bounds": run.settings["rule"].get("backward", "none"),
        "claims": len(claims),
        "without_claim": left_out,
    } | {
        "confirmed": confirmed,
        "open": [claims[k].index for k in waiting.tolist()],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", required=True)
    parser.add_argument("--mnist", required=True)
    parser.add_argument("--claims", type=int, default=1_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--here", action="store_true", help="auto_LiRPA is installed in this environment")
    args = parser.parse_args()
    if not args.here:
        run_there("verifiers", PACKAGES)
    torch.set_num_threads(args.threads)
    folders = {"cifar10": args.cifar10, "mnist": args.mnist}
    value = {}
    for name in LINF:
        run = read_run(Path(ROOT) / "model_cards" / name / "records" / "linf")
        about = run.settings["dataset"]
        value[name] = put(name, run, load_dataset(folders[about["id"]], split=about["split"]), args.claims)
    record(
        "verified_claims", "published_networks", value, seed=None, threads=args.threads, verifiers=PACKAGES[1:2],
        command=f"python tests/benchmarks/verified_models.py --cifar10 path/to/cifar10 --mnist path/to/mnist --claims {args.claims} --threads {args.threads}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
