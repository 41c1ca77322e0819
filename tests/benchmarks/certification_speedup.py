"""Certification beside the published loop and ART: draws, and time per draw."""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from certification_shared import ALPHA, SIGMA, TARGETS, keep, test_split
from certification_speed import certify_speeds

from hf_smoothing import PixelDataset, SmoothedClassifier, certify_dataset, read_run
from hf_smoothing.certification import Execution, SequentialRule, Votes


HERE = Path(__file__).resolve().parent


def published_loop(model: SmoothedClassifier, image: torch.Tensor, n: int, batch_size: int) -> float:
    """Seconds for one image the way the published script does it: float32, torch.randn, one image after another."""
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
    return time.perf_counter() - began


def art_seconds(args: argparse.Namespace, n: int) -> float | None:
    """Seconds for one image with ART, in an environment of its own that borrows this one's torch."""
    folder = HERE.parents[1] / ".venv-art"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "adversarial-robustness-toolbox==1.20.1", "statsmodels"], check=True)
        here = next(path for path in sys.path if path.endswith("site-packages"))
        borrowed = next(folder.glob("lib/python*/site-packages")) / "borrowed.pth"
        borrowed.write_text(f"{here}\n{HERE.parents[1]}\n")
    done = subprocess.run(
        [str(python), str(HERE / "art_certify.py"), args.model, str(n), str(SIGMA), str(ALPHA)], capture_output=True, text=True, check=False
    )  # fmt: skip
    if done.returncode:
        print(f"ART could not be measured:\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    return float(done.stdout.split()[-1])


def speedups(args: argparse.Namespace) -> None:
    """(b, c) The whole table of a paper, against the published loop and ART; draws per image by mode."""
    model = SmoothedClassifier.from_pretrained(args.model).to(args.device).eval()
    data = PixelDataset(test_split(args.data), 32, id2label=model.config.id2label)
    count, n = (5, 5_000) if args.quick else (500, 100_000)
    targets = TARGETS[:-2] if args.quick else TARGETS  # the last are out of reach of few draws
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if args.quick else Path(args.runs) / "bench-seven-radii"
        if (folder / "run.json").exists() and len(read_run(folder).rows) == count:
            run = read_run(folder)  # its votes serve any rule that stops no later
        else:
            run = certify_dataset(
                model, data, folder, sigma=SIGMA, targets=targets, n=n, alpha=ALPHA, indices=range(0, 20 * count, 20), dtype="bfloat16",
                channels_last=True, description={"model": {"id": args.model}, "dataset": {"id": "cifar10", "split": "test"}},
            )  # fmt: skip
    rule = SequentialRule(SIGMA, targets, n=n, alpha=ALPHA)
    draws = count * replayed_draws(rule, run)
    execution = Execution("bfloat16", channels_last=True, compile=not args.quick, copies_per_batch=128)
    images = (data[20 * (k % count)]["pixel_values"].float() / 255 for k in itertools.count())
    rounds = certify_speeds(model, execution, "grid", rule, images)
    image = data[0]["pixel_values"].float().to(args.device) / 255
    trial = {size: published_loop(model, image, 4 * size - 100, size) / (4 * size) for size in (400, 1000)}
    best = min(trial, key=trial.__getitem__)
    for _ in range(3):
        next(rounds)
    ratios, speeds = [], {"ours": [], "published loop": []}
    for _ in range(2 if args.quick else 15):  # in turns, so that what else the machine does falls on both
        ours = [next(rounds) for _ in range(1 if args.quick else 3)]
        speeds["ours"].append(statistics.mean(ours))
        timed = 1_900 if args.quick else 5_900
        speeds["published loop"].append((100 + timed) / published_loop(model, image, timed, best))
        ratios.append(speeds["ours"][-1] / speeds["published loop"][-1])
    faster = statistics.median(ratios)
    facts = {
        "images": count, "n": n, "sigma": SIGMA, "radii": targets, "alpha": ALPHA, "our_mean_draws": round(draws / count, 1),
        "our_dtype": "bfloat16", "our_compiled": execution.compile, "our_noise": run.settings["noise_kind"],
        "our_batch_size": execution.copies_per_batch,
    }  # fmt: skip
    name = "resnet-small, CIFAR-10"
    fewer = (n + 100) * count / draws
    keep(
        "speedup_over_published_loop", name, round(faster * fewer, 1), args, **facts, fewer_draws=round(fewer, 2),
        faster_per_draw=round(faster, 2), faster_per_draw_quartiles=np.quantile(ratios, [0.25, 0.75]).round(2).tolist(),
        copies_per_second={key: round(statistics.median(found)) for key, found in speeds.items()}, pairs=len(ratios),
        baseline="float32, one image after another, 100 + n copies each; time a copy from the copies timed", baseline_batch_size=best,
    )  # fmt: skip
    if not args.quick and not args.no_art:
        before = statistics.median(next(rounds) for _ in range(5))
        seconds = art_seconds(args, n)
        if seconds is not None:
            after = statistics.median(next(rounds) for _ in range(5))
            keep(
                "speedup_over_art", name, round((before + after) / 2 * seconds / (draws / count), 1), args, **facts,
                baseline="adversarial-robustness-toolbox 1.20.1, float32, the better batch size of 32 and 400", baseline_images_timed=1,
                baseline_seconds_per_image=round(seconds, 2), copies_per_second=[round(before), round(after)],
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
    """Mean draws per image that a rule would have made: the counts at the looks of a longer run decide where it stops."""
    total = 0
    for row in run.rows.values():
        whole = [np.array([look.get(str(k), 0) for k in range(10)]) for look in row["counts_by_look"]]
        votes = Votes(row["index"])
        while rule.wanted(votes) > votes.drawn:
            if len(votes.counts_by_look) == len(whole):  # the rule would have gone on where the run stopped
                votes.drawn = rule.stage_ends[-1]
                break
            end = rule.stage_ends[len(votes.counts_by_look)]
            votes.add(whole[len(votes.counts_by_look)], votes.drawn, end, opens_look=True)
        total += votes.drawn
    return round(total / len(run.rows), 1)
