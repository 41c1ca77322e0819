"""What objectives share: noisy copies, checks of what they are given, and how one is found by its name."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from numbers import Integral, Real
from typing import Any, cast

import torch
from torch import Tensor

from hf_smoothing.models.network import Network
from hf_smoothing.noise import NoiseMixture
from hf_smoothing.training.objectives.signature import (
    Batch,
    Loss,
    Objective,
    ObjectiveState,
)


def network_of(model: Callable[[Tensor], Tensor], why: str) -> Network:
    """The model, if an objective can look inside it.

    Raises:
        TypeError: If it is a mere function.
    """
    if not isinstance(model, Network):
        raise TypeError(f"{why} needs a Network(module, classify), not just its logits, got {type(model).__name__}.")
    return model


def clean_pixels(state: ObjectiveState, what: str) -> None:
    """Refuse noise, whoever adds it, beside which an attack, a bound or a distance within [0, 1] pixels means nothing.

    Args:
        state: State of the objective.
        what: What it does with clean images, for the message, such as "TRADES attacks clean images".

    Raises:
        ValueError: With training noise, or with pixels that are not clean ones.
    """
    if state.noise is not None:
        raise ValueError(
            f"{what}, but there is training noise. Set noise='clean'; where the objective is called as a function, pass ObjectiveState(None, ...)."
        )
    if state.noise_owner != "trainer":
        raise ValueError(
            f"{what}, but the {state.noise_owner} owns the noise and may add it. Leave it to the trainer: noise='clean' and noise_owner='trainer'"
            + (", and noise=None in the model." if state.noise_owner == "model" else ", with pixels in [0, 1].")
        )


def noisy_copies(batch: Batch, state: ObjectiveState, copies: int, name: str) -> tuple[Tensor, Tensor]:
    """Noise for several copies of each image, those of an image with one sigma, so that their mean is the smoothed classifier at it.

    Args:
        batch, state: Batch and state of the objective.
        copies: Number of copies of each image.
        name: Name of the objective, for errors.

    Returns:
        The tuple (noise float32 (copies, batch, channels, height, width), sigma float32 (batch,)).

    Raises:
        ValueError: Without noise, or on a number of copies that makes no sense.
    """
    if isinstance(copies, bool) or not isinstance(copies, int) or copies < 1:
        raise ValueError(f"{name} needs a whole number of noisy copies, at least 1, got copies={copies}.")
    if state.noise is None:
        raise ValueError(
            f"{name} trains on noisy copies, but there is no noise. Set `noise` to a sigma or a mixture, or use objective='mixture'; where the objective is "
            "called as a function, pass ObjectiveState(NoiseMixture((0.25,)), ...)."
        )
    sigma = state.noise.sample_sigmas(len(batch.pixels), state.generator)
    zero = torch.zeros_like(batch.pixels).repeat(copies, 1, 1, 1)
    noise = state.noise.add(zero, state.generator, sigma.repeat(copies))[0]
    return noise.view(copies, *batch.pixels.shape), sigma


def for_each_image(
    setting: float | Sequence[float], name: str, noise: NoiseMixture | None, sigma: Tensor
) -> float | Tensor:
    """A setting of an objective, given once or for each sigma of the mixture, as it is for each image.

    Args:
        setting: One number >= 0, or one for each entry of `noise.sigmas`, in their order. Clean images have that of the
            smallest sigma.
        name: Name of the setting, for errors.
        noise: The mixture.
        sigma: Noise level, float32 (batch,), drawn from it.

    Returns:
        The number, or float32 (batch,).

    Raises:
        ValueError: If a number is negative, or there are several and not one for each sigma of a list.
    """
    levels = [setting] if isinstance(setting, (int, float)) else list(setting)
    if not all(isinstance(level, (int, float)) and level >= 0.0 for level in levels):
        raise ValueError(f"`{name}` must be >= 0, or a list of such numbers, got {setting!r}.")
    if isinstance(setting, (int, float)):
        return float(setting)
    sigmas = () if noise is None or noise.distribution != "list" else noise.sigmas
    if len(levels) != len(sigmas):
        raise ValueError(
            f"`{name}` needs one number for each sigma of the mixture, {list(sigmas) or 'which has no list of them'}, got {levels}. Give as many, or one for all."
        )
    apart = (sigma[:, None] - torch.tensor(sigmas, device=sigma.device)).abs()
    return torch.tensor(levels, device=sigma.device)[apart.argmin(dim=1)]


def no_smoothing(state: ObjectiveState, name: str) -> None:
    """Refuse label smoothing where an objective has no place for it.

    Raises:
        ValueError: If it is asked for.
    """
    if state.label_smoothing:
        raise ValueError(
            f"{name} has no label smoothing, got {state.label_smoothing}. Set label_smoothing_factor=0, or ObjectiveState(label_smoothing=0.0)."
        )


def of_intervals(objective: Objective) -> bool:
    """Whether an objective trains interval bounds, whose certificates have nothing to do with noise or votes: by where it is defined."""
    while isinstance(objective, functools.partial):
        objective = objective.func
    return getattr(objective, "__module__", "").startswith("hf_smoothing.interval.")


def find_objective(
    asked: str | Objective, known: Mapping[str, Loss | str], settings: Mapping[str, Any] | None = None
) -> Objective:
    """The objective itself, or the one of that name, with its settings filled in.

    Args:
        asked: A name or a callable.
        known: Objectives by name, or "module:function".
        settings: Keyword arguments of the objective, such as {"copies": 2}.

    Raises:
        TypeError: If it is neither a name nor a callable.
        ValueError: If there is none of that name, it has no such setting, one of another kind, or one that it needs is missing.
    """
    if isinstance(asked, str):
        if asked not in known:
            raise ValueError(f"`objective` must be one of {', '.join(sorted(known))}, or a callable, got {asked!r}.")
        found = known[asked]
        if isinstance(found, str):
            module, _, name = found.partition(":")
            found = getattr(import_module(module), name)
        objective = cast(Objective, found)
    else:
        if not callable(asked):
            raise TypeError(
                f"`objective` must be one of {', '.join(sorted(known))}, or a callable, got {asked!r}. Leave it out for 'mixture'."
            )
        objective = asked
    named, settings = isinstance(asked, str), settings or {}
    parameters = inspect.signature(objective).parameters
    accepted = {name: p for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    unknown = sorted(set(settings) - set(accepted))
    if unknown:
        raise ValueError(
            f"`objective_args` names {', '.join(map(repr, unknown))}; this objective has {', '.join(accepted) or 'no settings'}."
        )
    missing = [name for name, p in accepted.items() if p.default is inspect.Parameter.empty and name not in settings]
    if missing:
        raise ValueError(
            f"This objective needs {', '.join(map(repr, missing))}: give it in `objective_args`, such as {{{missing[0]!r}: ...}}."
        )
    if named:
        for name, value in settings.items():
            # A list where the objective takes one number or several; which fit is its own affair.
            several = isinstance(value, (list, tuple)) and "Sequence[float]" in str(accepted[name].annotation)
            for one in value if several else [value]:
                _check_kind(name, one, accepted[name].default)
    return functools.partial(objective, **settings) if settings else objective


def _check_kind(name: str, value: Any, default: Any) -> None:
    """Refuse a setting of another kind than its default; ranges are the objective's affair.

    Raises:
        ValueError: The message names it.
    """
    number = isinstance(value, Real) and not isinstance(value, bool)
    kinds = {
        bool: ("true or false", isinstance(value, bool)),
        int: ("a whole number", number and isinstance(value, Integral)),
        float: ("a finite number", number and abs(value) < math.inf),
        str: ("a name", isinstance(value, str)),
    }
    kind, right = kinds.get(type(default), ("", True))
    if not right:
        raise ValueError(f"`objective_args` must give {kind} for {name!r}, such as {default!r}, got {value!r}.")
