"""Checkpoints restored whole, with averaged weights where there are any."""

from __future__ import annotations

import copy
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import HubStrategy, get_last_checkpoint, has_length
from transformers.utils import IMAGE_PROCESSOR_NAME

from hf_smoothing.json_text import as_json
from hf_smoothing.models.restoring import load_as
from hf_smoothing.training import training_weights
from hf_smoothing.training.averaging import AveragingCallback, WeightAverage
from hf_smoothing.training.finite import FiniteWatch
from hf_smoothing.training.model_card import note_differences
from hf_smoothing.training.resuming import FreshDraws, find_checkpoint, place_in_stream


STATE = {
    TRAINER_STATE_NAME: "the steps made", OPTIMIZER_NAME: "the optimizer", SCHEDULER_NAME: "the learning rates", "rng_state*.pth": "the random numbers",
}  # fmt: skip
"""The files of a checkpoint beside its weights, of which the stock Trainer starts anew those that are missing, without a word."""


def check_state(checkpoint: str, split: bool) -> None:
    """Refuse to go on from a checkpoint without the state of its training.

    Args:
        checkpoint: Folder of the checkpoint.
        split: Whether FSDP or DeepSpeed keep the optimizer, in files of their own.

    Raises:
        ValueError: The message names what is missing.
    """
    folder = Path(checkpoint)
    needed = {name: what for name, what in STATE.items() if not (split and name in (OPTIMIZER_NAME, SCHEDULER_NAME))}
    missing = [f"{name} ({what})" for name, what in needed.items() if not any(folder.glob(name))]
    if not missing:
        return
    if (last := get_last_checkpoint(checkpoint)) is not None:
        cure = f"Pass one of the checkpoints in it, such as {last}."
    else:
        cure = (
            "Bring the files back, or start a new training from the weights: load them with from_pretrained and leave resume_from_checkpoint out. "
            "Training with save_only_model=False keeps the state."
        )
    raise ValueError(
        f"`resume_from_checkpoint` needs a checkpoint with the state of its training, but {checkpoint} has no {', no '.join(missing)}. {cure}"
    )


