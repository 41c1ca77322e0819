"""How fast certification is on a device: a 32 px ResNet, and ViT-B/16 and ResNet-50 at 224 px; one JSON file.

    python tests/benchmarks/throughput.py --output runs/throughput.json           # the GPU if there is one
    python tests/benchmarks/throughput.py --output runs/throughput.json --dry     # seconds on a CPU: small networks, no figures to keep
    python tests/benchmarks/throughput.py --record --networks resnet-50 vit-b16   # into docs/results/hardware.json, of a CPU

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
from results import machine, record

from hf_smoothing import SmoothedClassifier
from hf_smoothing.certification import Draws, Execution, FixedRule, Pending, Votes, make_stream, vote_in_rounds
from hf_smoothing.certification.execution import probe_batch_size
from hf_smoothing.records import write_json


SIGMA = 0.5
FIXED_DRAWS = 100_100
SEQUENTIAL_DRAWS = 9_850
"""Mean draws per image for seven target radii up to 1.5 at n = 100,000 (docs/results/certification.json, 500 CIFAR-10 images)."""

RESET, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


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


def noise_speed(
    model: SmoothedClassifier, size: int, shape: tuple[int, ...], seconds: float, kernel: bool = True
) -> float:
    """Noisy copies per second, without any network; on a GPU by one kernel or, without it, by operations of torch."""
    stream = make_stream("grid", seed=0, shape=shape, device=model.device, sigma=SIGMA)
    if not kernel:
        stream._kernel_that_agrees = lambda: None
    images, out = torch.zeros(1, *shape, device=model.device), torch.empty(size, *shape, device=model.device)
    stream.noisy_copies(out, images, [Draws(0, 0, 0, size)])  # the first batch sets up kernels
    synchronize(model.device)
    count, began = 0, time.perf_counter()
    while count < 2 or time.perf_counter() - began < seconds:
        stream.noisy_copies(out, images, [Draws(0, count, 0, size)])
        synchronize(model.device)
        count += 1
    return count * size / (time.perf_counter() - began)


def reset_peak_memory(device: torch.device) -> None:
    """From here on; on Linux the kernel does it for the process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif RESET.exists():
        RESET.write_text("5", encoding="utf-8")


def peak_memory_mib(device: torch.device) -> int | None:
    """Of the device, or of the process on a CPU, libraries included; None where the system does not say it."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated() / 2**20)
    if not STATUS.exists():
        return None
    line = next(line for line in STATUS.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024)


def measure(model: SmoothedClassifier, name: str, seconds: float) -> dict[str, Any]:
    """All figures of one network."""
    shape = (3, *model.config.size)
    reset_peak_memory(model.device)
    wanted = Execution("bfloat16", channels_last="resnet" in name)
    execution, tried = probe_batch_size(model, shape, wanted, seconds=seconds / 10)
    certifying, forward, ratios = [], [], []
    for _ in range(3):  # in turns, so that what else the machine does falls on both
        certifying.append(certify_speed(model, execution, shape, seconds / 3))
        forward.append(forward_speed(model, execution, shape, seconds / 3))
        ratios.append(certifying[-1] / forward[-1])
    speed = statistics.median(certifying)
    size = execution.size_on(model.device)
    noise = noise_speed(model, size, shape, seconds / 10)
    gain = {}
    if model.device.type == "cuda":
        gain = {"noise_kernel_over_torch": round(noise / noise_speed(model, size, shape, seconds / 10, False), 2)}
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "resolution": list(shape),
        "batch_size": size,
        "images_per_second_by_batch_size": tried,
        "copies_per_second": round(speed, 2),
        "certify_over_forward": round(statistics.median(ratios), 3),
        "noise_share": round(speed / noise, 4),
        **gain,
        "peak_memory_mib": peak_memory_mib(model.device),
        "images_per_hour_at_n_100000": round(3600 * speed / FIXED_DRAWS, 1),
        "seconds_per_image_sequential": round(SEQUENTIAL_DRAWS / speed, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--output", type=Path)
    place.add_argument("--record", action="store_true", help="the figures of a CPU, into docs/results/hardware.json")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS | LARGE, help="all by default")
    parser.add_argument("--seconds", type=float, default=6.0, help="for each network (%(default)s)")
    parser.add_argument("--dry", action="store_true")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() and not args.dry else "cpu")
    networks = {"resnet-small": NETWORKS["resnet-small"]} if args.dry else NETWORKS | LARGE
    if args.networks:
        networks = {name: (NETWORKS | LARGE)[name] for name in args.networks}
    found = {}
    for name, build in networks.items():
        found[name] = measure(build().to(device).eval(), name, 0.5 if args.dry else args.seconds)
        print(name, found[name], flush=True)
    if args.record:
        if device.type != "cpu":
            parser.error("`--record` keeps the figures of a CPU; write those of a GPU with --output.")
        names = " ".join(networks)
        record(
            "hardware", "cpu", found, seed=0, sigma=SIGMA, dtype="bfloat16", threads=torch.get_num_threads(),
            command=f"python tests/benchmarks/throughput.py --record --networks {names} --seconds {args.seconds:g}",
        )  # fmt: skip
        return
    args.output.parent.mkdir(parents=True, exist_ok=True)
    where = machine() if device.type == "cpu" else torch.cuda.get_device_name()
    write_json(
        args.output, {"machine": where, "sigma": SIGMA, "dtype": "bfloat16", "dry": args.dry, "networks": found}
    )


if __name__ == "__main__":
    main()
