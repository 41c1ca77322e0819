"""Certification beside the published loop and ART: draws, and time per draw."""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from certification_shared import ALPHA, SIGMA, TARGETS, every_20th, keep, name_of, small_classifier
from certification_speed import certify_speeds
from environments import borrowing_python

from hf_smoothing import PixelDataset, SmoothedClassifier, allocator, certify_dataset
from hf_smoothing.certification import Execution, SequentialRule, Votes


sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from model_cards.parts import read_parts


HERE = Path(__file__).resolve().parent


def published_loop(model: SmoothedClassifier, image: torch.Tensor, n: int, batch_size: int) -> float:
    """Seconds for one image the way the published script does it: float32, torch.randn, one image after another.

    The C library gives freed memory back by its usual thresholds, as in a process of its own, though our rounds between keep it.
    """
    allocator.tell(allocator.USUAL)
    began = time.perf_counter()
    counts = np.zeros(10, dtype=int)
    with torch.no_grad():
        left = 100 + n
        while left > 0:
            size = min(batch_size, left)
            left -= size
            batch = image.repeat((size, 1, 1, 1))
            noise = torch.randn_like(batch) * SIGMA
            for label in model.classify(batch + noise).argmax(1).cpu().numpy():
                counts[label] += 1
    seconds = time.perf_counter() - began
    allocator.tell(allocator.KEEPING)
    return seconds


LOOP_BATCHES = (50, 100, 200, 400, 1000, 2000)
ART_BATCHES = (32, 100, 200, 400, 1000)
"""Batch sizes that are tried for each; the best is the baseline."""

ART_IMAGES, ART_COPIES = 10, 10_000
"""Images that ART certifies, and copies of each: its time is in proportion to them, whatever the votes."""