class WholeCheckpoints(Trainer):
    """The stock Trainer loads a state dict saved under other names, and keeps what does not match.

    Args:
        note: How the network is trained, as its configuration will say: "noise" and "objective".
        kwargs: As for `transformers.Trainer`.
    """

    args: Any
    model: Any

    def __init__(self, *, note: dict[str, Any], **kwargs: Any) -> None:
        self.note = note
        self._forget()
        super().__init__(**kwargs)
        self.add_callback(FreshDraws())
        if self.args.ema_decay is not None:
            # The first one, so that others that measure after a step find it in the average.
            averaging = AveragingCallback(self._running_average, lambda: self.model)
            self.callback_handler.callbacks.insert(0, averaging)

    def _forget(self) -> None:
        """Begin anew, whatever an earlier training, perhaps broken off, has left."""
        self.average: WeightAverage | None = None
        self._finite_watch = FiniteWatch()
        self._last_checkpoint: str | None = None

    def _running_average(self) -> WeightAverage:
        """The current average: it begins with the training, unless a checkpoint brought it."""
        if self.average is None:
            self.average = WeightAverage(self.model, self.args.ema_decay)
        return self.average

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As the parent; the model ends with its averaged weights where there are any.

        Raises:
            ValueError: If there is no checkpoint to go on from, or it holds weights without the state of their training.
        """
        self._forget()
        checkpoint = find_checkpoint(resume_from_checkpoint, self.args)
        if checkpoint is not None:
            check_state(checkpoint, split=self.is_fsdp_enabled or self.is_deepspeed_enabled)
        try:
            result = super().train(checkpoint, *args, **kwargs)
        finally:
            self.is_in_train = False  # also after one that was broken off, so that what is evaluated then is measured
        if self.average is not None:
            self.average.copy_to(self.model)
            self.average = None
        return result

    @contextmanager
    def _averaged(self) -> Iterator[dict[str, Tensor] | None]:
        """The model with its averaged weights for a while; yields those it trains."""
        if self.average is None:
            yield None
            return
        with self.average.applied(self.model) as own:
            yield own

    def _check_finite(self, model: nn.Module | None = None) -> None:
        self._finite_watch.check(self.state.global_step, self._last_checkpoint, model, self.args.world_size)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._check_finite(self.model)
        super()._save_checkpoint(model, trial)
        self._last_checkpoint = os.path.join(self._get_output_dir(trial), f"checkpoint-{self.state.global_step}")

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        folder = output_dir or self.args.output_dir
        if self.args.should_save:
            training_weights.remove(folder)
        with self._averaged() as own, self._arguments_without_networks():
            super()._save(output_dir, state_dict)
            if self.average is not None and own is not None and self.args.should_save:
                training_weights.write(folder, own, self.average.rounded_in(self.model))

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """As the parent, which uploads the arguments as they are, and no image processor but one that it was given."""
        made = os.path.join(checkpoint_folder, IMAGE_PROCESSOR_NAME)  # by a `SmoothedClassifier`
        if self.is_world_process_zero() and self.args.hub_strategy != HubStrategy.END and os.path.isfile(made):
            shutil.copy(made, self.args.output_dir)
        with self._arguments_without_networks():
            super()._push_from_checkpoint(checkpoint_folder)

    @contextmanager
    def _arguments_without_networks(self) -> Iterator[None]:
        """A teacher would be pickled into each checkpoint, and uploaded, weights and all."""
        given, self.args = self.args, copy.copy(self.args)
        self.args.objective_args = as_json(given.objective_args)
        try:
            yield
        finally:
            self.args = given

    def _init_training_state(
        self, max_steps: int, steps_per_epoch: int, epochs: int, resume_from_checkpoint: str | None, *args: Any
    ) -> tuple[int, int]:
        """As the parent, but at its place in a stream."""
        trained: tuple[int, int] = super()._init_training_state(
            max_steps, steps_per_epoch, epochs, resume_from_checkpoint, *args
        )
        if resume_from_checkpoint is None or has_length(self.train_dataset):
            return trained
        epoch, batches = place_in_stream(resume_from_checkpoint, self.args) or trained
        return epoch, 0 if self.args.ignore_data_skip else batches

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """As the parent, which trains one step more on resuming a complete run in the middle of an epoch."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        model, self._last_checkpoint = model or self.model, resume_from_checkpoint
        if not self._restore(model, resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        if (found := training_weights.read(resume_from_checkpoint)) is not None:
            if self.args.ema_decay is None:
                raise ValueError(
                    f"{resume_from_checkpoint} was saved with ema_decay, so it must be resumed with it. Pass the same ema_decay."
                )
            own, average = found
            self.average = WeightAverage(model, self.args.ema_decay)
            self.average.restore(average)
            model.load_state_dict(own)

    def _load_best_model(self) -> None:
        if not self._restore(self.model, self.state.best_model_checkpoint):
            super()._load_best_model()
        self.average = None  # the best checkpoint holds its own average already

    def _restore(self, model: nn.Module, checkpoint: str) -> bool:
        if not isinstance(model, PreTrainedModel) or self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return False
        if not os.path.isfile(os.path.join(checkpoint, "config.json")):
            return False
        saved = load_as(model, checkpoint)
        if other := note_differences(getattr(saved.config, "hf_smoothing", None), self.note):
            warnings.warn(f"{checkpoint} was trained otherwise: {other}.", stacklevel=2)
        model.load_state_dict(saved.state_dict())  # strict: every tensor, or an error
        if hasattr(saved.config, "hf_smoothing"):  # a run that is complete sees no batch to note it from
            model.config.hf_smoothing = saved.config.hf_smoothing
        return True
