"""Models and data so small that a test can train them, and none of it needs the network."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image as PilImage
from torch import nn
from transformers import (
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from hf_smoothing import RobustTrainer, RobustTrainingArguments, SmoothedClassifier
from hf_smoothing.data import DecodedPixels


SIZE = 16
NAMES = ("cat", "dog", "eel")
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
KINDS = ("resnet", "vit", "smoothed-resnet", "smoothed-vit")


def label_maps(names: tuple[str, ...] = NAMES) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def resnet_config(**kwargs: Any) -> ResNetConfig:
    values = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic", **label_maps()}
    return ResNetConfig(**(values | kwargs))


def vit_config(**kwargs: Any) -> ViTConfig:
    values = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
        "image_size": SIZE, "patch_size": 4, **label_maps(),
    }  # fmt: skip
    return ViTConfig(**(values | kwargs))


def plain(kind: str = "resnet", seed: int = 0, **kwargs: Any) -> PreTrainedModel:
    """A random base classifier; the random state of the caller stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "resnet":
            return ResNetForImageClassification(resnet_config(**kwargs)).eval()
        return ViTForImageClassification(vit_config(**kwargs)).eval()


def smoothed(
    kind: str = "resnet", seed: int = 0, base: dict[str, Any] | None = None, **kwargs: Any
) -> SmoothedClassifier:
    values: dict[str, Any] = {"sigma": 0.25, "size": SIZE, "image_mean": MEAN, "image_std": STD, "num_samples": 20}
    return SmoothedClassifier.from_base_pretrained(plain(kind, seed, **(base or {})), **(values | kwargs))


def any_model(kind: str, seed: int = 0, **kwargs: Any) -> PreTrainedModel:
    """One of `KINDS`."""
    return smoothed(kind.removeprefix("smoothed-"), seed, **kwargs) if "-" in kind else plain(kind, seed)


def note(**changes: Any) -> dict[str, Any]:
    """What a training notes of its pixels in the configuration of a model."""
    halves = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return {"size": [SIZE, SIZE], **halves, "model_size": None, "noise": None, **changes}


def pixels(count: int = 4, size: int = SIZE, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def data(count: int = 16, size: int = SIZE, seed: int = 0) -> DecodedPixels:
    """Images whose brightness grows with their class, so that training has something to find."""
    labels = torch.arange(count) % len(NAMES)
    values = pixels(count, size, seed) // 3 + (80 * labels)[:, None, None, None].to(torch.uint8)
    return DecodedPixels(values, labels)


def arguments(folder: Path | str, **kwargs: Any) -> RobustTrainingArguments:
    return RobustTrainingArguments(**(trainer_values(folder) | kwargs))


def trainer_values(folder: Path | str) -> dict[str, Any]:
    """What every training in the tests has in common, for the stock Trainer as well."""
    return {
        "output_dir": str(folder), "max_steps": 2, "per_device_train_batch_size": 4, "per_device_eval_batch_size": 8,
        "learning_rate": 0.01, "save_strategy": "no", "logging_strategy": "no", "report_to": "none", "use_cpu": True,
        "dataloader_pin_memory": False, "disable_tqdm": True,
    }  # fmt: skip


def trainer(model: PreTrainedModel, folder: Path | str, **kwargs: Any) -> RobustTrainer:
    """A RobustTrainer; keywords that it takes itself are passed on, all others are training arguments."""
    own = {
        "train_dataset",
        "eval_dataset",
        "processing_class",
        "compute_metrics",
        "objective",
        "data_collator",
        "callbacks",
        "compute_loss_func",
        "optimizers",
    }
    passed = {key: kwargs.pop(key) for key in own & kwargs.keys()}
    if (
        not isinstance(model, SmoothedClassifier)
        and "processing_class" not in passed
        and kwargs.get("noise_owner") != "processor"
    ):
        kwargs = {"image_mean": MEAN, "image_std": STD} | kwargs
    return RobustTrainer(model, arguments(folder, **kwargs), **({"train_dataset": data()} | passed))


def trained(
    kind: str, folder: Path | str, seed: int = 0, resume: str | None = None, **kwargs: Any
) -> dict[str, torch.Tensor]:
    """The tensors of one of `KINDS` after a training, which may go on from a checkpoint."""
    model = any_model(kind, seed)
    loop = trainer(model, folder, **kwargs)
    loop.train(resume_from_checkpoint=resume)
    assert loop.state.global_step == loop.args.max_steps
    return tensors(model)


def tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(model.state_dict())


def assert_same_tensors(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def pil_images(count: int = 4, size: int = SIZE, seed: int = 0) -> list[PilImage.Image]:
    return [PilImage.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels(count, size, seed)]


def image_dataset(
    count: int = 6,
    size: int = SIZE,
    names: tuple[str, ...] = NAMES,
    seed: int = 0,
    columns: tuple[str, str] = ("image", "label"),
) -> datasets.Dataset:
    features = datasets.Features({columns[0]: datasets.Image(), columns[1]: datasets.ClassLabel(names=list(names))})
    labels = (np.arange(count) % len(names)).tolist()
    return datasets.Dataset.from_dict(
        {columns[0]: pil_images(count, size, seed), columns[1]: labels}, features=features
    )


def parquet_folder(folder: Path, split: str = "test", **kwargs: Any) -> Path:
    """A data set folder as `load_dataset` reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    image_dataset(**kwargs).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


__all__ = [
    "KINDS", "MEAN", "NAMES", "SIZE", "STD", "any_model", "arguments", "assert_same_tensors", "data",
    "image_dataset", "label_maps", "note", "parquet_folder", "pil_images", "pixels", "plain", "resnet_config", "smoothed", "tensors", "trained",
    "trainer", "trainer_values", "vit_config",
]  # fmt: skip


class Small(nn.Module):
    """Smooth features, with a batch norm so that modes matter, and a head; it notes the mode of every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(48, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)
        self.modes: list[bool] = []

    def phi(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(self.norm(self.body(x.flatten(1))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.modes.append(self.training)
        logits: torch.Tensor = self.head(self.phi(x))
        return logits


def small_network() -> Small:
    """In train mode, for images of 3 x 4 x 4; its statistics stay, so that a twin sees the same ones in eval mode."""
    torch.manual_seed(0)
    module = Small().train()
    module.norm.momentum = 0.0
    module.norm.get_buffer("running_mean").normal_()
    return module
