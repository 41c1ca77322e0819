"""The exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import TrainerCallback


OWN_WEIGHTS = "training_weights.safetensors"
"""In a checkpoint of a run with `ema_decay`: the weights that training goes on from; the model file holds their average."""


class WeightAverage:
    """A running average of everything in a model's state dict, batch-norm statistics included.

    Early on the decay is (1 + step) / (10 + step), if that is less, so that the first weights do not linger.

    Args:
        model: The average starts at its weights.
        decay: Share of the old average that stays at each step, in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def update(self, model: nn.Module, step: int) -> None:
        """Take the weights after optimizer step number `step` (1 for the first) into the average."""
        average, now = [], []
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                average.append(self.values[name])
                now.append(value.detach())
            else:
                self.values[name].copy_(value)  # counters
        decay = min(self.decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)(average, now, torch.tensor(step))

    def copy_to(self, model: nn.Module) -> None:
        """Give the model the averaged weights."""
        _copy(self.values, model)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[dict[str, Tensor]]:
        """The model with the averaged weights, and afterwards with its own again; yields its own."""
        own = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.copy_to(model)
        try:
            yield own
        finally:
            _copy(own, model)


@torch.no_grad()
def _copy(values: dict[str, Tensor], model: nn.Module) -> None:
    for name, value in model.state_dict().items():
        value.copy_(values[name])


class AveragingCallback(TrainerCallback):
    """Takes the new weights into a running average after each optimizer step.

    Args:
        average: Gives the current average; asked when training begins, and after each step.
        model: Gives the model in training.
    """

    def __init__(self, average: Callable[[], WeightAverage], model: Callable[[], nn.Module]) -> None:
        self.average, self.model = average, model

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Begin the average at the weights before the first step."""
        self.average()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take in the new weights."""
        self.average().update(self.model(), state.global_step)
