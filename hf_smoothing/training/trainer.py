"""`RobustTrainer`: `transformers.Trainer` with an objective, noise on the device, and the corrections that training here needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_smoothing.allocator import memory_kept
from hf_smoothing.models.forward import logits_of
from hf_smoothing.models.masked import is_autoencoder
from hf_smoothing.models.outputs import check_channels
from hf_smoothing.models.smoothed_classifier import SmoothedClassifier
from hf_smoothing.noise import training_generator
from hf_smoothing.pixels import check_image_batch, to_unit_pixels, warn_other_framing, without_tolerance
from hf_smoothing.preprocessing import Preprocessing
from hf_smoothing.training.arguments import RobustTrainingArguments
from hf_smoothing.training.augmentation import random_crop, random_flip
from hf_smoothing.training.checks import (
    check_one_owner,
    check_optimizer,
    check_request,
    check_settled,
    nothing_trained,
    settled,
)
from hf_smoothing.training.classes import check_classes
from hf_smoothing.training.collator import PixelCollator
from hf_smoothing.training.device_data import DevicePixels, can_be_on_device
from hf_smoothing.training.evaluation import ImageMeans
from hf_smoothing.training.freezing import train_only
from hf_smoothing.training.labels import hard_labels, soft_labels
from hf_smoothing.training.layerwise import split_by_depth, trained_names
from hf_smoothing.training.log_progress import say_progress_in_logs
from hf_smoothing.training.model_card import complete_card, noise_note, objective_note, pixels_note
from hf_smoothing.training.objectives import (
    OBJECTIVES,
    Batch,
    Network,
    Objective,
    ObjectiveState,
    find_objective,
    needs_labels,
    of_intervals,
    takes_probabilities,
)
from hf_smoothing.training.pixel_statements import find_preprocessing, processor_preprocessing
from hf_smoothing.training.resuming import noise_seed
from hf_smoothing.training.returned import loss_and_figures
from hf_smoothing.training.sent_buffers import buffers_sent_once
from hf_smoothing.training.small_batches import first_pass
from hf_smoothing.training.stochastic_depth import stochastic_depth


if TYPE_CHECKING:
    from transformers import BaseImageProcessor


class RobustTrainer(ImageMeans):
    """Trains a `SmoothedClassifier`, any plain image classifier of `transformers` or a masked autoencoder, from scratch or from a checkpoint.

    The data are clean [0, 1] (or uint8) pixels at the certified resolution under "pixel_values", and "labels". The trainer augments
    them, the objective adds noise and takes the loss, and resizing and normalisation follow: inside a `SmoothedClassifier`, or
    here for a plain backbone. With noise_owner="processor" the pixels are ready as they come.

    What it adds to the stock Trainer: noise of its own for every rank and forward pass, so that a resumed run is bit-exact (that of a model or processor is not repeated);
    checkpoints restored whole (the stock Trainer restores 8 of 40 tensors of a ViT); gradient accumulation that averages over the micro-batches, whatever their size;
    frozen parts; a note in the checkpoint (`config.hf_smoothing`) of the pixels that the network knows.

    Args:
        model: The classifier. Not a function that makes one: `model_init` is refused.
        args: The arguments. What says who adds noise, what is trained and how pixels are normalised is settled here, and refused if it is changed later.
        objective: A callable, or the name of an objective, that replaces the one named in `args`.
        processing_class: An image processor of a plain backbone; its size and normalisation are used and saved.
        kwargs: As for `transformers.Trainer`.

    Raises:
        TypeError: On a module that is no model of `transformers`.
        ValueError: If two owners would add noise or normalise, the normalisation of a plain backbone is unknown, or the head is
            not for single-label classification.
    """

    args: RobustTrainingArguments
    model: Any

    def __init__(
        self,
        model: PreTrainedModel | None = None,
        args: RobustTrainingArguments | None = None,
        *,
        objective: Objective | str | None = None,
        processing_class: BaseImageProcessor | None = None,
        data_collator: Callable[[list[Any]], Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        model, args = check_request(model, args, objective, kwargs)
        num_labels = None if is_autoencoder(model) else model.config.num_labels
        check_one_owner(model, args, processing_class)
        asked = objective or args.objective
        self.objective = find_objective(asked, OBJECTIVES, args.objective_args)  # type: ignore[arg-type]
        name = asked if isinstance(asked, str) else getattr(asked, "__name__", type(asked).__name__)
        note = {"noise": noise_note(model, args, processing_class), "objective": objective_note(self.objective, name)}
        self._settled = settled(model, args, processing_class)
        preprocessing = find_preprocessing(model, args, processing_class)
        finetuning = args.finetuning()
        trained = trained_names(model, args)
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self._frozen_norms = norms if finetuning.freeze_batch_norm else []
        self._forward_pass = (-1, 0)  # (global step, micro-step)
        self._first_batch = True
        self._noted_size: tuple[int, ...] | None = None
        self._logs: dict[str, tuple[Tensor | float, int]] = {}
        train_dataset = kwargs.pop("train_dataset", None)
        self._framing = getattr(train_dataset, "framing", None)
        warn_other_framing(model, train_dataset)
        if num_labels is not None:
            check_classes(model, train_dataset)
            check_classes(model, kwargs.get("eval_dataset"))
        if can_be_on_device(train_dataset) and data_collator is None and not args.remove_unused_columns:
            where = args.device if args.data_on_device else torch.device("cpu")
            train_dataset = DevicePixels(train_dataset, where, num_labels)
        elif args.data_on_device:
            raise ValueError(
                "`data_on_device` needs decoded pixels, no data_collator of your own, no subclass that reads items in its own way and "
                f"remove_unused_columns=False, got {type(train_dataset).__name__}. Pass PixelDataset(...).decode() as train_dataset."
            )
        super().__init__(
            note=note, num_labels=num_labels, preprocessing=preprocessing, votes_matter=not of_intervals(self.objective) or args.chooses_by_votes(), model=model, args=args, train_dataset=train_dataset,
            data_collator=data_collator or PixelCollator(num_labels, ready=args.noise_owner == "processor"),
            processing_class=processing_class, **kwargs,
        )  # fmt: skip
        say_progress_in_logs(self)
        self._rates_by_depth = finetuning.body_learning_rate is not None or args.layer_decay < 1.0
        check_optimizer(self, self._rates_by_depth)
        # The model is changed last of all: one that is refused stays as it was.
        train_only(model, trained)
        if isinstance(model, SmoothedClassifier):
            model.config.noise_owner = args.noise_owner  # what the saved configuration says should be what was done
        if args.channels_last:
            model.to(memory_format=torch.channels_last)
        # The loss is the mean over a micro-batch, so Trainer must divide it when it accumulates gradients. It would not for a
        # ResNet, whose forward takes **kwargs and so seems to scale its loss itself.
        self.model_accepts_loss_kwargs = False

    @memory_kept()
    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As the parent; afterwards all ranks hold the same model, and it runs in the dtype of its weights."""
        self._logs = {}  # an earlier training, perhaps broken off, may have left some
        with self._without_mixed_precision_after():
            result = super().train(*args, **kwargs)
        self._share_buffers()
        self._check_finite(self.model)
        return result

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        # Here and not in train(): the loop starts again with a smaller batch after running out of memory.
        self._forward_pass, self._first_batch = (-1, 0), True
        if self.args.torch_compile:  # a graph compiled before would be taken again, without the hooks of this training
            torch._dynamo.reset()
        rate = self.args.drop_path
        hooks = stochastic_depth(self.model, rate, lambda: self._generator) if rate else []
        try:
            return super()._inner_training_loop(*args, **kwargs)
        finally:
            for hook in hooks:
                hook.remove()

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """As the parent, with a learning rate for each depth where one is asked for."""
        made = self.optimizer is not None
        optimizer = super().create_optimizer(*args, **kwargs)
        if not made and self._rates_by_depth:
            split_by_depth(optimizer, self.model, self.args)
        return optimizer

    def classify(self, pixels: Tensor) -> Tensor:
        """Logits of the model in training for [0, 1] pixels (noise allowed): the base classifier of the theory.

        Raises:
            ValueError: If the processor of noise_owner="processor" does not say how its network's pixels are made.
        """
        if self.args.noise_owner == "processor" and not isinstance(self.model, SmoothedClassifier):
            pixels = self._processor_preprocessing(pixels).to(self.model.dtype)
        return self._logits(pixels)

    @cached_property
    def _processor_preprocessing(self) -> Preprocessing:
        return processor_preprocessing(self.processing_class, self.model)

    def _logits(self, pixels: Tensor, model: nn.Module | None = None, **inputs: Any) -> Tensor:
        """Of training pixels, which with noise_owner="processor" are ready; `inputs` are for the model."""
        target = self.model if model is None else model
        if isinstance(self.model, SmoothedClassifier) and not self.model.training:
            # Not through DDP, which would run the voting forward; so not through the `forward` that mixed precision wraps either.
            with self.accelerator.autocast():
                return self.model.classify(pixels)
        return logits_of(target, self._model_pixels(pixels), self.model.config, **inputs)

    def _model_pixels(self, pixels: Tensor) -> Tensor:
        if not isinstance(self.model, SmoothedClassifier):  # which says so itself
            check_channels(pixels, self.model.config, f"This {type(self.model).__name__}")
        return pixels if self.preprocessing is None else self.preprocessing(pixels).to(self.model.dtype)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The objective."""
        check_settled(self._settled, settled(self.model, self.args, self.processing_class))
        for norm in self._frozen_norms:
            norm.eval()
        if "labels" not in inputs and needs_labels(self.objective):
            raise ValueError(
                f"Training needs 'labels' beside 'pixel_values', got {sorted(inputs)}. Which column holds them?"
            )
        values = inputs["pixel_values"]
        # Looking at values makes the host wait for a device, so in training only those of its first batch are looked at there.
        look = values.device.type == "cpu" or self._first_batch or not model.training
        labels = self._training_labels(inputs.get("labels"), values, look)
        self._generator = self._next_generator(values.device, model.training)
        pixels = self._training_pixels(values, self._generator, look, augment=model.training)
        state = ObjectiveState(
            noise=self.args.mixture(),
            noise_owner=self.args.noise_owner,
            generator=self._generator,
            progress=min(self.state.global_step / max(self.state.max_steps, 1), 1.0),
            label_smoothing=self.args.label_smoothing_factor,
        )
        network = Network(
            self.model,
            lambda x, **inputs: self._logits(x, model, **inputs),
            self._model_pixels,
            self.accelerator.autocast,
            self._logits,
        )
        watch: AbstractContextManager[None] = nullcontext()
        if model.training and self._first_batch:
            watch = first_pass(
                self.model, self.args, self.train_dataset,
                batch_size=self._train_batch_size, steps=self.state.max_steps, images=len(pixels),
            )  # fmt: skip
            self._first_batch = False
        with watch, buffers_sent_once(model):
            returned = self.objective(network, Batch(pixels, labels), state)
        loss, figures = loss_and_figures(returned, self.note["objective"]["name"])
        if model.training:
            if not loss.requires_grad:
                raise ValueError(nothing_trained(self.args, self.note["objective"]["name"]))
            self._finite_watch.see(loss)
            for name, value in figures.items():
                total, count = self._logs.get(name, (0.0, 0))
                self._logs[name] = (total + value, count + 1)
        return (loss, {"loss": loss}) if return_outputs else loss

    def _training_labels(self, labels: Tensor | None, values: Tensor, look: bool) -> Tensor:
        if labels is None:
            return torch.empty(0, dtype=torch.long, device=values.device)
        if self._num_labels is None or not needs_labels(self.objective):
            return labels
        if takes_probabilities(self.objective):
            return soft_labels(labels, len(values), self._num_labels, look=look)
        return hard_labels(labels, len(values), self._num_labels, look=look, all_labelled=True)

    def _training_pixels(self, values: Tensor, generator: torch.Generator, look: bool, augment: bool = True) -> Tensor:
        if self.args.noise_owner == "processor":
            pixels = check_image_batch(values, "pixel_values")
            self._leave_note(tuple(pixels.shape[-2:]))
            # A wrapper normalises them still, so it casts them itself, later.
            return pixels if isinstance(self.model, SmoothedClassifier) else pixels.to(self.model.dtype)
        pixels = values if values.dtype == torch.float32 and not look else to_unit_pixels(values, "pixel_values")
        if values.is_floating_point():
            pixels = without_tolerance(pixels)  # attacks and bounds take nothing beyond [0, 1]
        if not augment:
            return pixels
        self._leave_note(tuple(pixels.shape[-2:]))
        if self.args.crop_padding:
            pixels = random_crop(pixels, self.args.crop_padding, generator)
        return random_flip(pixels, generator) if self.args.horizontal_flip else pixels

    def _next_generator(self, device: torch.device, training: bool) -> torch.Generator:
        if not training:  # every evaluation asks the same
            self._evaluated += 1
            return training_generator(
                self.args.seed, self._evaluated, self.args.process_index, self.args.world_size, device
            )
        step, micro = self._forward_pass
        micro = micro + 1 if step == self.state.global_step else 0
        self._forward_pass = (self.state.global_step, micro)
        number = self.state.global_step * self.args.gradient_accumulation_steps + micro
        return training_generator(noise_seed(self.args), number, self.args.process_index, self.args.world_size, device)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log, with the objective's own figures averaged since the last time; stop if training has diverged."""
        if "loss" in logs:
            self._check_finite()
        if "loss" in logs and self._logs:
            logs = {**logs, **{name: float(total) / count for name, (total, count) in self._logs.items()}}
            self._logs = {}
        super().log(logs, *args, **kwargs)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """As the parent, with the noise, the objective, and how to load and certify the model."""
        super().create_model_card(*args, **kwargs)
        if self.is_world_process_zero():
            complete_card(self.model, self.args, self.note)

    def _leave_note(self, size: tuple[int, ...]) -> None:
        """Leave in the configuration how it was trained, and of a plain backbone its pixels, for `SmoothedClassifier.from_base_pretrained`."""
        if size != self._noted_size:
            self._noted_size = size
            args = (self.args, self.processing_class, self.preprocessing, self._framing)
            self._pixels_note = pixels_note(self.model, *args, size)
        self.model.config.hf_smoothing = self._pixels_note | self.note
