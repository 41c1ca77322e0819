"""Noticing that training has diverged, without waiting for the device at every step."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class DivergedError(RuntimeError):
    """Training stopped because the loss or the weights are no longer finite."""


class FiniteWatch:
    """Remembers on the device whether every loss so far was finite; only `check` waits for it."""

    def __init__(self) -> None:
        self._finite: Tensor | None = None

    def see(self, loss: Tensor) -> None:
        """Args: loss: of a forward pass."""
        finite = torch.isfinite(loss.detach())
        self._finite = finite if self._finite is None else self._finite & finite

    def check(self, step: int, checkpoint: str | None, model: nn.Module | None = None) -> None:
        """Stop if a loss was not finite, or a weight or batch-norm statistic of `model` is not.

        Args:
            step: the optimizer step at hand, for the message.
            checkpoint: the last good one, if there is any.
            model: looked at as well, before its weights are saved.

        Raises:
            DivergedError: naming the last good checkpoint.
        """
        bad = None
        if self._finite is not None and not bool(self._finite):
            bad = "the loss"
        elif model is not None and not _finite(model.parameters()):
            bad = "a weight"
        elif model is not None and not _finite(model.buffers()):
            bad = "a batch-norm statistic"
        if bad:
            kept = f"The last good checkpoint is {checkpoint}" if checkpoint else "No checkpoint had been saved"
            raise DivergedError(
                f"Training diverged: by step {step} {bad} was no longer finite, so training was stopped and nothing more was saved. {kept}. "
                "Start again with a smaller learning_rate, a longer warm-up (warmup_steps), or a smaller max_grad_norm."
            )


def _finite(values: Iterable[Tensor]) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in values if value.is_floating_point())
