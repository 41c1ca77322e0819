"""Going on from a checkpoint: which one, from which place in the data, and with which random numbers."""

from __future__ import annotations

import os
from typing import Any

from transformers import TrainerCallback, TrainerState, TrainingArguments, set_seed
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from hf_smoothing.noise.streams import seed_words


def noise_seed(args: TrainingArguments) -> int:
    """Seed of the noise of a training.

    With another number of forward passes per step, counted over all ranks, it is another seed: a training that is resumed with one would count
    its passes from a number on that it had reached before, and draw the same noise once more.
    """
    passes = args.gradient_accumulation_steps * args.world_size
    return int(args.seed) if passes == 1 else seed_words(f"{args.seed} in {passes} passes per step")[0]


def place_in_stream(checkpoint: str, args: TrainingArguments) -> tuple[int, int] | None:
    """How far a training on a stream had come: the number of the epoch, and of the batches that were read of it.

    `Trainer` takes the steps of a whole training for one epoch of a stream, whose length it does not know. Resumed after the first epoch it would read
    on in the first one, but there is nothing left of it. Its state says the place: the epoch, and the share of all steps that were made in it.

    Args:
        checkpoint: Folder of the checkpoint.
        args: Arguments of the training that goes on.

    Returns:
        The pair, or None where the state does not say.
    """
    state = TrainerState.load_from_json(os.path.join(checkpoint, TRAINER_STATE_NAME))
    if state.epoch is None or state.max_steps <= 0:
        return None
    epoch, share = divmod(state.epoch, 1.0)
    return int(epoch), round(share * state.max_steps) * args.gradient_accumulation_steps


def find_checkpoint(asked: str | bool | None, args: TrainingArguments) -> str | None:
    """The checkpoint to go on from: the one asked for, the last one in the output folder for True, or None; as text, "true" and "false" are no folders.

    Raises:
        ValueError: If there is none.
    """
    asked = {"true": True, "false": False}.get(str(asked).lower(), asked)
    if asked is None or asked is False:
        return None
    folder = str(args.output_dir) if asked is True else os.fspath(asked)
    found = None
    if os.path.isdir(folder):
        found = get_last_checkpoint(folder) if asked is True else folder
    if found is None:
        what = f"no checkpoint in {folder}" if asked is True else f"no folder {folder}"
        raise ValueError(
            f"`resume_from_checkpoint` needs a checkpoint to go on from, and there is {what}. Leave it out to start anew; checkpoints are written as "
            "save_strategy says."
        )
    return found


class FreshDraws(TrainerCallback):
    """Gives the workers and the first batches of an epoch that is resumed in its middle random numbers of their own.

    `Trainer` starts to read them with the seed of the run and restores the generators afterwards, so that a processor would add the
    noise of the epoch's beginning once more. Which images come next does not depend on the global generators, but where
    use_seedable_sampler is switched off: there they stay.
    """

    def __init__(self) -> None:
        self._resumed = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See whether the training goes on from a checkpoint."""
        self._resumed = state.global_step > 0 and args.accelerator_config.use_seedable_sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Seed the first epoch anew; at the end of an epoch the generators of the checkpoint win, and they repeat nothing."""
        if self._resumed:
            set_seed(seed_words(f"{args.seed} resumed at {state.global_step}")[0])
        self._resumed = False
