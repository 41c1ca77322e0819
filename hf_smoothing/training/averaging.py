"""The exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import TrainerCallback


class WeightAverage:
    """A running average of everything in a model's state dict, batch-norm statistics included.

    Early on the decay is (1 + step) / (10 + step), if that is less, so that the first weights do not linger.
    It is kept in float32 at the least: in bfloat16 a step of (1 - decay) times a difference rounds to nothing.

    Args:
        model: The average starts at its weights.
        decay: Share of the old average that stays at each step, in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {
            name: value.detach().to(_kept_in(value.dtype), copy=True) for name, value in model.state_dict().items()
        }

    def update(self, model: nn.Module, step: int) -> None:
        """Take the weights after optimizer step number `step` (1 for the first) into the average."""
        average, now = [], []
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                average.append(self.values[name])
                now.append(value.detach().to(self.values[name].dtype))
            else:
                self.values[name].copy_(value)  # counters
        decay = min(self.decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)(average, now, torch.tensor(step))

    def copy_to(self, model: nn.Module) -> None:
        """Give the model the averaged weights, rounded to the dtype of its own."""
        _copy(self.values, model)

    def rounded_in(self, model: nn.Module) -> dict[str, Tensor]:
        """Those averages that a model holds rounded after `copy_to`, since its weights are of less than float32."""
        kept = model.state_dict()
        return {name: value for name, value in self.values.items() if value.dtype != kept[name].dtype}

    def restore(self, average: Mapping[str, Tensor]) -> None:
        """Take averages from a checkpoint; those that are not among them stay."""
        for name, value in average.items():
            self.values[name].copy_(value)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[dict[str, Tensor]]:
        """The model with the averaged weights, and afterwards with its own again; yields its own."""
        own = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.copy_to(model)
        try:
            yield own
        finally:
            _copy(own, model)


def _kept_in(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32) if dtype.is_floating_point else dtype


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
