"""The activations of some layers of a network, and whether they can be compared."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hf_smoothing.models.network import Network, recorded


CURE = "Name other modules to compare: layers=[...]."


@torch.no_grad()
def activations(network: Network, layers: Mapping[str, nn.Module], pixels: Tensor, whose: str) -> dict[str, Tensor]:
    """Layer -> activations (batch, ...), of one forward pass.

    Args:
        network: Network that has the layers.
        layers: Modules by name, in the order in which they are compared.
        pixels: Pixels (batch, channels, height, width).
        whose: Role of the network, for messages.

    Raises:
        ValueError: If a layer does not run, or gives something else than a tensor with one row per image.
    """
    with recorded(dict(layers)) as seen:
        network(pixels)
    for name in layers:
        if name not in seen:
            raise ValueError(
                f"A layer to compare must run when images are classified, but {name} of the {whose} network never does. {CURE}"
            )
        value = seen[name]
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        if not isinstance(value, Tensor) or value.ndim < 2 or len(value) != len(pixels):
            raise ValueError(
                f"A layer to compare must give a tensor with one row per image, but {name} of the {whose} network gives {got} for {len(pixels)} images. {CURE}"
            )
    return {name: seen[name] for name in layers}
