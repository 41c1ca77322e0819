"""By how much the true class provably wins within a box: lower bounds of f_y - f_t."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hf_smoothing.interval.box import Box, Trace
from hf_smoothing.interval.rounding import widened


@dataclass(frozen=True)
class Margins:
    """Bounds for a batch.

    Attributes:
        lower: (batch, num_labels): lower bound of f_y - f_t over the box; inf at t = y.
        logits: (batch, num_labels) at the centre, or None if the box had no value.
    """

    lower: Tensor
    logits: Tensor | None

    @property
    def worst(self) -> Tensor:
        """(batch,): the smallest margin; positive where the true class provably wins."""
        return self.lower.amin(dim=1)


def box_around(pixels: Tensor, epsilon: Tensor | float, trace: Trace | None = None, value: bool = False) -> Box:
    """The l-infinity ball around each image, within [0, 1].

    Args:
        pixels: float (batch, channels, height, width) in [0, 1].
        epsilon: radius in [0, 1] pixel units, one number or one an image.
        trace: of the journey to come.
        value: whether the images themselves travel with the box.
    """
    radius = torch.as_tensor(epsilon, dtype=pixels.dtype, device=pixels.device)
    if radius.ndim:
        radius = radius.view(-1, *(1,) * (pixels.ndim - 1))
    box = Box((pixels - radius).clamp(min=0.0), (pixels + radius).clamp(max=1.0), pixels if value else None, trace)
    return widened(box, terms=2)


def margin_bounds(network: Callable[[Any], Any], box: Box, labels: Tensor, head: Any = None) -> Margins:
    """Send a box through a network and bound the margins of the labels.

    The differences f_y - f_t are merged into the last linear layer, which is tighter than bounding both logits.

    Args:
        network: box -> box of logits (or an output with `logits`).
        box: of what the network takes.
        labels: int64 (batch,).
        head: the module whose last `nn.Linear` is merged; `network` itself by default.

    Raises:
        UnsupportedOperationError: naming an operation without a bound.
    """
    with _entering(network if head is None else head) as seen:
        output = network(box)
    logits: Box = getattr(output, "logits", output)
    chosen = torch.arange(len(labels), device=labels.device), labels
    if seen and seen["output"] is logits:
        lower = _merged(seen["layer"], seen["input"], labels)
    else:
        lower = widened(
            Box(logits.lower[chosen][:, None] - logits.upper, logits.upper, None, logits.trace), terms=2
        ).lower
    lower = lower.clone()
    lower[chosen] = torch.inf
    return Margins(lower, logits.value)


def _merged(layer: nn.Linear, box: Box, labels: Tensor) -> Tensor:
    weight = layer.weight[labels][:, None] - layer.weight[None]  # (batch, num_labels, features)
    centre, radius = box.centre, box.radius
    lower = torch.einsum("bkf,bf->bk", weight, centre) - torch.einsum("bkf,bf->bk", weight.abs(), radius)
    if layer.bias is not None:
        lower = lower + layer.bias[labels][:, None] - layer.bias[None]
    if not box.trace.outward:
        return lower
    largest = torch.maximum(box.lower.abs(), box.upper.abs())
    both = layer.weight[labels][:, None].abs() + layer.weight[None].abs()
    sizes = torch.einsum("bkf,bf->bk", both, largest)
    if layer.bias is not None:
        sizes = sizes + layer.bias[labels][:, None].abs() + layer.bias[None].abs()
    return widened(Box(lower, lower, None, box.trace), terms=2 * largest.shape[1] + 16, sizes=2 * sizes).lower


@contextmanager
def _entering(network: Any) -> Iterator[dict[str, Any]]:
    """What enters and leaves the last linear layer."""
    seen: dict[str, Any] = {}
    layers = [m for m in network.modules() if isinstance(m, nn.Linear)] if isinstance(network, nn.Module) else []
    if not layers:
        yield seen
        return

    def note(layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        seen.update(layer=layer, input=args[0], output=output)

    handle = layers[-1].register_forward_hook(note)
    try:
        yield seen
    finally:
        handle.remove()
