"""How fast certification is on a device: a 32 px ResNet, and ViT-B/16 and ResNet-50 at 224 px; one JSON file.

    python tests/benchmarks/throughput.py --output runs/throughput.json           # the GPU if there is one
    python tests/benchmarks/throughput.py --output runs/throughput.json --dry     # seconds on a CPU: small networks, no figures to keep

For each network: the batch size found, copies per second of certification and of the bare forward pass in one run (their ratio is the
figure to compare), the share of the noise, peak memory, and what follows: images per hour at n = 100,000, and seconds per image by the
sequential rule at the mean number of draws that a real CIFAR-10 classifier needed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from networks import LARGE, NETWORKS
from results import machine

from hf_smoothing import SmoothedClassifier
from hf_smoothing.certification import Draws, Execution, FixedRule, Pending, Votes, make_stream, vote_in_rounds
from hf_smoothing.certification.execution import probe_batch_size
from hf_smoothing.records import write_json


SIGMA = 0.5
FIXED_DRAWS = 100_100
SEQUENTIAL_DRAWS = 9_850
"""Mean draws per image for seven target radii up to 1.5 at n = 100,000 (docs/results/certification.json, 500 CIFAR-10 images)."""


def synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


@torch.inference_mode()
def forward_speed(model: SmoothedClassifier, execution: Execution, shape: tuple[int, ...], seconds: float) -> float:
    """Images per second of the bare network, on one batch that never changes."""
    batch = torch.rand(execution.size_on(model.device), *shape, device=model.device)
    if execution.channels_last:
        batch = batch.contiguous(memory_format=torch.channels_last)
    with execution.prepare(model) as classify:
        count, began = 0, time.perf_counter()
        while count < 2 or time.perf_counter() - began < seconds:
            with execution.autocast(model.device):
                classify(batch)
            synchronize(model.device)
            count += 1
        return count * len(batch) / (time.perf_counter() - began)


def certify_speed(model: SmoothedClassifier, execution: Execution, shape: tuple[int, ...], seconds: float) -> float:
    """Copies per second of certification, from clean images to counted votes."""
    images = torch.randint(0, 256, (64, *shape), generator=torch.Generator().manual_seed(0)).float() / 255
    stream = make_stream("grid", seed=0, shape=shape, device=model.device, sigma=SIGMA)
    rule = FixedRule(SIGMA, n=FIXED_DRAWS - 100)
    rounds = vote_in_rounds(
        model, (Pending(Votes(k), x) for k, x in enumerate(images)), rule, stream, execution=execution
    )
    known: dict[int, int] = {}
    speeds, began = [], time.perf_counter()
    while len(speeds) < 3 or time.perf_counter() - began < seconds:
        start, drawn = time.perf_counter(), 0
        for votes in next(rounds):
            drawn += votes.drawn - known.get(votes.index, 0)
            known[votes.index] = votes.drawn
        speeds.append(drawn / (time.perf_counter() - start))
    return statistics.median(speeds[1:])


def noise_speed(model: SmoothedClassifier, size: int, shape: tuple[int, ...], seconds: float) -> float:
    """Noisy copies per second, without any network."""
    stream = make_stream("grid", seed=0, shape=shape, device=model.device, sigma=SIGMA)
    images, out = torch.zeros(1, *shape, device=model.device), torch.empty(size, *shape, device=model.device)
    count, began = 0, time.perf_counter()
    while count < 2 or time.perf_counter() - began < seconds:
        stream.noisy_copies(out, images, [Draws(0, count, 0, size)])
        synchronize(model.device)
        count += 1
    return count * size / (time.perf_counter() - began)


def measure(model: SmoothedClassifier, name: str, seconds: float) -> dict[str, Any]:
    """All figures of one network."""
    shape = (3, *model.config.size)
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    wanted = Execution("bfloat16", channels_last="resnet" in name)
    execution, tried = probe_batch_size(model, shape, wanted, seconds=seconds / 10)
    certifying, forward, ratios = [], [], []
    for _ in range(3):  # in turns, so that what else the machine does falls on both
        certifying.append(certify_speed(model, execution, shape, seconds / 3))
        forward.append(forward_speed(model, execution, shape, seconds / 3))
        ratios.append(certifying[-1] / forward[-1])
    speed = statistics.median(certifying)
    size = execution.size_on(model.device)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "resolution": list(shape),
        "batch_size": size,
        "images_per_second_by_batch_size": tried,
        "copies_per_second": round(speed),
        "certify_over_forward": round(statistics.median(ratios), 3),
        "noise_share": round(speed / noise_speed(model, size, shape, seconds / 10), 4),
        "peak_memory_mib": round(torch.cuda.max_memory_allocated() / 2**20) if model.device.type == "cuda" else None,
        "images_per_hour_at_n_100000": round(3600 * speed / FIXED_DRAWS, 1),
        "seconds_per_image_sequential": round(SEQUENTIAL_DRAWS / speed, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=6.0, help="for each network (%(default)s)")
    parser.add_argument("--dry", action="store_true")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() and not args.dry else "cpu")
    networks = {"resnet-small": NETWORKS["resnet-small"]} if args.dry else NETWORKS | LARGE
    found = {}
    for name, build in networks.items():
        found[name] = measure(build().to(device).eval(), name, 0.5 if args.dry else args.seconds)
        print(name, found[name], flush=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    where = machine() if device.type == "cpu" else torch.cuda.get_device_name()
    write_json(
        args.output, {"machine": where, "sigma": SIGMA, "dtype": "bfloat16", "dry": args.dry, "networks": found}
    )


if __name__ == "__main__":
    main()
