"""Who does what to the pixels, and which parameters are trained: settled before training starts."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sized
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PreTrainedModel, Trainer

from hf_smoothing.models.adapters import check_merged
from hf_smoothing.models.configuration import check_head
from hf_smoothing.models.masked import is_autoencoder
from hf_smoothing.models.own_processor import check_own_processor
from hf_smoothing.models.reloading import check_reloadable
from hf_smoothing.models.smoothed_classifier import SmoothedClassifier
from hf_smoothing.preprocessing import parse_size
from hf_smoothing.training.arguments import RobustTrainingArguments
from hf_smoothing.training.objectives.signature import Objective


if TYPE_CHECKING:
    from transformers import BaseImageProcessor


def check_request(
    model: PreTrainedModel | None,
    args: RobustTrainingArguments | None,
    objective: Objective | str | None,
    more: Mapping[str, Any],
) -> tuple[PreTrainedModel, RobustTrainingArguments]:
    """Refuse what `RobustTrainer` cannot train; returns model and arguments.

    Args:
        model, args, objective: As it gets them.
        more: Further keyword arguments of the stock Trainer.

    Raises:
        TypeError: On a module that is no model of `transformers`, a `PeftModel`, or arguments of another class.
        ValueError: The message names what does not fit.
    """
    if more.get("model_init") is not None:
        raise ValueError("RobustTrainer needs the model itself: pass `model`, not `model_init`.")
    check_merged(model)
    if not isinstance(model, PreTrainedModel):
        raise TypeError(
            f"RobustTrainer trains a model of transformers, got {type(model).__name__}. Train a module of your own in a loop of your own, with the objectives "
            "called as functions (docs/objectives.md, examples/accelerate_loop.py); or make it a PreTrainedModel with a configuration, as CnnSevenForImageClassification is."
        )
    if not isinstance(args, RobustTrainingArguments):
        raise TypeError(f"`args` must be RobustTrainingArguments, got {type(args).__name__}.")
    for name in ("train_dataset", "eval_dataset"):
        given = more.get(name)
        for part in given.values() if isinstance(given, dict) else [given]:
            if isinstance(part, Sized) and len(part) == 0:
                raise ValueError(
                    f"`{name}` must hold images, got none. Check its split and any filter, or leave it out."
                )
    if more.get("compute_loss_func") is not None:
        raise ValueError("RobustTrainer takes its loss as `objective`, not `compute_loss_func`.")
    if "objective_args" in more:
        raise TypeError(
            "Settings of an objective stand in the arguments, got `objective_args` for RobustTrainer. Pass "
            "RobustTrainingArguments(objective=..., objective_args=...)."
        )
    if objective is not None and args.objective != "mixture":
        raise ValueError(
            f"There are two objectives: one of your own and objective={args.objective!r} in the arguments. Leave one out."
        )
    last = args.finetuning().train_last
    if getattr(model.config, "lora", None) is not None and (args.trainable is not None or last is not None):
        raise ValueError(
            "add_lora has settled what is trained: its updates and the head. Leave `trainable`, `train_last` and a `protocol` that sets it out, "
            f"got {args.trainable} and {last}."
        )
    if isinstance(model, SmoothedClassifier) and getattr(args.save_strategy, "value", args.save_strategy) != "no":
        check_reloadable(model)  # not after the first hours
    if not is_autoencoder(model):
        check_head(model.config)
    elif objective is None and args.objective != "masked-denoising":
        raise ValueError(
            f"objective={args.objective!r} needs a classifier, got {type(model).__name__}. Set objective='masked-denoising', or hand its encoder on "
            "with classifier_from_autoencoder first."
        )
    elif args.noise_owner != "trainer":
        raise ValueError(
            f"An autoencoder rebuilds the clean image, so noise must be added here, got noise_owner={args.noise_owner!r}. Leave it at 'trainer'."
        )
    return model, args


_SETTLED = ("noise_owner", "objective", "objective_args", "protocol", "trainable", "train_last", "freeze_batch_norm")


def settled(model: PreTrainedModel, args: RobustTrainingArguments, processor: Any) -> dict[str, Any]:
    """What a trainer settles, and notes in the checkpoint, when it is made; the same for the same values in another spelling."""
    return {
        **{name: copy.copy(getattr(args, name)) for name in _SETTLED},
        "noise": args.mixture(),
        **{name: np.ravel(getattr(args, name)).tolist() for name in ("image_mean", "image_std")},
        "model_size": parse_size(args.model_size, "model_size"),
        "noise of the model": getattr(model.config, "noise", None),
        "noise of the processor": (getattr(processor, "noise", None), getattr(processor, "do_noise", False)),
    }


def check_settled(made_with: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to train otherwise than a trainer was made for, which its checkpoints would not note.

    Args:
        made_with: Result of `settled` when it was made.
        now: Result of `settled` now.

    Raises:
        ValueError: The message names what was changed.
    """
    for name, before in made_with.items():
        if now[name] != before:
            raise ValueError(
                f"`{name}` is settled when the trainer is made, with {before!r}, and was changed to {now[name]!r} afterwards. Make a new RobustTrainer with it."
            )


