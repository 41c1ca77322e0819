"""`RobustTrainingArguments`: those of `transformers`, and what training for certified robustness adds."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainingArguments

from hf_smoothing.models.configuration import check_noise_owner
from hf_smoothing.noise import NoiseMixture
from hf_smoothing.preprocessing import parse_size


@dataclass
class RobustTrainingArguments(TrainingArguments):
    """Arguments of `RobustTrainer`.

    Different from the parent: `remove_unused_columns` is False, since the columns are images that a transform still needs;
    `dataloader_pin_memory` is False where there is no accelerator to pin memory for.

    Raises:
        ValueError: on an invalid mixture, owner or size.
    """

    noise: str | None = field(
        default=None,
        metadata={
            "help": "Training noise: 'clean', a sigma, or JSON such as "
            '\'{"sigmas": [0, 1], "clean": 0.25, "distribution": "uniform"}\' (sigma in [0, 1] pixel units).'
        },
    )
    noise_owner: str = field(
        default="trainer",
        metadata={
            "help": "Who adds noise, resizes and normalises: 'trainer', 'model' or 'processor'. Exactly one does."
        },
    )
    objective: str = field(default="mixture", metadata={"help": "The training loss, by name."})
    crop_padding: int = field(default=0, metadata={"help": "Random crop after padding by so many pixels a side."})
    horizontal_flip: bool = field(default=False, metadata={"help": "Random left-right flip."})
    trainable: list[str] | None = field(
        default=None,
        metadata={
            "help": "Train only modules whose name starts with or contains one of these, e.g. classifier stages.3."
        },
    )
    freeze_batch_norm: bool = field(
        default=False, metadata={"help": "Keep the running statistics of batch norm as they are (eval mode)."}
    )
    channels_last: bool = field(
        default=False, metadata={"help": "Memory format for convolutional models; often faster."}
    )
    image_mean: list[float] | None = field(
        default=None,
        metadata={"help": "Normalisation of a plain backbone in [0, 1] pixel units; from its processor by default."},
    )
    image_std: list[float] | None = field(default=None, metadata={"help": "As image_mean."})
    model_size: int | None = field(
        default=None, metadata={"help": "Size to which a plain backbone's images are resized after the noise."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "False here: a transform needs the image column."}
    )

    def __post_init__(self) -> None:
        mixture = self.mixture()
        self.noise = "clean" if mixture is None else json.dumps(mixture.to_dict())
        check_noise_owner(self.noise_owner)
        parse_size(self.model_size, "model_size")
        if self.crop_padding < 0:
            raise ValueError(f"`crop_padding` must be >= 0, got {self.crop_padding}.")
        if (self.image_mean is None) != (self.image_std is None):
            raise ValueError(
                f"`image_mean` and `image_std` belong together, got {self.image_mean} and {self.image_std}. Give both or neither."
            )
        if self.noise_owner != "trainer" and mixture is not None:
            raise ValueError(
                f"Noise has exactly one owner: noise={self.noise!r} asks the trainer to add it, but noise_owner={self.noise_owner!r}. "
                "Drop one of the two."
            )
        super().__post_init__()
        if not torch.accelerator.is_available():
            self.dataloader_pin_memory = False

    def mixture(self) -> NoiseMixture | None:
        """The training noise, or None."""
        value: Any = self.noise
        return NoiseMixture.parse(value)
