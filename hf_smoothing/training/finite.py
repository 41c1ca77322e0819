"""Noticing that training has diverged, without waiting for the device at every step."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class DivergedError(RuntimeError):
    """Training stopped because the loss or the weights are no longer finite."""


class FiniteWatch:
    """Remembers on the device whether every loss so far was finite; only `check` waits for it."""

    def __init__(self) -> None:
        self._finite: Tensor | None = None

    def see(self, loss: Tensor) -> None:
        """Note the loss of a forward pass."""
        finite = torch.isfinite(loss.detach())
        self._finite = finite if self._finite is None else self._finite & finite

    def check(self, step: int, checkpoint: str | None, model: nn.Module | None = None, ranks: int = 1) -> None:
        """Stop, on all ranks together, if a loss was not finite, or a weight or batch-norm statistic of `model` is not.

        Args:
            step: Current optimizer step, for the message.
            checkpoint: The last good one, if there is any.
            model: Model, which is checked as well, before its weights are saved.
            ranks: Number of ranks; all must call this at the same step.

        Raises:
            DivergedError: The message names the last good checkpoint.
        """
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm)] if model is not None else []
        found = [
            self._finite is None or bool(self._finite),
            model is None or _finite(model.parameters()),
            _finite(buffer for norm in norms for buffer in norm.buffers()),
        ]
        if ranks > 1:  # one that stopped alone would leave the others waiting for it
            together = torch.tensor(
                found, dtype=torch.int32, device="cpu" if self._finite is None else self._finite.device
            )
            torch.distributed.all_reduce(together, torch.distributed.ReduceOp.MIN)
            found = together.bool().tolist()
        names = ("the loss", "a weight", "a batch-norm statistic")
        bad = next((name for name, finite in zip(names, found, strict=True) if not finite), None)
        if bad:
            kept = (
                f"The last checkpoint, all finite, is {checkpoint}" if checkpoint else "No checkpoint had been saved"
            )
            raise DivergedError(
                f"Training diverged: by step {step} {bad} was no longer finite, so training was stopped and nothing more was saved. {kept}. "
                "Start again with a smaller learning_rate, a longer warm-up (warmup_steps), or gradients clipped more (max_grad_norm; 0 clips nothing)."
            )


def _finite(values: Iterable[Tensor]) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in values if value.is_floating_point())
