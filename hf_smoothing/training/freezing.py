"""Training a part of a network only."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from torch import nn

from hf_smoothing.models.masked import is_autoencoder


def named_in(model: nn.Module, patterns: Sequence[str] | str) -> list[str]:
    """Names of the parameters that contain one of the patterns as whole components.

    Args:
        model: The model.
        patterns: Name patterns, e.g. ["classifier", "stages.3"], or one.

    Raises:
        TypeError: If they are no names.
        ValueError: If there is no pattern, or one matches nothing.
    """
    patterns = [patterns] if isinstance(patterns, str) and patterns else patterns
    if not isinstance(patterns, Iterable) or not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f"`trainable` must be a list of names of modules, such as ['classifier'], got {patterns!r}.")
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
    return [name for name in names if any(f".{pattern}." in f".{name}." for pattern in patterns)]


def train_only(model: nn.Module, names: Collection[str] | None) -> None:
    """Train the parameters of these names alone.

    What an earlier call froze is trained again, unless this one freezes it too. What somebody else froze stays so where it is not named; of a
    classifier with LoRA all does.

    Args:
        model: Model to be changed in place.
        names: Names of parameters, or None for all that nobody else froze.
    """
    if getattr(getattr(model, "config", None), "lora", None) is None:
        _train_again(model)
    if names is None:
        return
    for name, parameter in model.named_parameters():
        if is_autoencoder(model) and "pos" in name and not parameter.requires_grad:
            continue  # a table of sines, fixed by design
        if parameter.requires_grad and name not in names:
            where, _, own = name.rpartition(".")
            module = model.get_submodule(where)
            vars(module)[_FROZEN] = vars(module).get(_FROZEN, frozenset()) | {own}
        parameter.requires_grad_(name in names)


_FROZEN = "_frozen_in_training"
"""Of a module, the names of its own parameters that `train_only` froze: there they stay known where the network is copied, or wrapped."""


def _train_again(model: nn.Module) -> None:
    for module in model.modules():
        for name in vars(module).pop(_FROZEN, ()):
            parameter = module._parameters.get(name)
            if parameter is not None:
                parameter.requires_grad_(True)
