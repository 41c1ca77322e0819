"""Training a part of a network only."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from hf_smoothing.models.masked import is_autoencoder


def freeze_all_but(model: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze every parameter but those whose name contains one of the patterns as whole components.

    Args:
        model: Model to be changed in place.
        patterns: Name patterns, e.g. ["classifier", "stages.3"].

    Raises:
        ValueError: If there is no pattern, or one matches nothing.
    """
    names = [name for name, _ in model.named_parameters()]
    if not patterns:
        raise ValueError(
            "`trainable` is empty, so nothing would be trained. Name modules, or leave it out to train all."
        )
    for pattern in patterns:
        if not any(f".{pattern}." in f".{name}." for name in names):
            children = sorted({".".join(name.split(".")[:4]) for name in names})
            raise ValueError(
                f"`trainable` names {pattern!r}, which no parameter has. There are: {', '.join(children[:30])}"
            )
    for name, parameter in model.named_parameters():
        if is_autoencoder(model) and "pos" in name and not parameter.requires_grad:
            continue  # a table of sines, fixed by design
        parameter.requires_grad_(any(f".{pattern}." in f".{name}." for pattern in patterns))
