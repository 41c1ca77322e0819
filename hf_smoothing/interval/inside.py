"""Points of certified balls at which a network is run beside its bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from hf_smoothing.interval.classifier import run_as_covered
from hf_smoothing.interval.margins import logits_of


RANDOM = 2
"""Number of random corners, the same for every image; besides, the brightest and the darkest one and one down the gradient of a margin."""

PIECE = 32
"""Images of which gradients are taken at once, since a graph holds the activations of all layers."""


def points_inside(
    classify: Callable[[Any], Any], images: Tensor, radii: Tensor, classes: Tensor, lower: Tensor, dtype: torch.dtype
) -> Iterator[Tensor]:
    """Corners of the l-infinity balls within [0, 1], as a run of the network is given them, in float64.

    They depend on nothing but the image, its ball and the network, whatever else is in the batch.

    Args:
        classify: From pixels to logits.
        images: Images, float64 (batch, channels, height, width).
        radii: Radii, (batch,).
        classes: Certified classes, int64 (batch,).
        lower: Lower bounds of the margins, (batch, num_labels), of which the smallest chooses the class whose margin is climbed down.
        dtype: Computing dtype of the network.

    Yields:
        One point of each image, (batch, channels, height, width).
    """
    reach = radii.view(-1, *(1,) * (images.ndim - 1))

    def corner(direction: Tensor | float) -> Tensor:
        return (images + reach * direction).clamp(0.0, 1.0).to(dtype).to(images.dtype)

    yield corner(1.0)
    yield corner(-1.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(RANDOM):
        signs = 2.0 * torch.randint(0, 2, images.shape[1:], generator=generator) - 1.0
        yield corner(signs.to(images))
    others = lower.argmin(1)
    pieces = (part.split(PIECE) for part in (images.to(dtype), classes, others))
    downhill = [_downhill(classify, *piece) for piece in zip(*pieces, strict=True)]
    found = [direction for direction in downhill if direction is not None]
    if len(found) == len(downhill):
        yield corner(torch.cat(found).to(images.dtype))


def _downhill(classify: Callable[[Any], Any], images: Tensor, classes: Tensor, others: Tensor) -> Tensor | None:
    """The signs of the steepest descent of f_y - f_t, of the shape of the images; None where the network has no gradients."""
    pixels = images.clone().requires_grad_()
    try:
        with torch.enable_grad(), run_as_covered():
            logits = logits_of(classify, pixels.clone())  # a network may change its pixels in place
            margins = logits.gather(1, classes[:, None]) - logits.gather(1, others[:, None])
            (gradient,) = torch.autograd.grad(margins.sum(), pixels)
    except Exception:  # whatever a network without gradients may raise: other points remain
        return None
    return -gradient.nan_to_num().sign()