def art_seconds(model: str, images: Any) -> dict[str, Any] | None:
    """Seconds per copy of each image with ART, in an environment of its own that borrows this one's torch.

    Args:
        model: Folder of the classifier.
        images: Float tensor (images, 3, 32, 32), values in [0, 1].

    Returns:
        A dictionary {"batch_size": the best of `ART_BATCHES`, "seconds_per_copy": one for each image}; None if ART cannot run.
    """
    python = borrowing_python("art", ["adversarial-robustness-toolbox==1.20.1", "statsmodels"])
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "images.npy"
        np.save(file, images.cpu().numpy())
        words = [model, str(file), str(ART_COPIES), str(SIGMA), str(ALPHA), *map(str, ART_BATCHES)]
        done = subprocess.run(
            [str(python), str(HERE / "art_certify.py"), *words], capture_output=True, text=True, check=False
        )
    if done.returncode:
        print(f"ART could not be measured:\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def speedups(args: argparse.Namespace) -> None:
    """(b, c) The whole table of a paper, against the published loop and ART; draws per image by mode."""
    path = small_classifier(args)
    model = SmoothedClassifier.from_pretrained(path).to(args.device).eval()
    data = PixelDataset(every_20th(args), 32, id2label=model.config.id2label)
    count, n = (5, 5_000) if args.quick else (500, 100_000)
    targets = TARGETS[:-2] if args.quick else TARGETS  # the last are out of reach of few draws
    made = Path(args.runs) / f"bench-seven-radii-{Path(path).name}"
    # The records beside a classifier of model_cards serve as well: votes serve any rule that stops no later.
    places = (Path(path) / "records" / f"sigma-{SIGMA}", made)
    found = [read_parts(place) for place in places if any(place.rglob("run.json"))]
    run = next((one for one in found if len(one.rows) == count), None) if not args.quick else None
    if run is None:
        with tempfile.TemporaryDirectory() as temporary:
            run = certify_dataset(
                model, data, Path(temporary) if args.quick else made, sigma=SIGMA, targets=targets, n=n, alpha=ALPHA, indices=range(count),
                dtype="bfloat16", channels_last=True,
                description={"model": {"id": Path(path).name}, "dataset": {"id": "cifar10", "split": "test"}},
            )  # fmt: skip
    rule = SequentialRule(SIGMA, targets, n=n, alpha=ALPHA)
    draws = count * replayed_draws(rule, run)
    execution = Execution("bfloat16", channels_last=True, compile=not args.quick, copies_per_batch=128)
    images = (data[k % count]["pixel_values"].float() / 255 for k in itertools.count())
    rounds = certify_speeds(model, execution, "grid", rule, images)
    # Ten images, spread over the test images.
    few = torch.stack([data[k * len(data) // ART_IMAGES]["pixel_values"] for k in range(ART_IMAGES)]).to(args.device)
    few = few.float() / 255
    sizes, copies = (LOOP_BATCHES[1:4:2], 800) if args.quick else (LOOP_BATCHES, 4_000)
    trial = {size: published_loop(model, few[0], copies - 100, size) / copies for size in sizes}
    best = min(trial, key=trial.__getitem__)
    for _ in range(3):
        next(rounds)
    ratios, speeds = [], {"ours": [], "published loop": []}
    for k in range(2 if args.quick else 20):  # in turns, so that what else the machine does falls on both
        ours = [next(rounds) for _ in range(1 if args.quick else 3)]
        speeds["ours"].append(statistics.mean(ours))
        timed = 1_900 if args.quick else 5_900
        speeds["published loop"].append((100 + timed) / published_loop(model, few[k % ART_IMAGES], timed, best))
        ratios.append(speeds["ours"][-1] / speeds["published loop"][-1])
    faster = statistics.median(ratios)
    facts = {
        "images": count, "n": n, "sigma": SIGMA, "radii": targets, "alpha": ALPHA, "our_mean_draws": round(draws / count, 1),
        "our_dtype": "bfloat16", "our_compiled": execution.compile, "our_noise": run.settings["noise_kind"],
        "our_batch_size": execution.copies_per_batch,
    }  # fmt: skip
    name = f"{'resnet-small' if args.model is None else Path(path).name}, {name_of(args)}"
    fewer = (n + 100) * count / draws
    keep(
        "speedup_over_published_loop", name, round(faster * fewer, 1), args, **facts, fewer_draws=round(fewer, 2),
        faster_per_draw=round(faster, 2), faster_per_draw_quartiles=np.quantile(ratios, [0.25, 0.75]).round(2).tolist(),
        copies_per_second={key: round(statistics.median(found)) for key, found in speeds.items()}, pairs=len(ratios),
        baseline="float32, one image after another, 100 + n copies each; time a copy from the copies timed", baseline_batch_size=best,
        baseline_batch_sizes_tried=list(sizes), baseline_images_timed=min(len(ratios), ART_IMAGES),
    )  # fmt: skip
    aware = replayed_draws(SequentialRule(SIGMA, targets, n0=0, n=n, alpha=ALPHA, label_aware=True), run)
    keep(
        "speedup_label_aware", name, round(faster * (n + 100) / aware, 1), args, **facts, label_aware_mean_draws=aware,
        fewer_draws=round((n + 100) / aware, 2), faster_per_draw=round(faster, 2),
    )  # fmt: skip
    if not args.quick and not args.no_art:
        before = statistics.median(next(rounds) for _ in range(5))
        art = art_seconds(path, few)
        if art is not None:
            after = statistics.median(next(rounds) for _ in range(5))
            each = [(n + 100) * seconds for seconds in art["seconds_per_copy"]]
            faster = [(before + after) / 2 * seconds / (draws / count) for seconds in each]
            keep(
                "speedup_over_art", name, round(statistics.mean(faster), 1), args, **facts,
                baseline=f"adversarial-robustness-toolbox 1.20.1, float32, 100 + n copies of each image; time a copy from {ART_COPIES:,} copies",
                baseline_batch_size=art["batch_size"], baseline_batch_sizes_tried=list(ART_BATCHES), baseline_images_timed=ART_IMAGES,
                baseline_seconds_per_image=[round(seconds, 2) for seconds in each], speedup_by_image=[round(ratio, 1) for ratio in faster],
                copies_per_second=[round(before), round(after)],
            )  # fmt: skip
    modes = {
        "seven radii, union bound": SequentialRule(SIGMA, targets, n=n),
        "seven radii, error spending": SequentialRule(SIGMA, targets, n=n, spending=True),
        "single radius 0.5, union bound": SequentialRule(SIGMA, (0.5,), n=n),
        "single radius 0.5, error spending": SequentialRule(SIGMA, (0.5,), n=n, spending=True),
    }
    means = {key: replayed_draws(rule, run) for key, rule in modes.items()}
    shared = {"mean_draws": means, "fixed_draws": n + 100, "images": count, "n": n, "sigma": SIGMA, "alpha": ALPHA}
    keep("draws_ratio_seven_radii", name, round((n + 100) / means["seven radii, union bound"], 2), args, **shared)
    keep(
        "draws_ratio_single_radius",
        name,
        round((n + 100) / means["single radius 0.5, union bound"], 2),
        args,
        **shared,
    )


def replayed_draws(rule: SequentialRule, run: Any) -> float:
    """Mean draws per image that a rule would have made: the counts at the looks of a longer run decide where it stops.

    A rule without a selection is replayed on the estimation draws, which come after the run's own. Where it would have gone on after the
    run had stopped, all `n` draws are counted.
    """
    total = 0
    for row in run.rows.values():
        whole = [np.array([look.get(str(k), 0) for k in range(10)]) for look in row["counts_by_look"]]
        if not rule.n0:
            whole = whole[1:]
        votes = Votes(row["index"], label=row["label"])
        while rule.wanted(votes) > votes.drawn:
            if len(votes.counts_by_look) == len(whole):  # the rule would have gone on where the run stopped
                votes.drawn = rule.stage_ends[-1]
                break
            end = rule.stage_ends[len(votes.counts_by_look)]
            votes.add(whole[len(votes.counts_by_look)], votes.drawn, end, opens_look=True)
        total += votes.drawn
    return round(total / len(run.rows), 1)
