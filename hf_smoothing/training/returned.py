"""What an objective has returned, also one of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

from torch import Tensor


RESERVED = ("loss", "grad_norm", "learning_rate", "epoch", "step", "total_flos")
"""Names of what the trainer logs itself."""


def loss_and_figures(returned: Any, name: str) -> tuple[Tensor, dict[str, Tensor | float]]:
    """The loss, and the figures to log, tensors of one value (without a gradient) or numbers.

    Args:
        returned: What an objective returned.
        name: Name of the objective, for the message.

    Raises:
        TypeError: If it is no pair of a loss and figures.
        ValueError: If the loss or a figure has several values, or a figure the name of one that is logged anyway.
    """
    if not (isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[0], Tensor)):
        what = "a tensor alone" if isinstance(returned, Tensor) else _kind(returned)
        raise TypeError(
            f"An objective returns its loss, a tensor, and figures to log, a dictionary: {name!r} returned {what}. Without figures: return loss, {{}}."
        )
    loss, logs = returned
    if not isinstance(logs, Mapping):
        raise TypeError(
            f"The figures of an objective must be a dictionary such as {{'accuracy': 0.5}}, got {_kind(logs)} from {name!r}. Without any: return loss, {{}}."
        )
    if loss.numel() != 1:
        raise ValueError(
            f"The loss of an objective must be the mean over the batch, got shape {tuple(loss.shape)} from {name!r}. Return loss.mean()."
        )
    for key, value in logs.items():
        if key in RESERVED:
            raise ValueError(
                f"{name!r} logs a figure named {key!r}, which the trainer logs itself. Name it otherwise: none of {', '.join(RESERVED)}."
            )
        if not isinstance(value, Real) and not (isinstance(value, Tensor) and value.numel() == 1):
            raise ValueError(
                f"Figures of an objective must be numbers or tensors of one value, got {_kind(value)} as {key!r} from {name!r}. Log its mean."
            )
    figures = {key: value.detach() if isinstance(value, Tensor) else float(value) for key, value in logs.items()}
    return loss.reshape(()), figures


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, tuple):
        return f"a tuple of {', '.join(type(part).__name__ for part in value) or 'nothing'}"
    return f"a {type(value).__name__}"
