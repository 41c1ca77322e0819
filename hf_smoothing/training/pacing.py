"""How many epochs fit into some minutes on this machine: measured first, by training copies of the model for a few seconds."""

from __future__ import annotations

import copy
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, PreTrainedModel, TrainerCallback, set_seed
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from hf_smoothing.json_text import parse_json
from hf_smoothing.training.arguments import RobustTrainingArguments
from hf_smoothing.training.trainer import RobustTrainer


FIRST_STEPS = 20
"""Steps that are not timed: the device loads its kernels in them."""


class Pace(TrainerCallback):
    """Times the steps of a training, and stops it after some seconds.

    Args:
        seconds: Seconds of timed steps.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.steps = seconds, 0
        self._began = self._ended = 0.0

    @property
    def steps_per_second(self) -> float:
        """Of the timed steps."""
        return self.steps / (self._ended - self._began)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at the clock, after the device has finished."""
        if state.global_step < FIRST_STEPS:
            return
        if torch.accelerator.is_available() and not args.use_cpu:
            torch.accelerator.synchronize()
        self._ended = time.perf_counter()
        if state.global_step == FIRST_STEPS:
            self._began = self._ended
        else:
            self.steps = state.global_step - FIRST_STEPS
            control.should_training_stop = self._ended - self._began >= self.seconds


def epochs_within(
    minutes: float,
    model: PreTrainedModel,
    args: RobustTrainingArguments,
    make_trainer: Callable[[PreTrainedModel, RobustTrainingArguments], RobustTrainer],
    seconds: float = 6.0,
) -> float:
    """Number of epochs that training takes so many minutes for, noted in the output folder.

    A run that goes on from a checkpoint keeps the number that was noted, since its learning rates follow from it; so does one with the
    same minutes. Others measure anew.

    Args:
        minutes: What the training may take.
        model: The model; copies are trained.
        args: Arguments of the training. The trials evaluate, save, report and upload nothing.
        make_trainer: A function of (model, args) -> trainer; called once for each of two trials.
        seconds: About how many seconds of training to time.

    Returns:
        The number, at least 1 and rounded down to tenths.

    Raises:
        ValueError: If the minutes are not a positive number.
    """
    if not minutes > 0.0:
        raise ValueError(f"`minutes` must be a positive number, got {minutes}.")
    noted = Path(str(args.output_dir)) / "pace.json"
    before = _read_note(noted)
    if before is not None and (args.resume_from_checkpoint or before["minutes"] == minutes):
        return before["epochs"]
    # How many steps are made in half of the time tells how long the second trial is, whose progress then is that of a whole training: some objectives
    # cost more the further it is.
    steps, _, _ = _tried(model, args, make_trainer, Pace(seconds / 2), 1_000_000)
    _, rate, steps_per_epoch = _tried(model, args, make_trainer, Pace(math.inf), FIRST_STEPS + steps)
    set_seed(args.seed)  # as if the trial had not been
    epochs = max(1.0, int(10 * 60.0 * minutes * rate / steps_per_epoch) / 10)
    noted.parent.mkdir(parents=True, exist_ok=True)
    found = {"epochs": epochs, "minutes": minutes, "steps_per_second": round(rate, 2)}
    partial = noted.with_suffix(".partial")
    partial.write_text(json.dumps(found) + "\n", encoding="utf-8")
    os.replace(partial, noted)  # a whole note or none
    print(f"{epochs:g} epochs fit into {minutes:g} minutes ({rate:.1f} steps per second).", flush=True)
    return epochs


def _tried(
    model: PreTrainedModel,
    args: RobustTrainingArguments,
    make_trainer: Callable[[PreTrainedModel, RobustTrainingArguments], RobustTrainer],
    pace: Pace,
    max_steps: int,
) -> tuple[int, float, int]:
    """Train a copy of the model elsewhere: the number of steps that were timed, how many were made per second, and how many an epoch has."""
    trial = copy.copy(args)
    trial.max_steps = max_steps
    # Nothing is kept, shown or uploaded, and nothing but training takes time.
    trial.save_strategy, trial.eval_strategy, trial.logging_strategy = (
        SaveStrategy.NO,
        IntervalStrategy.NO,
        IntervalStrategy.NO,
    )
    trial.push_to_hub = trial.load_best_model_at_end = trial.eval_on_start = trial.logging_first_step = False
    trial.report_to = []
    with tempfile.TemporaryDirectory() as folder:
        trial.output_dir = folder
        trainer = make_trainer(copy.deepcopy(model), trial)
        trainer.remove_callback(EarlyStoppingCallback)  # which asks for evaluations
        trainer.add_callback(pace)
        trainer.train()
    updates = math.ceil(len(trainer.get_train_dataloader()) / args.gradient_accumulation_steps)
    return pace.steps, pace.steps_per_second, updates


def _read_note(file: Path) -> dict[str, float] | None:
    """The "epochs" and "minutes" noted in a file; None where there is none that can be read."""
    try:
        note = parse_json(file.read_bytes())
        return {key: float(note[key]) for key in ("epochs", "minutes")}
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
