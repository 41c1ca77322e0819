"""What studies share: from plain settings to a trained checkpoint, resumable, with nothing decoded twice."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedModel

from examples.studies.stages import Stage
from hf_smoothing.certification import certify_dataset
from hf_smoothing.data import DecodedPixels, PixelDataset
from hf_smoothing.models import SmoothedClassifier
from hf_smoothing.training import RobustTrainer, RobustTrainingArguments
from hf_smoothing.training.objectives import OBJECTIVES, find_objective


@cache
def decoded(output: Path, data: Path, name: str, split: str, size: int) -> DecodedPixels:
    """The pixels of a split, decoded once and kept below the results.

    Args:
        output: The results folder.
        data: The folder that holds the data sets.
        name: Name of a data set's folder in it.
        split: The split, "train" or "test".
        size: Resolution.
    """
    file = output / "cache" / f"{name}-{split}-{size}.safetensors"
    if not file.exists():
        made = PixelDataset(load_dataset(str(data / name), split=split), size).decode(progress=False)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{time.time_ns()}")
        save_file({"pixels": made.pixels, "labels": labels_of(made)}, partial)
        partial.rename(file)
    tensors = load_file(file)
    return DecodedPixels(tensors["pixels"], tensors["labels"])


def class_names(data: Path, name: str) -> list[str]:
    """Of a data set in the folder `data`."""
    names: list[str] = load_dataset(str(data / name), split="train").features["label"].names
    return names


def split_off(data: DecodedPixels, held_out: int, seed: int) -> tuple[DecodedPixels, DecodedPixels]:
    """(all but `held_out` images, these), drawn by a seed."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    return some(data, order[held_out:]), some(data, order[:held_out])


def some(data: DecodedPixels, chosen: Tensor) -> DecodedPixels:
    """The images of these indices."""
    return DecodedPixels(data.pixels[chosen], labels_of(data)[chosen])


def labels_of(data: DecodedPixels) -> Tensor:
    """The labels, which every data set of a study has.

    Raises:
        ValueError: If it has none.
    """
    if data.labels is None:
        raise ValueError("A study needs labelled images, got a data set without labels.")
    return data.labels


def label_maps(names: list[str]) -> dict[str, Any]:
    """`id2label` and `label2id`."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def from_scratch(about: dict[str, Any], names: list[str]) -> PreTrainedModel:
    """A new network.

    Args:
        about: Its "model_type" and the rest of its configuration.
        names: Names of the classes.
    """
    settings = dict(about)
    config = AutoConfig.for_model(settings.pop("model_type"), **settings, **label_maps(names))
    model: PreTrainedModel = AutoModelForImageClassification.from_config(config, trust_remote_code=False)
    return model


def pixel_statistics(data: DecodedPixels) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel in [0, 1] units, of the first 10,000 images."""
    values = data.pixels[:10_000].float() / 255
    return [round(x, 4) for x in values.mean((0, 2, 3)).tolist()], [
        round(x, 4) for x in values.std((0, 2, 3)).tolist()
    ]


def check_trainings(stages: Sequence[Stage]) -> None:
    """Refuse training arguments, objectives and noise that could only fail hours later.

    Args:
        stages: Stages whose settings hold "arguments" and, there or beside them, "noise".

    Raises:
        SystemExit: The message names the first stage with such settings.
    """
    seen = set()
    for stage in stages:
        found = stage.settings.get("arguments")
        if not isinstance(found, dict):
            continue
        arguments: dict[str, Any] = {"noise": stage.settings.get("noise")} | found
        key = json.dumps(arguments, sort_keys=True)
        if key not in seen:
            seen.add(key)
            try:
                args = RobustTrainingArguments("nowhere", **arguments)
                find_objective(args.objective, OBJECTIVES, args.objective_args)  # type: ignore[arg-type]  # a dict by now
            except (TypeError, ValueError) as error:
                raise SystemExit(f"{stage.name}: {error}") from error


def make_trainer(
    model: PreTrainedModel,
    folder: Path,
    arguments: dict[str, Any],
    train: DecodedPixels,
    held_out: DecodedPixels | None = None,
) -> RobustTrainer:
    """A trainer that keeps its last checkpoint, one an epoch, in a folder.

    Args:
        model: Model to train.
        folder: Its own.
        arguments: Keyword arguments of `RobustTrainingArguments`; noise and seed among them.
        train: Images to train on.
        held_out: Images on which `evaluate` measures accuracy.
    """
    args = RobustTrainingArguments(
        output_dir=str(folder), save_strategy="epoch", save_total_limit=1, logging_steps=100, disable_tqdm=True, report_to="none",
        **arguments,
    )  # fmt: skip
    return RobustTrainer(
        model, args, train_dataset=train, eval_dataset=held_out,
        compute_metrics=lambda out: {"accuracy": float((out.predictions.argmax(-1) == out.label_ids).mean())},
    )  # fmt: skip


def fit(trainer: RobustTrainer) -> int:
    """Train, from the last checkpoint if there is one; the number of images seen."""
    trainer.train(resume_from_checkpoint=last_checkpoint(Path(str(trainer.args.output_dir))))
    return int(trainer.state.global_step * trainer.args.train_batch_size * trainer.args.world_size)


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end: the trainer's state comes last."""
    whole = [file.parent for file in folder.glob("checkpoint-*/trainer_state.json")]
    return str(max(whole, key=lambda path: int(path.name.split("-")[1]))) if whole else None


def certify_stage(
    model: SmoothedClassifier, test: DecodedPixels, settings: dict[str, Any], folder: Path, name: str
) -> dict[str, Any]:
    """Certified radii of every so-many-th test image, resumable in `folder`/run.

    Args:
        model: Model in eval mode.
        test: The whole test split.
        settings: The settings, "data", "stride", and the rule: "sigma", "n", "alpha", "label_aware", "targets".
        folder: Folder of the stage.
        name: Name of the stage that trained the model.

    Returns:
        A dictionary {"radii": of each image, -1 where the true class was not certified, "draws": of all images
        together}.
    """
    rule = {key: settings[key] for key in ("sigma", "n", "alpha", "label_aware", "targets")}
    run = certify_dataset(
        model, test, folder / "run", **rule, indices=range(0, len(test), settings["stride"]), dtype="bfloat16", channels_last=True, progress=False,
        description={"model": {"id": name}, "dataset": {"id": settings["data"], "split": "test"}},
    )  # fmt: skip
    rows = [run.rows[index] for index in sorted(run.rows)]
    radii = [math.floor(1e6 * r["radius"]) / 1e6 if r["prediction"] == r["label"] else -1 for r in rows]
    return {"radii": radii, "draws": sum(row["draws"] for row in rows)}


@torch.inference_mode()
def accuracy(model: SmoothedClassifier, data: DecodedPixels) -> float:
    """Of the base classifier on clean images."""
    right = 0
    for pixels, labels in zip(data.pixels.split(250), labels_of(data).split(250), strict=True):
        right += int((model.classify(pixels.to(model.device).float() / 255).argmax(-1).cpu() == labels).sum())
    return right / len(data)
