"""Initial weights with which interval bounds neither explode nor vanish."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized


@torch.no_grad()
def initialise_for_intervals(model: nn.Module, halved: Sequence[str] = (), *, last: str | None = None) -> None:
    """Draw the weights of all convolutions and linear layers but the last from N(0, 2 pi / fan_in^2), and set their biases to 0.

    With them the expected width of an interval stays the same from layer to layer (at ReLU, before any training), where the usual
    initialisation lets it grow by a factor of the order of sqrt(fan_in). Weights of a parametrised layer (weight norm) are assigned through it.

    Args:
        model: Model to be changed in place, from torch's global random state.
        halved: Names of layers right after residual additions, which double the width: they get half the weights.
        last: Name of the layer that makes the logits, whose weights are left. By default the one with `config.num_labels` outputs, the last of a
            `Sequential`, or the only one whose outputs no other layer has room for.

    Raises:
        ValueError: If `halved` or `last` names no such layer, if several may be the last one, or a layer computes its weight in a way that does not
            take what is assigned. Nothing has been changed then.

    Source: Shi et al., arXiv 2103.17268, section 3.1.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))
    }
    left = _last(model, layers) if last is None else last
    unknown = (set(halved) | {left}) - set(layers)
    if unknown:
        option = "halved" if set(halved) & unknown else "last"
        raise ValueError(
            f"`{option}` names {sorted(unknown)}, which are no linear layers or convolutions. There are: {', '.join(layers)}"
        )
    if left in halved:
        raise ValueError(
            f"`halved` names {left!r}, the last layer, which is left as it is. Leave it out, or name another `last`."
        )
    drawn = {name: layer for name, layer in layers.items() if name != left}
    for name, layer in drawn.items():
        _check_assignable(name, layer)
    for name, layer in drawn.items():
        fan_in = layer.weight[0].numel()
        spread = math.sqrt(2.0 * math.pi) / fan_in * (0.5 if name in halved else 1.0)
        _assign(layer, "weight", torch.empty_like(layer.weight).normal_(0.0, spread))
        if layer.bias is not None:
            _assign(layer, "bias", torch.zeros_like(layer.bias))


def _last(model: nn.Module, layers: Mapping[str, nn.Module]) -> str:
    """The name of the layer that makes the logits.

    Raises:
        ValueError: If several may.
    """
    count = getattr(getattr(model, "config", None), "num_labels", None)
    found = [name for name, layer in layers.items() if isinstance(layer, nn.Linear) and layer.out_features == count]
    if found or len(layers) < 2:
        return (found or list(layers) or [""])[-1]
    if _in_order(model):
        return list(layers)[-1]
    found = [
        name
        for name, layer in layers.items()
        if not any(_fits(layer, other) for other in layers.values() if other is not layer)
    ]
    if len(found) == 1:
        return found[0]
    raise ValueError(
        f"The layer that makes the logits keeps its weights, and it may be {' or '.join(found or layers)}. Name it: initialise_for_intervals(model, last=...)."
    )


def _in_order(model: nn.Module) -> bool:
    """Whether all layers are called in the order in which they are registered: a `Sequential` of layers and of such."""
    children = list(model.children())
    return not children or is_parametrized(model) or (
        isinstance(model, nn.Sequential) and all(_in_order(child) for child in children)
    )  # fmt: skip


def _fits(layer: nn.Module, after: nn.Module) -> bool:
    """Whether the outputs of one layer may be the inputs of another; channels of a convolution also after flattening."""
    if isinstance(layer, nn.Linear):
        return isinstance(after, nn.Linear) and layer.out_features == after.in_features
    channels = int(layer.out_channels)  # type: ignore[arg-type]
    if isinstance(after, nn.Linear):
        return after.in_features % channels == 0
    return channels == after.in_channels


def _check_assignable(name: str, layer: nn.Module) -> None:
    """Refuse a layer that would not have the weights and biases that are assigned to it.

    Raises:
        ValueError: The message names it.
    """
    for which in ("weight", "bias"):
        if layer._parameters.get(which, layer) is None:  # no bias
            continue
        what, cure = f"The {which} of {name!r}", "Initialise the network first, and wrap or run the layer then."
        if is_parametrized(layer, which):
            if not _takes(layer, which):
                steps = layer.get_submodule(f"parametrizations.{which}").children()
                kinds = ", ".join(type(step).__name__ for step in steps)
                raise ValueError(
                    f"{what} must take what is assigned, and its parametrisation ({kinds}) makes something else of it. {cure}"
                )
        elif which not in layer._parameters:
            raise ValueError(
                f"{what} must be a parameter to be assigned, and it is computed from {', '.join(layer._parameters)} at each call (older weight or spectral "
                f"norm, pruning). {cure} torch.nn.utils.parametrizations.weight_norm works either way."
            )
        elif is_lazy(layer.get_parameter(which)):
            raise ValueError(f"{what} has no shape yet. Run the network once.")


def _takes(layer: nn.Module, which: str) -> bool:
    """Whether a parametrised tensor is what was assigned to it: any matrix of weights, and 0 for biases."""
    tried = copy.deepcopy(layer)
    wanted = torch.zeros_like(getattr(tried, which))
    if which == "weight":
        wanted.copy_(torch.randn(wanted.shape, generator=torch.Generator().manual_seed(0)))
    try:
        setattr(tried, which, wanted)
    except Exception:  # whatever a parametrisation without an inverse raises
        return False
    return torch.allclose(getattr(tried, which), wanted, rtol=1e-3, atol=1e-4)


def _assign(layer: nn.Module, name: str, value: Tensor) -> None:
    if is_parametrized(layer, name):
        setattr(layer, name, value)
    else:
        getattr(layer, name).copy_(value)
