"""Input diversity: gradients through randomly resized images, so that an attack does not fit one resolution."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_smoothing.attacks.losses import logits_of_batch
from hf_smoothing.types import Classifier


def diverse_inputs(
    logits_of: Classifier, probability: float, generator: torch.Generator | None = None, *, smallest: float = 0.9
) -> Callable[[Tensor], Tensor]:
    """The classifier behind a random resizing: with this probability a batch is shrunk and padded with black to its old size.

    Args:
        logits_of: As for `pgd`.
        probability: Probability of the resizing, in [0, 1].
        generator: Generator on any device; decides sizes and places. torch's global one by default.
        smallest: Smallest factor of height and width, in (0, 1].

    Raises:
        ValueError: On a probability or factor out of range.

    Source: Xie et al. (2019), arXiv 1803.06978, which enlarges instead: the size here stays that of the network.
    """
    if not 0.0 <= probability <= 1.0 or not 0.0 < smallest <= 1.0:
        raise ValueError(
            f"`diversity` must be a probability in [0, 1] and `smallest` a factor in (0, 1], got {probability} and {smallest}."
        )

    def draw() -> float:
        device = "cpu" if generator is None else generator.device
        return float(torch.rand((), generator=generator, device=device))

    def classify(pixels: Tensor) -> Tensor:
        if draw() >= probability:
            return logits_of_batch(logits_of, pixels)
        height, width = pixels.shape[2:]
        factor = smallest + (1.0 - smallest) * draw()
        small = F.interpolate(
            pixels,
            (max(1, round(factor * height)), max(1, round(factor * width))),
            mode="bilinear",
            align_corners=False,
        )
        down, right = height - small.shape[2], width - small.shape[3]
        top, left = int(draw() * (down + 1)), int(draw() * (right + 1))
        return logits_of_batch(logits_of, F.pad(small, (left, right - left, top, down - top)))

    return classify
