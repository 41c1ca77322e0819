"""How much of the network's own speed certification keeps."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from certification_shared import ALPHA, SIGMA, keep
from networks import NETWORKS

from hf_smoothing import SmoothedClassifier
from hf_smoothing.certification import Draws, Execution, FixedRule, Pending, Votes, make_stream, vote_in_rounds
from hf_smoothing.certification.execution import probe_batch_size


def fast(args: argparse.Namespace, name: str) -> Execution:
    """The recommended way to run a network: bfloat16, and channels_last for convolutions."""
    return Execution("bfloat16", channels_last=name.startswith("resnet"))


@torch.inference_mode()
def forward_speed(model: SmoothedClassifier, execution: Execution, seconds: float) -> float:
    """Images a second of the bare network, on one batch that never changes."""
    batch = torch.rand(execution.size_on(model.device), 3, 32, 32, device=model.device)
    if execution.channels_last:
        batch = batch.contiguous(memory_format=torch.channels_last)
    with execution.prepare(model) as classify:
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            with execution.autocast(model.device):
                logits = classify(batch)
            if model.device.type != "cpu" and count % 20 == 19:
                torch.cuda.synchronize()
            count += 1
        logits.sum().item()
        return count * len(batch) / (time.perf_counter() - began)


def certify_speeds(
    model: SmoothedClassifier,
    execution: Execution,
    noise: str,
    rule: Any = None,
    images: Iterable[torch.Tensor] | None = None,
) -> Iterator[float]:
    """Noisy copies per second of one round after another, from clean images to counted votes and decisions."""
    if images is None:
        images = torch.randint(0, 256, (500, 3, 32, 32), generator=torch.Generator().manual_seed(0)).float() / 255
    rule = rule or FixedRule(SIGMA, n=100_000, alpha=ALPHA)
    stream = make_stream(noise, seed=0, shape=(3, 32, 32), device=model.device, sigma=SIGMA)
    pending = (Pending(Votes(index), image) for index, image in enumerate(images))
    rounds = vote_in_rounds(model, pending, rule, stream, execution=execution)
    known: dict[int, int] = {}
    while True:
        began = time.perf_counter()
        drawn = 0
        for votes in next(rounds):
            drawn += votes.drawn - known.get(votes.index, 0)
            known[votes.index] = votes.drawn
        yield drawn / (time.perf_counter() - began)


def rounds_speed(name: str, rounds: int = 4) -> float:
    """Noisy copies per second in a process of its own: the median of rounds of about a second, after as many that nothing is made of."""
    model = NETWORKS[name]().eval()
    execution = Execution("bfloat16", channels_last=name.startswith("resnet"))
    speeds = certify_speeds(model, execution, "grid")
    return statistics.median([next(speeds) for _ in range(2 * rounds)][rounds:])


def noise_speed(model: SmoothedClassifier, size: int, kind: str, seconds: float) -> float:
    """Noisy copies per second, without any network."""
    stream = make_stream(kind, seed=0, shape=(3, 32, 32), device=model.device, sigma=SIGMA)
    images, out = torch.zeros(1, 3, 32, 32, device=model.device), torch.empty(size, 3, 32, 32, device=model.device)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        stream.noisy_copies(out, images, [Draws(0, 0, count % 1000 * size, (count % 1000 + 1) * size)])
        count += 1
    out.sum().item()
    return count * size / (time.perf_counter() - began)


def certify_over_forward(args: argparse.Namespace) -> None:
    """(a) How much of the network's own speed certification keeps, and what the noise costs."""
    for name, build in NETWORKS.items():
        model = build().to(args.device).eval()
        execution, speeds = probe_batch_size(model, (3, 32, 32), fast(args, name), seconds=0.1 if args.quick else 1.0)
        shared = {
            "dtype": execution.dtype,
            "channels_last": execution.channels_last,
            "batch_size": execution.copies_per_batch,
        }
        cost = {}
        for kind in ("grid", "gaussian"):
            rounds, ratios, alone = certify_speeds(model, execution, kind), [], []
            for _ in range(2 if args.quick else 6):  # until the rounds have their length of about a second
                next(rounds)
            span = 0.4 if args.quick else 1.0
            forward = forward_speed(model, execution, span)
            for _ in range(2 if args.quick else 11):
                ours = next(rounds)
                before, forward = forward, forward_speed(model, execution, span)
                ratios.append(2 * ours / (before + forward))
                alone.append(forward / noise_speed(model, execution.size_on(model.device), kind, 0.2))
            figure = "certify_over_forward" + ("" if kind == "grid" else "_gaussian_noise")
            low, middle, high = (round(float(q), 3) for q in np.quantile(ratios, [0.25, 0.5, 0.75]))
            keep(
                figure,
                name,
                middle,
                args,
                quartiles=[low, high],
                rounds=len(ratios),
                noise=kind,
                probe=speeds,
                **shared,
            )
            cost[kind] = statistics.median(alone)
        keep(
            "grid_noise_cost", name, round(cost["grid"], 4), args, float32_noise_cost=round(cost["gaussian"], 4), **shared,
            unit="time to draw and add the noise of a copy, over the time of its forward pass",
        )  # fmt: skip
