"""Initial weights with which interval bounds neither explode nor vanish."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn


@torch.no_grad()
def initialise_for_intervals(model: nn.Module, halved: Sequence[str] = ()) -> None:
    """Draw the weights of all convolutions and linear layers but the last from N(0, 2 pi / fan_in^2), and set their biases to 0.

    With them the expected width of an interval stays the same from layer to layer (at ReLU, before any training), where the usual
    initialisation lets it grow by a factor of the order of sqrt(fan_in).

    Args:
        model: Model to be changed in place, from torch's global random state.
        halved: Names of layers right after residual additions, which double the width: they get half the weights.

    Raises:
        ValueError: If `halved` names no such layer.

    Source: Shi et al., arXiv 2103.17268, section 3.1.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))
    }
    unknown = set(halved) - set(layers)
    if unknown:
        raise ValueError(
            f"`halved` names {sorted(unknown)}, which are no linear layers or convolutions. There are: {', '.join(layers)}"
        )
    for name, layer in list(layers.items())[:-1]:
        fan_in = layer.weight[0].numel()
        layer.weight.normal_(0.0, math.sqrt(2.0 * math.pi) / fan_in * (0.5 if name in halved else 1.0))
        if layer.bias is not None:
            layer.bias.zero_()
