"""The two classifiers of the page, and the images that it offers."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset

from hf_smoothing import PixelDataset, SmoothedClassifier
from hf_smoothing.demo import finetuned, quiet_loading


ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "examples" / "data"
ROBUST = ROOT / "model_cards" / "resnet-mixture-cifar10"
CLEAN_BACKBONE = ROOT / "model_cards" / "resnet-clean-small"
CLEAN = ROOT / "runs" / "space" / "clean-cifar10"

SIGMAS = (0.25, 0.5, 1.0)
"""Noise levels that the robust classifier was trained for."""


@quiet_loading()
def load_robust() -> SmoothedClassifier:
    """The classifier whose backbone saw a mixture of noise: weights of the repository."""
    return _loaded(ROBUST)


@quiet_loading()
def load_clean(folder: Path = CLEAN, epochs: float = 8) -> SmoothedClassifier:
    """The classifier that never saw noise; trained where the folder is missing, which takes a minute.

    The backbone `resnet-clean-small` is finetuned on the 2,000 clean images of `examples/data`, as `make demo` does it.

    Args:
        folder: Where it is kept for the next start.
        epochs: Epochs of the finetuning.
    """
    if not folder.exists():
        _train_clean(folder, epochs)
    return _loaded(folder)


def _loaded(folder: Path) -> SmoothedClassifier:
    model: SmoothedClassifier = SmoothedClassifier.from_pretrained(folder)
    model.eval()
    # For good, since several certifications at once would each change it and change it back.
    model.to(memory_format=torch.channels_last)
    return model


def _train_clean(folder: Path, epochs: float) -> None:
    data = load_dataset(str(DATA), split="train")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Renamed in the end: a start that is interrupted leaves nothing that looks finished.
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        model = finetuned(
            str(CLEAN_BACKBONE), PixelDataset(data, 32).decode(progress=False), dict(enumerate(data.features["label"].names)),
            Path(scratch) / "trainer", sigma=SIGMAS[0], epochs=epochs, seed=0,
        )  # fmt: skip
        model.save_pretrained(Path(scratch) / "model")
        shutil.move(Path(scratch) / "model", folder)


def samples() -> list[tuple[Any, str]]:
    """The first test image of each class: (PIL image, name of the class), in the order of the classes."""
    data = load_dataset(str(DATA), split="test")
    labels, names = data["label"], data.features["label"].names
    return [(data[labels.index(label)]["image"], name) for label, name in enumerate(names) if label in labels]
