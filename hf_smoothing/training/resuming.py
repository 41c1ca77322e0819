"""What an epoch that is resumed in its middle reads first."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, set_seed

from hf_smoothing.noise.streams import seed_words


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
