"""Certified accuracy of the sequential rules beside that of fixed n."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from certification_shared import ALPHA, SIGMA, TARGETS, keep, name_of, pixels_of

from hf_smoothing import PixelDataset
from hf_smoothing.certification import (
    Execution,
    FixedRule,
    Pending,
    SequentialRule,
    Votes,
    make_stream,
    vote_in_rounds,
)
from hf_smoothing.statistics import certified_accuracy


def accuracy_difference(args: argparse.Namespace) -> None:
    """(b) Certified accuracy by the sequential rules and by fixed n from the same draws of a real, if tiny, classifier."""
    images, labels = _pixels(args, "test")
    network = tiny_classifier(args)
    count, n = (20, 2_000) if args.quick else (min(2_000, len(images)), 100_000)
    images, labels = images[:: len(images) // count][:count], labels[:: len(labels) // count][:count]
    targets = TARGETS[:-2] if args.quick else TARGETS  # the last are out of reach of few draws
    rules = {
        "union bound": SequentialRule(SIGMA, targets, n=n),
        "error spending": SequentialRule(SIGMA, targets, n=n, spending=True),
    }
    targets = rules["union bound"].targets
    fixed = FixedRule(SIGMA, n=n)

    class Both:
        """Asks for all draws, cut at the looks, so that every rule can be read off the same votes."""

        sigma, alpha, stage_ends = SIGMA, ALPHA, rules["union bound"].stage_ends

        def wanted(self, votes: Votes) -> int:
            return self.stage_ends[-1]

    stream = make_stream("grid", seed=0, shape=(3, 16, 16), device=torch.device(args.device), sigma=SIGMA)
    pending = (
        Pending(Votes(index, int(label)), image)
        for index, (image, label) in enumerate(zip(images, labels, strict=True))
    )
    found: dict[str, dict[int, tuple[int, float, int]]] = {key: {} for key in ("fixed", *rules)}
    kept = np.zeros((count, len(Both.stage_ends), 10), dtype=np.int32)
    for touched in vote_in_rounds(network, pending, Both(), stream, execution=Execution(copies_per_batch=256)):  # type: ignore[arg-type]
        for votes in touched:
            if votes.drawn < Both.stage_ends[-1]:
                continue
            kept[votes.index] = np.stack(votes.counts_by_look)
            whole = Votes(
                votes.index,
                votes.label,
                [votes.counts_by_look[0], np.sum(votes.counts_by_look[1:], axis=0)],
                votes.drawn,
            )
            made = fixed.decide(whole)
            found["fixed"][votes.index] = (made.prediction, made.radius, made.draws)
            for key, rule in rules.items():
                stopped = Votes(votes.index, votes.label)
                while rule.wanted(stopped) > stopped.drawn:
                    k = len(stopped.counts_by_look)
                    stopped.add(votes.counts_by_look[k], stopped.drawn, rule.stage_ends[k], opens_look=True)
                made = rule.decide(stopped)
                found[key][votes.index] = (made.prediction, made.radius, made.draws)
    if not args.quick:
        np.savez_compressed(Path(args.runs) / "bench-votes.npz", votes=kept, labels=labels.numpy())
    curves = {
        key: 100 * certified_accuracy(
            [rows[i][0] for i in range(count)], labels.tolist(), [rows[i][1] for i in range(count)], targets
        ).accuracy
        for key, rows in found.items()
    }  # fmt: skip
    for key in rules:
        keep(
            "max_accuracy_difference_points" if key == "union bound" else "max_accuracy_difference_points_error_spending",
            f"MLP on {name_of(args)} at 16 px", round(float(np.abs(curves[key] - curves["fixed"]).max()), 3), args,
            radii=targets, fixed=curves["fixed"].round(2).tolist(), sequential=curves[key].round(2).tolist(), images=count, n=n,
            mean_draws=round(float(np.mean([row[2] for row in found[key].values()])), 1), sigma=SIGMA, alpha=ALPHA, noise="grid",
        )  # fmt: skip


def tiny_classifier(args: argparse.Namespace) -> Callable[[torch.Tensor], torch.Tensor]:
    """A two-layer network on pooled pixels, trained with noise: fast enough for hundreds of millions of votes."""
    images, labels = _pixels(args, "train")
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.AvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(192, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10)
    ).to(args.device)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    generator = torch.Generator(args.device).manual_seed(0)
    epochs = 1 if args.quick else 10
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - epoch / epochs)
        for chosen in torch.randperm(len(images), generator=torch.Generator().manual_seed(epoch)).split(256):
            batch = images[chosen].to(args.device)
            noisy = batch + 0.25 * torch.randn(batch.shape, generator=generator, device=args.device)
            loss = torch.nn.functional.cross_entropy(network(noisy), labels[chosen].to(args.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


def _pixels(args: argparse.Namespace, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    decoded = PixelDataset(pixels_of(args, split, 500 if args.quick else None), 16).decode(progress=False)
    assert decoded.labels is not None
    return decoded.pixels.float() / 255, decoded.labels
