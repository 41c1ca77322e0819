"""The whole idea in three minutes: finetune on clean images, certify under noise, print the table.

Backbones that were pretrained otherwise are finetuned on the same *clean* images and certified by randomized smoothing. What a backbone
has learnt about noise survives a light finetuning; a network that never saw noise has nothing to keep.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel, set_seed
from transformers.utils import logging

from hf_smoothing.certification import certify_dataset
from hf_smoothing.data import PixelDataset, load_split
from hf_smoothing.data.selection import spread
from hf_smoothing.models import SmoothedClassifier
from hf_smoothing.models.checkpoints import load_base_classifier
from hf_smoothing.models.reloading import build_network
from hf_smoothing.reports import report
from hf_smoothing.training import RobustTrainer, RobustTrainingArguments


SCRATCH = "scratch"
"""In place of a backbone: the network of the first one, without any pretraining."""

TRAINER = "trainer"
"""The folder in which the Trainer works."""

TITLES = {
    "resnet-mixture-small": "noise-mixture backbone",
    "resnet-clean-small": "clean backbone",
    SCRATCH: "no pretraining",
}


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Without transformers' bars of loading and its note that a new head replaces the old one, which would hide the story; then as before."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def folders_of(
    output_dir: str | os.PathLike[str], backbones: Sequence[str], sigmas: Sequence[float]
) -> list[list[Path]]:
    """For each backbone the folder of the finetuned model, called as the backbone's, and after it the run folder of each sigma.

    Raises:
        ValueError: If two of them would be one.
    """
    output = Path(output_dir)
    names = [
        Path(one).resolve().name if Path(one).is_dir() and one != SCRATCH else Path(one).name for one in backbones
    ]
    found = [[output / name, *(output / f"{name}-sigma{sigma:g}" for sigma in sigmas)] for name in names]
    every = [output / TRAINER, *itertools.chain(*found)]
    if twice := next((folder for folder in every if every.count(folder) > 1), None):
        raise ValueError(
            f"Each model and each run must have a folder of its own, called by backbone and sigma, got {twice} twice for the backbones "
            f"{', '.join(backbones)} and the sigmas {', '.join(f'{sigma:g}' for sigma in sigmas)}. Give each sigma once, and a demo and an output folder "
            "to each of two backbones of one name."
        )
    return found


def demo(
    backbones: Sequence[str], images: str, output_dir: str | os.PathLike[str], *,
    sigmas: Sequence[float] = (0.25, 0.5), max_images: int = 100, n: int = 1_000, alpha: float = 0.001, epochs: float = 8, seed: int = 0,
) -> str:  # fmt: skip
    """Finetune each backbone on the training images and certify it on test images.

    Args:
        backbones: Checkpoints of image classifiers for 32 px; `SCRATCH` is the network of the first without pretraining.
        images: Data set of 32 px with splits train and test.
        output_dir: Folder of the finetuned models, their run folders, and the curves.
        sigmas: Noise levels of the certificates.
        max_images: Test images to certify, spread over the split.
        n: Maximum number of noisy copies per image.
        alpha: Failure probability of one certificate.
        epochs: Passes of the finetuning.
        seed: Of the new head, the order of images, and the noise.

    Returns:
        The table, Markdown.

    Raises:
        ValueError: If `epochs` is not positive; as `folders_of`, `load_split` and `certify_dataset`.
    """
    if epochs <= 0:
        raise ValueError(f"`epochs` must be above 0, got {epochs:g}.")
    output, folders = Path(output_dir), folders_of(output_dir, backbones, sigmas)
    data = {split: load_split(images, split) for split in ("train", "test")}
    train, test = (PixelDataset(data[split], 32).decode(progress=False) for split in ("train", "test"))
    labels = dict(enumerate(data["train"].features["label"].names))
    runs, titles = [], []
    for step, (backbone, (saved, *places)) in enumerate(zip(backbones, folders, strict=True), start=1):
        title = TITLES.get(saved.name, saved.name)
        print(
            f"[{step}/{len(backbones)}] Finetuning: {title}, {len(train):,} clean images. Then certifying.", flush=True
        )
        model = finetuned(
            backbone, train, labels, output / TRAINER, like=backbones[0], sigma=sigmas[0], epochs=epochs, seed=seed
        )
        for sigma, place in zip(sigmas, places, strict=True):
            runs.append(place)
            titles.append(title)
            certify_dataset(
                model, test, place, sigma=sigma, n=n, alpha=alpha, seed=seed, indices=spread(max_images, len(test)),
                channels_last=True, description={"model": {"id": title}, "dataset": {"id": Path(images).name, "split": "test"}},
            )  # fmt: skip
        model.save_pretrained(saved)
    return report(runs, output_dir=output, names=titles)


def finetuned(
    backbone: str, train: torch.utils.data.Dataset[Any], labels: dict[int, str], folder: Path, *,
    sigma: float, epochs: float, seed: int, like: str = "",
) -> SmoothedClassifier:  # fmt: skip
    """A backbone finetuned on clean images, as a smoothed classifier.

    Args:
        backbone: As in `demo`.
        train: Training images.
        labels: Names of their classes.
        folder: Where the Trainer works.
        sigma: Noise level that the classifier has by default.
        epochs, seed: As in `demo`.
        like: Checkpoint whose network is taken where the backbone is `SCRATCH`.
    """
    set_seed(seed)
    model = SmoothedClassifier.from_base_pretrained(_network(backbone, like, labels), sigma=sigma)
    _finetune(model, train, folder, whole=backbone == SCRATCH, epochs=epochs, seed=seed)
    return model


def _network(backbone: str, like: str, labels: dict[int, str]) -> PreTrainedModel:
    """With a new head; what pixels it takes stands in its configuration."""
    classes: dict[str, Any] = {"id2label": labels, "label2id": {label: k for k, label in labels.items()}}
    if backbone == SCRATCH:
        return build_network(AutoConfig.from_pretrained(like, dtype=torch.float32, trust_remote_code=False, **classes))
    return load_base_classifier(backbone, ignore_mismatched_sizes=True, **classes)


def _finetune(
    model: SmoothedClassifier, train: torch.utils.data.Dataset[Any], folder: Path, *, whole: bool, epochs: float, seed: int
) -> None:  # fmt: skip
    """Without noise. Lightly: last stage and new head, batch-norm statistics kept; all of it where nothing was pretrained."""
    args = RobustTrainingArguments(
        output_dir=str(folder), noise="clean", seed=seed, protocol="whole" if whole else "last-stage",
        crop_padding=4, horizontal_flip=True, channels_last=True,
        num_train_epochs=epochs, per_device_train_batch_size=64, learning_rate=0.02, lr_scheduler_type="cosine",
        warmup_steps=0.1, optim="sgd", optim_args="momentum=0.9", weight_decay=5e-4,
        save_strategy="no", logging_steps=1_000_000, report_to="none",
    )  # fmt: skip
    RobustTrainer(model, args, train_dataset=train).train()
    model.eval()
