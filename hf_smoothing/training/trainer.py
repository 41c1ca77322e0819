"""`RobustTrainer`: `transformers.Trainer` with an objective, noise on the device, and the mends that training here needs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer

from hf_smoothing.models.configuration import check_head
from hf_smoothing.models.smoothed_classifier import SmoothedClassifier
from hf_smoothing.noise import training_generator
from hf_smoothing.pixels import check_image_batch, to_unit_pixels
from hf_smoothing.preprocessing import Preprocessing, parse_size
from hf_smoothing.training.arguments import RobustTrainingArguments
from hf_smoothing.training.augmentation import random_crop, random_flip
from hf_smoothing.training.objectives import OBJECTIVES, Batch, Objective, ObjectiveState, find_objective


class RobustTrainer(Trainer):
    """Trains a `SmoothedClassifier` or any plain image classifier of `transformers`, from scratch or from a checkpoint.

    The data are clean [0, 1] (or uint8) pixels at the certified resolution under "pixel_values", and "labels". The trainer augments
    them, the objective adds noise and takes the loss, and resizing and normalisation follow: inside a `SmoothedClassifier`, or
    here for a plain backbone. With noise_owner="processor" the pixels are ready as they come.

    What it adds to the stock Trainer: noise of its own for every rank and forward pass, so that a resumed run is bit-exact;
    checkpoints restored whole (the stock Trainer restores 8 of 40 tensors of a ViT); gradient accumulation that averages;
    frozen parts; a note in the checkpoint (`config.hf_smoothing`) of the pixels that the network knows.

    Args:
        model: the classifier.
        args: the arguments.
        objective: a callable that replaces the one named in `args`.
        processing_class: an image processor of a plain backbone; its size and normalisation are used and saved.
        kwargs: as for `transformers.Trainer`.

    Raises:
        ValueError: if two owners would add noise or normalise, the normalisation of a plain backbone is unknown, or the head is
            not for single-label classification.
    """

    args: RobustTrainingArguments

    def __init__(
        self,
        model: PreTrainedModel,
        args: RobustTrainingArguments,
        *,
        objective: Objective | None = None,
        processing_class: Any = None,
        data_collator: Any = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(args, RobustTrainingArguments):
            raise TypeError(f"`args` must be RobustTrainingArguments, got {type(args).__name__}.")
        if kwargs.get("compute_loss_func") is not None:
            raise ValueError("RobustTrainer takes its loss as `objective`, not `compute_loss_func`.")
        check_head(model.config)
        _check_one_owner(model, args, processing_class)
        if isinstance(model, SmoothedClassifier):
            model.config.noise_owner = args.noise_owner  # what the saved configuration says should be what was done
        self.objective = find_objective(objective or args.objective, OBJECTIVES)
        self.preprocessing = _find_preprocessing(model, args, processing_class)
        if args.trainable is not None:
            train_only(model, args.trainable)
        if args.channels_last:
            model = model.to(memory_format=torch.channels_last)
        self._frozen_norms = (
            [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
            if args.freeze_batch_norm
            else []
        )
        self._forward_pass = (-1, 0)  # (global step, micro-step)
        self._pixels_checked = False
        self._evaluated = 0
        self._logs: dict[str, list[Tensor]] = {}
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator
            or PixelCollator(model.config.num_labels, ready=args.noise_owner == "processor"),
            processing_class=processing_class,
            **kwargs,
        )
        # The loss is the mean over a micro-batch, so Trainer must divide it when it accumulates gradients. It would not for a
        # ResNet, whose forward takes **kwargs and so seems to scale its loss itself.
        self.model_accepts_loss_kwargs = False

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As the parent."""
        self._forward_pass = (-1, 0)
        return super().train(*args, **kwargs)

    def classify(self, pixels: Tensor, model: nn.Module | None = None) -> Tensor:
        """Logits of the model in training for [0, 1] pixels (noise allowed): the base classifier of the theory."""
        target = self.model if model is None else model
        if isinstance(target, SmoothedClassifier) and not target.training:
            return target.classify(pixels)
        logits: Tensor = target(pixel_values=self._model_pixels(pixels)).logits
        return logits

    def _model_pixels(self, pixels: Tensor) -> Tensor:
        return pixels if self.preprocessing is None else self.preprocessing(pixels)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The objective in training; the model's own loss in evaluation."""
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        for norm in self._frozen_norms:
            norm.eval()
        if "labels" not in inputs:
            raise ValueError(
                f"Training needs 'labels' beside 'pixel_values', got {sorted(inputs)}. Which column holds them?"
            )
        labels = inputs["labels"]
        generator = self._next_generator(labels.device)
        pixels = self._training_pixels(inputs["pixel_values"], generator)
        state = ObjectiveState(
            noise=self.args.mixture(),
            generator=generator,
            progress=self.state.global_step / max(self.state.max_steps, 1),
            label_smoothing=self.args.label_smoothing_factor,
        )
        loss, logs = self.objective(lambda x: self.classify(x, model), Batch(pixels, labels), state)
        for name, value in logs.items():
            self._logs.setdefault(name, []).append(value.detach())
        return (loss, {"loss": loss}) if return_outputs else loss

    def _training_pixels(self, values: Tensor, generator: torch.Generator) -> Tensor:
        if self.args.noise_owner == "processor":
            return check_image_batch(values, "pixel_values")
        # Looking at the values makes the host wait for the device, so only the first batch is looked at.
        looked_at, self._pixels_checked = self._pixels_checked, True
        pixels = values if looked_at and values.is_floating_point() else to_unit_pixels(values, "pixel_values")
        self._note_pixels(tuple(pixels.shape[-2:]))
        if self.args.crop_padding:
            pixels = random_crop(pixels, self.args.crop_padding, generator)
        return random_flip(pixels, generator) if self.args.horizontal_flip else pixels

    def _next_generator(self, device: torch.device) -> torch.Generator:
        step, micro = self._forward_pass
        micro = micro + 1 if step == self.state.global_step else 0
        self._forward_pass = (self.state.global_step, micro)
        number = self.state.global_step * self.args.gradient_accumulation_steps + micro
        return training_generator(self.args.seed, number, self.args.process_index, self.args.world_size, device)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """As the parent; batches are numbered, so that votes do not depend on their size."""
        self._evaluated = 0
        return super().evaluation_loop(*args, **kwargs)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """One evaluation step: clean images; a `SmoothedClassifier` votes with noise seeded by `args.seed`."""
        inputs = dict(self._prepare_inputs(inputs))
        if isinstance(self.model, SmoothedClassifier):
            number = self._evaluated * self.args.world_size + self.args.process_index
            inputs |= {"seed": self.args.seed, "first_index": number * self.args.eval_batch_size}
            self._evaluated += 1
        elif self.preprocessing is not None:
            inputs["pixel_values"] = self.preprocessing(to_unit_pixels(inputs["pixel_values"], "pixel_values"))
        step: tuple[Tensor | None, Tensor | None, Tensor | None]
        step = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        return step

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log, with the objective's own figures averaged since the last time."""
        if "loss" in logs and self._logs:
            logs = {**logs, **{name: float(torch.stack(values).mean()) for name, values in self._logs.items()}}
            self._logs = {}
        super().log(logs, *args, **kwargs)

    def _note_pixels(self, size: tuple[int, ...]) -> None:
        """Leave in a plain backbone's configuration what its pixels are, for `SmoothedClassifier.from_base_pretrained`."""
        if self.preprocessing is not None:
            mixture = self.args.mixture()
            noise = None if mixture is None else mixture.to_dict()
            self.model.config.hf_smoothing = {"size": list(size), **self.preprocessing.to_dict(), "noise": noise}

    # --- Checkpoints: the stock Trainer loads a state dict saved under other names, and keeps what does not match. ---

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if not self._restore(model or self.model, resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        if not self._restore(self.model, self.state.best_model_checkpoint):
            super()._load_best_model()

    def _restore(self, model: nn.Module, checkpoint: str) -> bool:
        if not isinstance(model, PreTrainedModel) or self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return False
        if not os.path.isfile(os.path.join(checkpoint, "config.json")):
            return False
        saved = type(model).from_pretrained(checkpoint, dtype=model.dtype, use_safetensors=True)
        model.load_state_dict(saved.state_dict())  # strict: every tensor, or an error
        return True


class PixelCollator:
    """Stacks items into a batch and checks labels and shapes while they are on the CPU.

    Args:
        num_labels: number of classes.
        ready: the pixels are noisy and normalised already, so that any value is right.

    Raises:
        ValueError: on mixed shapes, pixels that are neither uint8 nor in [0, 1], or labels outside the classes.
    """

    def __init__(self, num_labels: int, ready: bool = False) -> None:
        self.num_labels = num_labels
        self.ready = ready

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Args: items: mappings with "pixel_values" and maybe "labels" (or "label")."""
        if not items:
            raise ValueError("A batch needs at least one item, got none.")
        if any("pixel_values" not in item for item in items):
            raise ValueError(
                f"Each item needs 'pixel_values', got {sorted(items[0])}. Use PixelDataset, or a transform that makes them."
            )
        images = [torch.as_tensor(item["pixel_values"]) for item in items]
        if len({image.shape for image in images}) > 1:
            shapes = sorted({tuple(image.shape) for image in images})
            raise ValueError(
                f"Images of a batch must have one size and channel count, got {shapes}. Use PixelDataset to resize them."
            )
        batch = {"pixel_values": torch.stack(images)}
        if batch["pixel_values"].dtype != torch.uint8 and not self.ready:
            batch["pixel_values"] = to_unit_pixels(batch["pixel_values"], "pixel_values")
        key = next((name for name in ("labels", "label") if name in items[0]), None)
        if key is not None:
            if any(item.get(key) is None for item in items):
                raise ValueError(f"Some items of the batch have {key!r} and others none: drop the unlabelled images.")
            labels = torch.as_tensor([int(item[key]) for item in items])
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= self.num_labels:
                raise ValueError(
                    f"Labels must be classes in [0, {self.num_labels}), got {low if low < 0 else high}. "
                    "Unlabelled images cannot be trained on; a data set with other classes needs num_labels set to theirs."
                )
            batch["labels"] = labels
        return batch


def train_only(model: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze every parameter but those whose name contains one of the patterns as whole components.

    Args:
        model: changed in place.
        patterns: e.g. ["classifier", "stages.3"].

    Raises:
        ValueError: if there is no pattern, or one matches nothing.
    """
    names = [name for name, _ in model.named_parameters()]
    if not patterns:
        raise ValueError(
            "`trainable` is empty, so nothing would be trained. Name modules, or leave it out to train all."
        )
    for pattern in patterns:
        if not any(f".{pattern}." in f".{name}." for name in names):
            children = sorted({".".join(name.split(".")[:4]) for name in names})
            raise ValueError(
                f"`trainable` names {pattern!r}, which no parameter has. There are: {', '.join(children[:30])}"
            )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(f".{pattern}." in f".{name}." for pattern in patterns))


