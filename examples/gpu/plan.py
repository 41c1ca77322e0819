"""The stages of the kit, in the order of their worth: each is a command that a person could type."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from examples.studies.stages import Stage


ROOT = Path(__file__).resolve().parents[2]
SIGMAS = (0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Choice:
    """What the kit was given.

    Attributes:
        data: Folder with `cifar10` and `mnist`, each a folder for load_dataset.
        output: The results folder.
        backbone: What is finetuned: a folder or Hub id.
        epochs: Number of epochs of the finetuning.
        linf_epochs: Number of epochs of the l-infinity network.
        dry: All of it in miniature on the CPU, with the data of the repository.
    """

    data: Path
    output: Path
    backbone: str
    epochs: int = 60
    linf_epochs: int = 70
    dry: bool = False


def plan(choice: Choice) -> list[Stage]:
    """The stages, every need before the stage that has it. Settings: the command, and the least minutes that are worth starting it."""
    stages = [
        _stage("tests", 1.0, _tests(choice)),
        _stage("benchmark", 1.5, _benchmark(choice)),
        _stage("finetune", 2.0, _finetune(choice)),
    ]
    stages += [_stage(f"certify-{sigma}", 0.5, _certify(choice, sigma), "finetune") for sigma in SIGMAS]
    return [*stages, _stage("linf", 4.0, _linf(choice))]


def _stage(name: str, minutes: float, command: list[str], *needs: str) -> Stage:
    return Stage(name, "command", {"command": command, "least_minutes": minutes}, needs)


def _python(*words: object) -> list[str]:
    return [sys.executable, *map(str, words)]


def _tests(choice: Choice) -> list[str]:
    # Without a GPU the same tests run on the CPU.
    return _python(
        "-m", "pytest", "-q", "tests/certification/test_devices.py", "-m", "not gpu" if choice.dry else "gpu"
    )


def _benchmark(choice: Choice) -> list[str]:
    where = choice.output / "benchmark" / "throughput.json"
    return _python("tests/benchmarks/throughput.py", "--output", where, *(["--dry"] if choice.dry else []))


def _finetune(choice: Choice) -> list[str]:
    objective = {"copies": 2, "weight": [2.0, 5.0, 10.0], "entropy": 0.5}
    words = [
        "examples/finetune.py", "--backbone", choice.backbone, "--dataset", _dataset(choice, "cifar10"),
        "--output-dir", choice.output / "finetune" / "model", "--validation_share", 0.02, "--sigma", 0.5, "--protocol", "whole",
        "--noise", json.dumps({"sigmas": list(SIGMAS)}), "--objective", "consistency", "--objective_args", json.dumps(objective),
        "--learning_rate", 0.05, "--optim_args", "momentum=0.9,nesterov=true", "--num_train_epochs", choice.epochs,
        "--per_device_train_batch_size", 128, "--bf16", "true", "--channels_last", "true", "--ema_decay", 0.999,
        "--data_on_device", "true", "--seed", 0, "--disable_tqdm", "true",
    ]  # fmt: skip
    return _python(*words, *(["--use_cpu", "true", "--max_steps", 2] if choice.dry else []))


def _certify(choice: Choice, sigma: float) -> list[str]:
    few = ["--n", 300, "--max-images", 4, "--device", "cpu"]
    return _python(
        "-m", "hf_smoothing.cli", "certify", choice.output / "finetune" / "model", _dataset(choice, "cifar10"), "--sigma", sigma,
        "--dtype", "bfloat16", "--channels-last", "--output-dir", choice.output / f"certify-{sigma}" / "run",
        *(few if choice.dry else ["--n", 100_000, "--stride", 20]),
    )  # fmt: skip


def _linf(choice: Choice) -> list[str]:
    scale = (
        [
            "--width",
            1,
            "--kappas",
            0.5,
            "--kinds",
            "adaptive",
            "--size",
            16,
            "--max_train_images",
            64,
            "--max_images",
            16,
        ]
        if choice.dry
        else ["--width", 64, "--kappas", 0.0, 0.5, "--size", 28, "--max_images", 10_000]
    )
    return _python(
        "-m", "examples.adaptive_certified_training", "--dataset", _dataset(choice, "mnist"), "--largest", 0.4, "--thresholds", 0.3,
        "--epochs", choice.linf_epochs, "--output-dir", choice.output / "linf" / "networks", *scale,
    )  # fmt: skip


def _dataset(choice: Choice, name: str) -> Path:
    return ROOT / "examples" / "data" if choice.dry else choice.data / name
