"""Figures of the main job, written to docs/results/main_job.json: `make benchmark`.

Speeds are ratios within one run, taken in pairs one after the other, since machines are shared and noisy.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from results import record
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments

from hf_smoothing import RobustTrainer, RobustTrainingArguments, SmoothedClassifier
from hf_smoothing.data import DecodedPixels
from hf_smoothing.records import read_run
from hf_smoothing.reports import measure


ROOT = Path(__file__).resolve().parents[2]
COMMAND = "make benchmark"
MIXTURE = '{"sigmas": [0, 1], "clean": 0.25, "distribution": "uniform"}'

_MEMORY = """
import resource, sys, torch
from transformers import ResNetConfig, ResNetForImageClassification
from hf_smoothing import certify
from hf_smoothing.models import SmoothedClassifier
torch.manual_seed(0)
config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", num_labels=10)
model = SmoothedClassifier.from_base_pretrained(
    ResNetForImageClassification(config), sigma=0.25, size=32, image_mean=[0.5] * 3, image_std=[0.25] * 3)
certify(model, torch.rand(2, 3, 32, 32), sigma=0.25, mode="fixed", n=int(sys.argv[1]), seed=0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def small_resnet() -> SmoothedClassifier:
    """The network of the embedded backbones, from scratch."""
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=32, hidden_sizes=[32, 64, 128, 256], depths=[1] * 4, layer_type="basic", num_labels=10
    )
    return SmoothedClassifier.from_base_pretrained(
        ResNetForImageClassification(config), sigma=0.25, size=32, model_size=64, image_mean=[0.5] * 3, image_std=[0.25] * 3
    )  # fmt: skip


def trainer_ratio(pairs: int, steps: int) -> None:
    """RobustTrainer with noise against the stock Trainer: images per second, same model, data and batch size."""
    pixels = torch.randint(0, 256, (4096, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = DecodedPixels(pixels, torch.arange(4096) % 10)
    shared = {
        "per_device_train_batch_size": 128, "max_steps": steps, "use_cpu": not torch.cuda.is_available(), "save_strategy": "no",
        "logging_steps": steps, "disable_tqdm": True, "seed": 0, "remove_unused_columns": False,
    }  # fmt: skip

    def seconds(trainer: Trainer) -> float:
        began = time.perf_counter()
        trainer.train()
        return time.perf_counter() - began

    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(pairs):
            plain = seconds(Trainer(small_resnet(), TrainingArguments(folder, **shared), train_dataset=data))
            noisy = RobustTrainingArguments(folder, noise=MIXTURE, **shared)
            ratios.append(plain / seconds(RobustTrainer(small_resnet(), noisy, train_dataset=data)))
    record(
        "main_job", "robust_trainer_over_plain_trainer", round(statistics.median(ratios[1:]), 3), seed=0, command=COMMAND,
        ratios=[round(r, 3) for r in ratios[1:]], warm_up_pairs=1, steps=steps, batch_size=128, threads=torch.get_num_threads(),
        noise=json.loads(MIXTURE), model="ResNet, widths 32-256, one basic block per stage, 32 px resized to 64, float32",
    )  # fmt: skip


def import_seconds(runs: int) -> None:
    """What `import hf_smoothing` adds to starting Python."""
    code = "import time; t = time.perf_counter(); import hf_smoothing; print(time.perf_counter() - t)"
    times = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(runs)]
    record(
        "main_job", "import_seconds", round(statistics.median(times), 4), seed=None, command=COMMAND,
        largest=round(max(times), 4), runs=runs,
    )  # fmt: skip


def memory_ratio() -> None:
    """Peak memory of a process that certifies two images, at n = 100,000 and at n = 1,000."""
    peak = {n: int(subprocess.check_output([sys.executable, "-c", _MEMORY, str(n)])) for n in (1_000, 100_000)}
    record(
        "main_job", "peak_memory_ratio_n100k_over_n1k", round(peak[100_000] / peak[1_000], 3), seed=0, command=COMMAND,
        peak_kib={str(n): kib for n, kib in peak.items()},
    )  # fmt: skip


def demo() -> None:
    """The table of `make demo`, and how long the demo takes once everything is installed."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        subprocess.run(["make", "demo", f"DEMO=--output-dir {folder}"], cwd=ROOT, check=True)
        seconds = time.perf_counter() - began
        rows = []
        for run in sorted(Path(folder).glob("*/run.json")):
            measured = measure(read_run(run.parent), thresholds=[0.0, 0.25, 0.5, 0.75, 1.0])
            rows.append(
                {
                    "model": measured.settings["model"]["id"],
                    "sigma": measured.settings["sigma"],
                    "radii": measured.curve.thresholds.tolist(),
                    "certified_accuracy": measured.curve.accuracy.tolist(),
                    "lower": measured.curve.lower.tolist(),
                    "upper": measured.curve.upper.tolist(),
                    "average_certified_radius": measured.average_radius,
                    "abstention_rate": measured.abstention,
                    "num_images": measured.curve.num_images,
                    "n": measured.settings["rule"]["n"],
                    "mean_draws": sum(row["draws"] for row in measured.run.rows.values()) / measured.curve.num_images,
                    "alpha": measured.settings["alpha"],
                }
            )
    record("main_job", "demo_certified_accuracy", rows, seed=0, command="make demo", confidence=0.95)
    record("main_job", "demo_seconds", round(seconds, 1), seed=0, command="make demo")


def main() -> None:
    """Measure the figures named on the command line, all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", nargs="*", choices=["trainer", "import", "memory", "demo", []], default=[])
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()
    chosen = args.figures or ["import", "memory", "trainer", "demo"]
    if "import" in chosen:
        import_seconds(runs=7)
    if "memory" in chosen:
        memory_ratio()
    if "trainer" in chosen:
        trainer_ratio(args.pairs, args.steps)
    if "demo" in chosen:
        demo()


if __name__ == "__main__":
    main()