def _check_one_owner(model: PreTrainedModel, args: RobustTrainingArguments, processor: Any) -> None:
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
    if wrapped and getattr(processor, "do_normalize", False):
        raise ValueError(
            "A SmoothedClassifier normalises itself, so its image processor must not: pass model.image_processor(), or one with "
            "do_normalize=False."
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


def _find_preprocessing(model: PreTrainedModel, args: RobustTrainingArguments, processor: Any) -> Preprocessing | None:
    """Resize and normalisation of a plain backbone; None where the model or the processor does it."""
    if isinstance(model, SmoothedClassifier) or args.noise_owner == "processor":
        return None
    if args.image_mean is not None and args.image_std is not None:
        return Preprocessing(tuple(args.image_mean), tuple(args.image_std), parse_size(args.model_size))
    if processor is not None:
        seen = getattr(processor, "model_size", None) or getattr(processor, "crop_size", None) or processor.size
        mean, std = tuple(processor.image_mean), tuple(processor.image_std)
        if not processor.do_normalize:
            mean, std = (0.0,) * len(mean), (1.0,) * len(std)
        return Preprocessing(mean, std, parse_size(args.model_size or seen))
    noted = getattr(model.config, "hf_smoothing", None)
    if isinstance(noted, dict):
        return Preprocessing(
            tuple(noted["image_mean"]), tuple(noted["image_std"]), parse_size(args.model_size or noted["model_size"])
        )
    raise ValueError(
        f"The normalisation of this {type(model).__name__} is not known. Pass its image processor as processing_class, or image_mean and "
        "image_std (and model_size, if images are resized for it) in RobustTrainingArguments."
    )