def nothing_trained(args: RobustTrainingArguments, objective: str) -> str:
    """The message where no parameter that is trained changes the loss."""
    cure = "Unfreeze some that do: model.requires_grad_(True), or parameters by name."
    if args.trainable is not None:
        cure = f"Name other modules in `trainable`, got {args.trainable}, or leave it out."
    return f"Nothing that is trained changes the loss of {objective!r}. {cure}"


def check_optimizer(trainer: Trainer, rates_by_depth: bool) -> None:
    """Refuse what does not go with an optimizer of one's own, or with split tensors.

    Raises:
        ValueError: The message names it.
    """
    if rates_by_depth and (trainer.optimizer is not None or trainer.is_fsdp_enabled):
        raise ValueError(
            "`body_learning_rate` and `layer_decay` need an optimizer that the trainer makes, without FSDP. Leave them out, or do without "
            "the optimizer of your own."
        )
    if trainer.args.ema_decay is not None and (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        raise ValueError("`ema_decay` averages whole tensors, which FSDP and DeepSpeed split. Leave it out there.")


def check_one_owner(
    model: PreTrainedModel, args: RobustTrainingArguments, processor: BaseImageProcessor | None
) -> None:
    """Refuse a model, arguments and processor of which two would add noise, or two would normalise.

    Raises:
        ValueError: The message names the owners.
    """
    wrapped = isinstance(model, SmoothedClassifier)
    owners = {"trainer"} if args.mixture() is not None else set()
    if wrapped and model.config.noise is not None:
        owners.add("model")
    if getattr(processor, "do_noise", False):
        owners.add("processor")
    if len(owners) > 1 or (owners and owners != {args.noise_owner}):
        raise ValueError(
            f"Noise has exactly one owner, but noise_owner={args.noise_owner!r} and noise is set in: {', '.join(sorted(owners))}. "
            "Keep it in one place: RobustTrainingArguments(noise=...), the SmoothedClassifier's configuration, or the processor."
        )
    if args.noise_owner == "model" and not (wrapped and model.config.noise is not None):
        raise ValueError("noise_owner='model' needs a SmoothedClassifier with noise=... in its configuration.")
    if isinstance(model, SmoothedClassifier) and processor is not None:
        check_own_processor(processor, model)
    if any(parameter.dtype == torch.float16 for parameter in model.parameters()):
        raise ValueError(
            "The weights are float16, in which training diverges. Load the model with dtype=torch.float32; bf16=True makes training cheaper."
        )
    normalises = [args.image_mean, args.image_std, args.model_size]
    if (wrapped or args.noise_owner == "processor") and any(value is not None for value in normalises):
        other = (
            "a SmoothedClassifier resizes and normalises itself" if wrapped else "the processor resizes and normalises"
        )
        raise ValueError(f"image_mean, image_std and model_size must not be given to the trainer: {other}.")
    if args.noise_owner == "processor" and (args.crop_padding or args.horizontal_flip):
        raise ValueError(
            "crop_padding and horizontal_flip come before noise, so with noise_owner='processor' its transform must do them."
        )
