"""The run of the self-test, and what a process of its own does with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hf_smoothing.certification import certify_dataset
from hf_smoothing.records import RUN_FILE, Run, read_run
from hf_smoothing.selftest.certificates import GREY, five_bands


IMAGES = 8
RUN: dict[str, Any] = {
    "sigma": 0.12, "mode": "targets", "targets": [0.0, 0.05, 0.1], "n0": 20, "n": 1_000, "alpha": 0.01, "copies_per_batch": 64,
    "progress": False, "partial_seconds": 0,
}  # fmt: skip


def images() -> list[dict[str, Any]]:
    """Images of one shade each, uint8; between them near and far from the ends of a band."""
    return [
        {"pixel_values": torch.full((1, 2, 2), round(255 * GREY) - 12 * k, dtype=torch.uint8), "labels": 2}
        for k in range(IMAGES)
    ]


def certify_into(folder: Path, device: str, before_batch: Callable[[], None] | None = None) -> Run:
    """The run of the self-test, or what is left of it.

    Args:
        folder: The run folder.
        device: Where the classifier runs.
        before_batch: Called before each forward pass.
    """
    classifier = five_bands().to(device)
    if before_batch is not None:
        classifier.register_forward_pre_hook(lambda module, arguments: before_batch())
    return certify_dataset(classifier, images(), folder, **RUN)


def dying_after(rows: int, folder: Path) -> Callable[[], None]:
    """Ends its own process at the first forward pass after so many rows are written, without any chance to clean up."""

    def step() -> None:
        if (folder / RUN_FILE).exists() and len(read_run(folder).rows) >= rows:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

    return step


def main(folder: str, device: str, rows: str) -> None:
    """Certify into a folder, as one of several ranks where the environment says so; a GPU of its own for each.

    Args:
        folder: The run folder.
        device: Where the classifier runs, "cpu" or "cuda".
        rows: Number of rows after which the process kills itself; 0 for never.
    """
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    certify_into(Path(folder), device, dying_after(int(rows), Path(folder)) if int(rows) else None)
