"""What the figures of certification have in common."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from results import FOLDER, machine, record


ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = ROOT / "examples" / "data"
"""2,000 training images of CIFAR-10, and its every 20th test image: the 500 that are certified."""

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


def name_of(args: argparse.Namespace) -> str:
    """The data set, as figures name it."""
    return "the embedded CIFAR-10 images" if Path(args.dataset) == EMBEDDED else "CIFAR-10"


def pixels_of(args: argparse.Namespace, split: str, first: int | None = None) -> Any:
    """A split, or its first images.

    Raises:
        SystemExit: If there is no such data set, with the ways to get it.
    """
    from datasets import load_dataset

    try:
        return load_dataset(str(args.dataset), split=split if first is None else f"{split}[:{first}]")
    except (OSError, ValueError) as error:
        raise SystemExit(
            f"--dataset must be CIFAR-10, got {args.dataset}: {error}\nPass its name on the Hub, uoft-cs/cifar10 (about 130 MB are downloaded), or a "
            "folder that holds its parquet files; without --dataset the images of examples/data are used."
        ) from error


def every_20th(args: argparse.Namespace) -> Any:
    """The 500 test images to certify; the embedded ones are these already."""
    test = pixels_of(args, "test")
    return test.select(range(0, len(test), max(1, len(test) // 500)))


def small_classifier(args: argparse.Namespace) -> str:
    """The folder of the classifier that is certified: `--model`, or the small mixture backbone finetuned with noise, made once."""
    if args.model is not None:
        return str(args.model)
    whole = name_of(args) == "CIFAR-10"
    folder = Path(args.runs) / f"bench-classifier{'' if whole else '-embedded'}{'-quick' if args.quick else ''}"
    if not (folder / "model.safetensors").exists():
        noise = '{"sigmas": [0, 1], "clean": 0.25, "distribution": "uniform"}'
        epochs = 1 if args.quick else 5 if whole else 40
        words = {
            "backbone": ROOT / "model_cards" / "resnet-mixture-small", "dataset": args.dataset, "sigma": SIGMA, "output-dir": folder, "protocol": "whole",
            "noise": noise, "learning_rate": 0.05, "num_train_epochs": epochs, "per_device_train_batch_size": 128, "bf16": True, "channels_last": True, "seed": 0,
            "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
        }  # fmt: skip
        if args.device == "cpu":
            words["use_cpu"] = True
        flags = [word for key, value in words.items() for word in (f"--{key}", str(value))]
        print(f"Finetuning the classifier that is certified, once, into {folder}.", flush=True)
        done = subprocess.run(
            [sys.executable, str(ROOT / "examples" / "finetune.py"), *flags], capture_output=True, text=True, check=False
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr[-3000:])
    return str(folder)
