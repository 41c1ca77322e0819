"""The stages of the kit, in the order of their worth: each is a command that a person could type."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from examples.studies.stages import Stage


ROOT = Path(__file__).resolve().parents[2]
SIGMAS = (0.25, 0.5, 1.0)
MIXTURE = {"sigmas": [0.0, 1.0], "clean": 0.125, "distribution": "uniform"}
PRETRAINING_SHARE, FINETUNING_SHARE = 0.25, 0.22
"""Of the minutes: what is left goes into loading, the benchmark, and certification."""
FINETUNING_ALONE = 0.5
"""Share of the finetuning where a backbone is given, so that nothing is pretrained."""

GOES_ON = ("train", "certify")
"""Kinds of stages that continue where they were cut off; those of kind "check" start over."""

SMALL: dict[str, list[object]] = {"widths": [64, 128, 256, 512], "blocks": [1], "backbone_size": [64]}
"""5.0M parameters on a quarter of the positions: fast on a CPU as well."""
LARGE: dict[str, list[object]] = {"widths": [64, 128, 256, 384], "blocks": [2, 2, 2, 1], "backbone_size": [128]}
"""5.2M parameters on all positions of a 32 px image: 7 times the arithmetic."""


@dataclass(frozen=True)
class Choice:
    """What the kit was given.

    Attributes:
        data: Folder with `cifar10`, `mnist` and `tiny_imagenet32`, each a folder for load_dataset.
        output: The results folder.
        backbone: A backbone to finetune, a folder or Hub id; None pretrains two, and a clean twin of the first.
        linf_epochs: Number of epochs of the l-infinity network for MNIST; those for CIFAR-10 take twice as many.
        dry: All of it in miniature on the CPU, with the data of the repository.
    """

    data: Path
    output: Path
    backbone: str | None = None
    linf_epochs: int = 70
    dry: bool = False


def plan(choice: Choice) -> list[list[Stage]]:
    """Groups of stages, every need in an earlier group than the stage that has it; those of a group run side by side.

    Settings of a stage: its command, the least minutes that are worth starting it, and of a training which share of all minutes it may
    take ("share") and where its checkpoints are ("checkpoints"): from these `work.py` completes the command when the stage begins.
    """
    tests = [_stage("check", "tests", 0.5, _tests(choice))]
    if choice.backbone is not None:
        names, pretraining, share = {"finetune": choice.backbone}, [], FINETUNING_ALONE
    else:
        # Small networks leave most of a GPU idle, so several are trained at once.
        pretraining = [
            _training_stage(choice, name, _pretrain(choice, name, network, noise), PRETRAINING_SHARE)
            for name, network, noise in (
                ("pretrain", SMALL, MIXTURE),
                ("pretrain-clean", SMALL, "clean"),
                ("pretrain-large", LARGE, MIXTURE),
            )
        ]
        names = {f"finetune{end}": str(choice.output / f"pretrain{end}" / "model") for end in ("", "-large")}
        share = FINETUNING_SHARE
    finetuning = [
        _training_stage(choice, name, _finetune(choice, name, backbone), share, *needs)
        for name, backbone in names.items()
        for needs in ([] if choice.backbone else [Path(backbone).parent.name],)
    ]
    certifying = [
        _stage("certify", f"{name.replace('finetune', 'certify')}-{sigma}", 0.5, _certify(choice, name, sigma), name)
        for name in names
        for sigma in SIGMAS
    ]
    benchmark = [_stage("check", "benchmark", 1.0, _benchmark(choice))]
    linf = [
        _stage("train", "linf", 4.0, _linf(choice)),
        _stage("train", "linf-mtl-ibp", 10.0, _linf_front(choice, "mtl-ibp", [0.01, 0.05, 0.2, 0.5])),
        _stage("train", "linf-sabr", 10.0, _linf_front(choice, "sabr", [0.1, 0.2, 0.4, 0.7])),
    ]  # one after another: the last two share a folder, whose fronts they draw
    return [benchmark, tests + pretraining, finetuning, certifying, *([stage] for stage in linf)]


def _stage(kind: str, name: str, minutes: float, command: list[str], *needs: str, **training: object) -> Stage:
    return Stage(name, kind, {"command": command, "least_minutes": minutes, **training}, needs)


def _training_stage(choice: Choice, name: str, command: list[str], share: float, *needs: str) -> Stage:
    """A stage whose end depends on the minutes, and which goes on from its last checkpoint; in miniature it is an ordinary one."""
    of_training = {} if choice.dry else {"share": share, "checkpoints": str(choice.output / name / "model")}
    return _stage("check" if choice.dry else "train", name, 1.5, command, *needs, **of_training)


def _python(*words: object) -> list[str]:
    return [sys.executable, *map(str, words)]


def _tests(choice: Choice) -> list[str]:
    # Without a GPU the same tests run on the CPU. Other versions of other libraries may warn of what does not matter here.
    which = "not gpu" if choice.dry else "gpu"
    files = ("tests/certification/test_devices.py", "tests/noise/test_grid_kernel.py")
    return _python("-m", "pytest", "-q", "-W", "default", "-m", which, *files)


def _benchmark(choice: Choice) -> list[str]:
    where = choice.output / "benchmark" / "throughput.json"
    return _python("tests/benchmarks/throughput.py", "--output", where, *(["--dry"] if choice.dry else []))


def _training(choice: Choice, name: str) -> list[object]:
    """What both trainings share."""
    words: list[object] = [
        "--output-dir", choice.output / name / "model", "--validation_share", 0.02, "--optim", "sgd",
        "--optim_args", "momentum=0.9,nesterov=true", "--lr_scheduler_type", "cosine", "--crop_padding", 4, "--horizontal_flip", "true",
        "--bf16", "true", "--channels_last", "true", "--ema_decay", 0.999, "--data_on_device", "true", "--dataloader_drop_last", "true",
        "--auto_find_batch_size", "true", "--save_strategy", "steps", "--save_steps", 0.25, "--save_total_limit", 1, "--seed", 0,
        "--disable_tqdm", "true", "--report_to", "none",
    ]  # fmt: skip
    if choice.dry:
        return [*words, "--use_cpu", "true", "--max_steps", 2, "--per_device_train_batch_size", 32]
    return [*words, "--per_device_eval_batch_size", 250]


def _pretrain(
    choice: Choice, name: str, network: dict[str, list[object]], noise: dict[str, object] | str
) -> list[str]:
    few: dict[str, list[object]] = {"widths": [8] * 4, "blocks": [1], "backbone_size": [32]}
    shape = [word for option, values in (few if choice.dry else network).items() for word in (f"--{option}", *values)]
    size = [] if choice.dry else ["--per_device_train_batch_size", 512]
    return _python(
        "examples/pretrain.py", "--dataset", _dataset(choice, "tiny_imagenet32"), "--size", 32, *shape,
        "--noise", noise if isinstance(noise, str) else json.dumps(noise), "--learning_rate", 0.4, "--weight_decay", 2e-4,
        "--warmup_steps", 0.05, *size, *_training(choice, name),
    )  # fmt: skip


def _finetune(choice: Choice, name: str, backbone: str) -> list[str]:
    objective = {"copies": 2, "weight": [2.0, 5.0, 10.0], "entropy": 0.5}
    size = [] if choice.dry else ["--per_device_train_batch_size", 256]
    return _python(
        "examples/finetune.py", "--backbone", backbone, "--dataset", _dataset(choice, "cifar10"), "--sigma", 0.5, "--protocol", "whole",
        "--noise", json.dumps({"sigmas": list(SIGMAS)}), "--objective", "consistency", "--objective_args", json.dumps(objective),
        "--learning_rate", 0.1, "--weight_decay", 5e-4, "--warmup_steps", 0.1, "--round_weights", "true", *size,
        *_training(choice, name),
    )  # fmt: skip


def _certify(choice: Choice, trained: str, sigma: float) -> list[str]:
    few = ["--n", 300, "--max-images", 4, "--device", "cpu"]
    name = trained.replace("finetune", "certify")
    return _python(
        "-m", "hf_smoothing.cli", "certify", choice.output / trained / "model", _dataset(choice, "cifar10"), "--sigma", sigma,
        "--dtype", "bfloat16", "--channels-last", "--output-dir", choice.output / f"{name}-{sigma}" / "run",
        *(few if choice.dry else ["--n", 100_000, "--stride", 20]),
    )  # fmt: skip


def _linf(choice: Choice) -> list[str]:
    few = ["--kappas", 0.5, "--kinds", "adaptive"]
    return _linf_networks(
        choice, "linf", "mnist", "--largest", 0.4, "--thresholds", 0.3, "--epochs", choice.linf_epochs,
        *(few if choice.dry else ["--kappas", 0.0, 0.5, "--size", 28, "--max_images", 10_000]),
    )  # fmt: skip


def _linf_front(choice: Choice, name: str, strengths: list[object]) -> list[str]:
    """A loss with an attack at 2/255, with adaptive and fixed radii, certified there by linear bounds."""
    few = ["--kinds", "fixed", "--strengths", strengths[0], "--held_out", 8]
    attack = ["--attack_steps", 8, "--attack_step_size", 0.25, "--attack_scale", 2.1]
    return _linf_networks(
        choice, "linf-front", "cifar10", "--loss", name, "--largest", "0.0078431", "--at", "0.0078431", "--backward", "crown-ibp" if choice.dry else "crown",
        "--epochs", 2 * choice.linf_epochs, "--ramp_share", 0.5, "--l1", 3e-6, *(attack if name == "mtl-ibp" else []),
        *(few if choice.dry else ["--strengths", *strengths, "--crop_padding", 2, "--horizontal_flip", "--size", 32, "--max_images", 1_000]),
    )  # fmt: skip


def _linf_networks(choice: Choice, name: str, dataset: str, *words: object) -> list[str]:
    few = ["--width", 1, "--size", 16, "--max_train_images", 64, "--max_images", 16]
    return _python(
        "-m", "examples.adaptive_certified_training", "--dataset", _dataset(choice, dataset), "--output-dir", choice.output / name / "networks",
        *words, *(few if choice.dry else ["--width", 64]),
    )  # fmt: skip


def _dataset(choice: Choice, name: str) -> Path:
    return ROOT / "examples" / "data" if choice.dry else choice.data / name
