"""Attacks on what a network sees rather than on what it says."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hf_smoothing.attacks.ascent import ascend
from hf_smoothing.attacks.balls import Norm
from hf_smoothing.pixels import to_unit_pixels


def feature_pgd(
    features_of: Callable[[Tensor], Tensor],
    pixels: Tensor, *,
    epsilon: float | Tensor, norm: Norm = "linf", steps: int = 10, step_size: float | Tensor | None = None,
    start: float = 0.0005, generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Images within distance `epsilon` whose features are far from those of the clean ones, in mean square. It needs no labels.

    Args:
        features_of: A differentiable function, (batch, channels, height, width) -> (batch, ...), such as pooled
            penultimate features.
        pixels, epsilon, norm, steps, generator: As for `pgd`.
        step_size: Length of a step; 1.25 * epsilon / steps by default.
        start: Standard deviation of the Gaussian noise around the clean image where the ascent starts; there itself the gradient
            is 0.

    Returns:
        A float32 tensor, the shape of `pixels`: the last point.

    Source: the inner problem of discrepancy mitigation, arXiv 2106.10989.
    """
    pixels = to_unit_pixels(pixels, "pixels")
    with torch.no_grad():
        clean = features_of(pixels.clone()).detach()  # a network may change its pixels in place

    def losses(point: Tensor) -> Tensor:
        return (features_of(point) - clean).square().flatten(1).mean(1)

    if step_size is None:
        step_size = torch.as_tensor(epsilon, dtype=torch.float64) * 1.25 / steps
    return ascend(
        losses,
        pixels,
        epsilon=epsilon,
        norm=norm,
        steps=steps,
        step_size=step_size,
        start=start,
        generator=generator,
        keep="last",
    )
