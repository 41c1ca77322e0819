"""What the figures of certification have in common."""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
from results import FOLDER, machine, record


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


def test_split(folder: str) -> Any:
    """The images to certify."""
    from datasets import load_dataset

    return load_dataset(folder, split="test")
