"""`RobustTrainingArguments`: those of `transformers`, and what training for certified robustness adds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainingArguments

from hf_smoothing.json_text import as_json, parse_json
from hf_smoothing.models.configuration import check_noise_owner
from hf_smoothing.noise import NoiseMixture
from hf_smoothing.preprocessing import parse_size
from hf_smoothing.training.objectives import OBJECTIVES
from hf_smoothing.training.protocols import PROTOCOLS, Finetuning, settle
from hf_smoothing.units import check_flag, check_number, check_whole


@dataclass
class RobustTrainingArguments(TrainingArguments):
    """Arguments of `RobustTrainer`.

    Different from the parent: `remove_unused_columns` is False, since the columns are images that a transform still needs;
    `dataloader_pin_memory` is False where there is no accelerator to pin memory for.

    Raises:
        TypeError: On an objective or a metric that is no name; on a value of a switch that is neither True nor False, such as the text "false".
        ValueError: On an invalid mixture, owner or size, or a text in place of a number.
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
    objective: str = field(
        default="mixture",
        metadata={
            "help": f"The training loss, by name: {', '.join(OBJECTIVES)}. Its settings go into objective_args. See docs/objectives.md."
        },
    )
    objective_args: dict[str, Any] | str | None = field(
        default=None, metadata={"help": 'Settings of the objective as JSON, e.g. \'{"copies": 2, "weight": 10}\'.'}
    )
    protocol: str | None = field(
        default=None,
        metadata={
            "help": "A way of finetuning, which stands for train_last, freeze_batch_norm and body_learning_rate where they are not given: "
            f"{', '.join(PROTOCOLS)}. See docs/finetuning.md."
        },
    )
    drop_path: float = field(
        default=0.0,
        metadata={
            "help": "Stochastic depth of a transformer: probability that its last block is skipped, less before it."
        },
    )
    crop_padding: int = field(
        default=0, metadata={"help": "Random crop after padding by this number of pixels per side."}
    )
    horizontal_flip: bool = field(default=False, metadata={"help": "Random left-right flip."})
    trainable: list[str] | None = field(
        default=None,
        metadata={
            "help": "Train only parameters whose name has one of these as whole parts, e.g. classifier stages.3."
        },
    )
    train_last: int | None = field(
        default=None,
        metadata={"help": "Train only the head and the last k blocks (stages of a ResNet); 0 is a linear probe."},
    )
    freeze_batch_norm: bool | None = field(
        default=None,
        metadata={"help": "Keep the running statistics of batch norm as they are (eval mode); False by default."},
    )
    body_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of all but the head; learning_rate by default."}
    )
    layer_decay: float = field(
        default=1.0, metadata={"help": "Factor of the learning rate from one block to the one before it, in (0, 1]."}
    )
    ema_decay: float | None = field(
        default=None,
        metadata={
            "help": "Keep an exponential moving average of the weights with this decay, e.g. 0.999, and save that."
        },
    )
    data_on_device: bool = field(
        default=False, metadata={"help": "Keep decoded training images (PixelDataset(...).decode()) on the device."}
    )
    channels_last: bool = field(
        default=False, metadata={"help": "Memory format for convolutional models; often faster."}
    )
    image_mean: list[float] | None = field(
        default=None,
        metadata={
            "help": "Normalisation of a plain backbone in [0, 1] pixel units, one for all channels or one each; from its processor by default."
        },
    )
    image_std: list[float] | None = field(default=None, metadata={"help": "As image_mean."})
    model_size: int | None = field(
        default=None, metadata={"help": "Size to which a plain backbone's images are resized after the noise."}
    )
    eval_num_samples: int | None = field(
        default=None,
        metadata={
            "help": "Noisy copies of each image that vote in the evaluation of a SmoothedClassifier; its num_samples by default, and 0, for no vote, "
            "where the objective is one of interval bounds and metric_for_best_model is not smoothed_accuracy."
        },
    )
    logging_nan_inf_filter: bool = field(
        default=False,
        metadata={
            "help": "False here: a loss that is not finite stops training, and looking for it costs no wait each step."
        },
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "False here: a transform needs the image column."}
    )

    def __post_init__(self) -> None:
        for name, cure in _TEXTS.items():
            if not isinstance(value := getattr(self, name), str) and (value is not None or name == "objective"):
                raise TypeError(f"`{name}` must be a name, got {value!r}. {cure}")
        for name, kind in _CHECKED.items():  # of files, where "false" is a text, and in YAML 1e-3 as well
            if (value := getattr(self, name)) is not None or name not in _OPTIONAL:
                setattr(self, name, kind(value, name))
        mixture = self.mixture()
        self.noise = "clean" if mixture is None else json.dumps(mixture.to_dict())
        if isinstance(self.objective_args, str):
            self.objective_args = read_settings(self.objective_args)
        asked = str(self.resume_from_checkpoint).lower()  # type: ignore[has-type]
        if asked in ("true", "false"):  # of a command line
            self.resume_from_checkpoint = asked == "true" or None
        self.finetuning()
        if not 0.0 <= self.label_smoothing_factor < 1.0:
            raise ValueError(
                f"`label_smoothing_factor` must be in [0, 1), e.g. 0.1, got {self.label_smoothing_factor}."
            )
        if self.ema_decay is not None and not 0.0 <= self.ema_decay < 1.0:
            raise ValueError(f"`ema_decay` must be in [0, 1), e.g. 0.999, got {self.ema_decay}.")
        if self.body_learning_rate is not None and not 0.0 <= self.body_learning_rate < math.inf:
            raise ValueError(f"`body_learning_rate` must be finite and >= 0, got {self.body_learning_rate}.")
        if not 0.0 < self.layer_decay <= 1.0:
            raise ValueError(f"`layer_decay` must be in (0, 1], e.g. 0.75, got {self.layer_decay}.")
        if not 0.0 <= self.drop_path < 1.0:
            raise ValueError(f"`drop_path` must be in [0, 1), e.g. 0.1, got {self.drop_path}.")
        if self.data_on_device and self.dataloader_num_workers:
            raise ValueError(
                f"`data_on_device` needs no workers, got dataloader_num_workers={self.dataloader_num_workers}. Set it to 0."
            )
        check_noise_owner(self.noise_owner)
        parse_size(self.model_size, "model_size")
        if self.eval_num_samples is not None and self.eval_num_samples < 0:
            raise ValueError(
                f"`eval_num_samples` must be at least 0, got {self.eval_num_samples}. Use 0 for an evaluation without votes."
            )
        if self.eval_num_samples == 0 and self.chooses_by_votes():
            raise ValueError(
                f"`metric_for_best_model` must be a figure of the evaluation, got {self.metric_for_best_model!r} beside eval_num_samples=0, without whose votes "
                "there is none. Set eval_num_samples, or choose by 'accuracy'."
            )
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
        if self.data_on_device or not torch.accelerator.is_available():
            self.dataloader_pin_memory = False

    def to_dict(self) -> dict[str, Any]:
        """As the parent, for JSON: a network among the settings of the objective, such as a teacher, is named by its class."""
        values: dict[str, Any] = super().to_dict()
        return values | {"objective_args": as_json(self.objective_args)}

    def chooses_by_votes(self) -> bool:
        """Whether checkpoints are chosen by a figure of the votes under noise."""
        return (self.metric_for_best_model or "").endswith("smoothed_accuracy")

    def mixture(self) -> NoiseMixture | None:
        """The training noise, or None."""
        value: Any = self.noise
        return NoiseMixture.parse(value)

    def finetuning(self) -> Finetuning:
        """What is trained and how fast, by these arguments and the protocol.

        The fields stay as they were given, so that `dataclasses.replace` and saved arguments know what was not.
        """
        given = ("learning_rate", "trainable", "train_last", "freeze_batch_norm", "body_learning_rate")
        return settle(self.protocol, **{name: getattr(self, name) for name in given})


_TEXTS = {
    "objective": "Leave it out for 'mixture'; one of your own goes to RobustTrainer(objective=...).",
    "metric_for_best_model": "Name a figure of the evaluation, such as 'accuracy', or leave it out.",
}
_CHECKS: dict[str, Callable[[Any, str], Any]] = {"bool": check_flag, "int": check_whole, "float": check_number}
_TYPES = {name: str(kind) for name, kind in RobustTrainingArguments.__annotations__.items() if name != "model_size"}
_OPTIONAL = {name for name, kind in _TYPES.items() if kind.endswith(" | None")}
_CHECKED = {
    name: _CHECKS[plain]
    for name, kind in (_TYPES | {"label_smoothing_factor": "float"}).items()
    if (plain := kind.removesuffix(" | None")) in _CHECKS
}


def read_settings(text: str) -> dict[str, Any]:
    """The settings of an objective from the JSON of an option.

    Raises:
        ValueError: If it is no JSON object.
    """
    try:
        value = parse_json(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"`objective_args` must be a JSON object such as '{{\"copies\": 2}}', got {text!r}.")
    return value
