"""Figures of certification, written to docs/results/certification.json: `make bench-certification`.

Speeds are ratios within one run, taken in turns, since machines are shared and noisy. `--quick` (under two minutes) prints
the figures of a small workload and writes nothing. The speedups need a classifier of CIFAR-10 (`--model`) and the data set
(`--data`); the command that made the model is in docs/certification.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import NETWORKS
from results import FOLDER, machine, record

from hf_smoothing import PixelDataset, SmoothedClassifier, certify, certify_dataset, read_run
from hf_smoothing.certification import Draws, Execution, FixedRule, SequentialRule, Votes, make_stream, vote_in_rounds
from hf_smoothing.certification.execution import probe_batch_size
from hf_smoothing.statistics import certified_accuracy


HERE = Path(__file__).resolve().parent
COMMAND = "make bench-certification"
TARGETS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
SIGMA, ALPHA = 0.5, 0.001


def keep(figure: str, model: str, value: float, args: argparse.Namespace, **facts: Any) -> None:
    """Print a figure, and unless in a hurry write it under its model and device, beside those of others."""
    device = args.device if args.device == "cpu" else torch.cuda.get_device_name()
    print(
        f"{figure}  {model}  {device}: {value}",
        *(f"    {key} = {fact}" for key, fact in facts.items()),
        sep="\n",
        flush=True,
    )
    if args.quick:
        return
    file = FOLDER / "certification.json"
    known = json.loads(file.read_text(encoding="utf-8")).get(figure, {}) if file.exists() else {}
    values, details = known.get("value", {}), known.get("details", {})
    values.setdefault(model, {})[device] = value
    details.setdefault(model, {})[device] = facts | {"machine": machine(), "threads": torch.get_num_threads()}
    record("certification", figure, values, seed=0, command=COMMAND, details=details)


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
    pending = ((Votes(index), image) for index, image in enumerate(images))
    rounds = vote_in_rounds(model, pending, rule, stream, execution=execution)
    known: dict[int, int] = {}
    while True:
        began = time.perf_counter()
        drawn = 0
        for votes in next(rounds):
            drawn += votes.drawn - known.get(votes.index, 0)
            known[votes.index] = votes.drawn
        yield drawn / (time.perf_counter() - began)


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
    data = PixelDataset(_test_split(args.data), 32, id2label=model.config.id2label)
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


def accuracy_difference(args: argparse.Namespace) -> None:
    """(b) Certified accuracy by the sequential rules and by fixed n from the same draws of a real, if tiny, classifier."""
    images, labels = _pixels(args, "test")
    network = tiny_classifier(args)
    count, n = (20, 2_000) if args.quick else (2_000, 100_000)
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

        sigma, alpha, bounds = SIGMA, ALPHA, rules["union bound"].bounds

        def wanted(self, votes: Votes) -> int:
            return self.bounds[-1]

    stream = make_stream("grid", seed=0, shape=(3, 16, 16), device=torch.device(args.device), sigma=SIGMA)
    pending = (
        (Votes(index, int(label)), image) for index, (image, label) in enumerate(zip(images, labels, strict=True))
    )
    found: dict[str, dict[int, tuple[int, float, int]]] = {key: {} for key in ("fixed", *rules)}
    kept = np.zeros((count, len(Both.bounds), 10), dtype=np.int32)
    for touched in vote_in_rounds(network, pending, Both(), stream, execution=Execution(copies_per_batch=256)):  # type: ignore[arg-type]
        for votes in touched:
            if votes.drawn < Both.bounds[-1]:
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
            "MLP on CIFAR-10 at 16 px", round(float(np.abs(curves[key] - curves["fixed"]).max()), 3), args,
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


def memory_ratio(args: argparse.Namespace) -> None:
    """(d) Peak memory of a process that certifies two images at n = 100,000 over that at n = 1,000, with the small network."""
    peak = {n: int(_child("memory", str(n))) for n in (1_000, 4_000 if args.quick else 100_000)}
    values = list(peak.values())
    keep("peak_memory_ratio_n100k_over_n1k", "resnet-small", round(values[1] / values[0], 3), args, peak_kib=peak)


def two_ranks(args: argparse.Namespace) -> None:
    """(e) Speed of two ranks over one, one thread each, on images that need different numbers of draws."""
    seconds = {1: [], 2: []}
    for _ in range(1 if args.quick else 2):
        for ranks, found in seconds.items():
            found.append(float(_child("ranks", "200" if args.quick else "2000", args.model, args.data, ranks=ranks)))
    best = {ranks: statistics.median(found) for ranks, found in seconds.items()}
    keep("two_ranks_over_one", "resnet-small", round(best[1] / best[2], 3), args, seconds=seconds, threads_per_rank=1)


def _child(what: str, *words: str, ranks: int = 1) -> str:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"} | ({"OMP_NUM_THREADS": "1"} if what == "ranks" else {})
    command = [sys.executable, *launcher, str(HERE / "certification.py"), "--child", what, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return next(line for line in done.stdout.splitlines() if line.startswith("RESULT")).split()[1]


def child(what: str, words: list[str]) -> None:
    """What a figure does in a process of its own."""
    if what == "memory":
        model = NETWORKS["resnet-small"]().eval()
        certify(model, torch.rand(2, 3, 32, 32), sigma=SIGMA, mode="fixed", n=int(words[0]), seed=0)
        print("RESULT", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    n, path, data = words
    model = SmoothedClassifier.from_pretrained(path).eval()
    pixels = PixelDataset(_test_split(data), 32, id2label=model.config.id2label)
    from accelerate.utils import broadcast_object_list

    from hf_smoothing.certification import process_state

    state = process_state(cpu=True)
    folder = [tempfile.mkdtemp()]
    if state.num_processes > 1:
        broadcast_object_list(folder)
    began = time.perf_counter()
    certify_dataset(
        model, pixels, folder[0], sigma=SIGMA, targets=(0.0, 0.5), n=int(n), indices=range(0, 1200, 20), dtype="bfloat16",
        channels_last=True, copies_per_batch=64, progress=False,
    )  # fmt: skip
    if state.is_main_process:
        print("RESULT", time.perf_counter() - began)


def _test_split(folder: str) -> Any:
    from datasets import load_dataset

    return load_dataset(folder, split="test")


def _pixels(args: argparse.Namespace, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    from datasets import load_dataset

    part = f"{split}[:500]" if args.quick else split
    decoded = PixelDataset(load_dataset(args.data, split=part), 16).decode(progress=False)
    assert decoded.labels is not None
    return decoded.pixels.float() / 255, decoded.labels


FIGURES = {
    "forward": certify_over_forward, "memory": memory_ratio, "ranks": two_ranks, "accuracy": accuracy_difference,
    "speedups": speedups,
}  # fmt: skip


def main() -> None:
    """Measure the figures named on the command line, all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", nargs="*", help=f"of {', '.join(FIGURES)}; all by default")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--no-art", action="store_true", help="leave out the comparison with ART, which installs it")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--model", default="runs/cifar-mixture", help="a SmoothedClassifier of CIFAR-10")
    parser.add_argument("--data", default="../shared/data/cifar10", help="CIFAR-10 as a folder of parquet files")
    parser.add_argument("--runs", default="runs", help="where the run folders go")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child[0], args.child[1:])
        return
    for name in args.figures or FIGURES:
        FIGURES[name](args)


if __name__ == "__main__":
    main()
