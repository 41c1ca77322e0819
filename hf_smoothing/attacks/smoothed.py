"""The soft smoothed classifier, which an attack may climb."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hf_smoothing.attacks.ascent import check_positive
from hf_smoothing.attacks.losses import log_mean_softmax, logits_of_batch
from hf_smoothing.pixels import to_unit_pixels
from hf_smoothing.statistics import check_sigma
from hf_smoothing.types import Classifier


def smoothed_logits(
    classifier: Classifier, sigma: float, copies: int, generator: torch.Generator, *, batch_size: int | None = None
) -> Callable[[Tensor], Tensor]:
    """The soft smoothed classifier, differentiable: pixels -> log of the mean softmax over noisy copies, all finite.

    Every call draws fresh noise, so that the point `pgd` keeps as the best may owe its loss to a lucky draw: prefer keep="last",
    or many copies.

    Args:
        classifier: A callable (batch, channels, height, width) -> (batch, num_labels), or an object with `classify`.
        sigma: Noise level in [0, 1] pixel units.
        copies: Number of noisy copies per image, >= 1.
        generator: Generator on any device; it alone decides the noise, which is drawn in float32.
        batch_size: Number of noisy copies per forward pass, all by default. With a smaller one activations are computed again for the
            gradient instead of kept, so that memory is that of one pass. It decides no noise.

    Returns:
        A callable on (batch, channels, height, width) in [0, 1]. Its result is (batch, num_labels), float32 or better; the
        cross entropy of it is the objective J.

    Raises:
        ValueError: If sigma, copies or batch_size is not positive; by the callable, as `pgd` for pixels and logits.
        TypeError: Raised by the callable, as `pgd`.

    Source: Salman et al. (2019), arXiv 1906.04584, section 2.2, the plug-in estimate of J.

    >>> soft = smoothed_logits(lambda x: x.flatten(1), 0.5, 8, torch.Generator().manual_seed(0))
    >>> round(float(soft(torch.rand(1, 1, 2, 2)).exp().sum()), 5)
    1.0
    """
    sigma, copies = check_sigma(sigma), check_positive(copies, "copies")
    size = None if batch_size is None else check_positive(batch_size, "batch_size")

    def soft_logits(pixels: Tensor) -> Tensor:
        pixels = to_unit_pixels(pixels, "pixels")
        shape = (len(pixels), copies, *pixels.shape[1:])
        noise = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float32).to(pixels.device)
        noisy = (pixels[:, None] + sigma * noise).flatten(0, 1)
        parts = noisy.split(size or len(noisy))
        # For a single part there is nothing to save.
        rows = [
            logits_of_batch(classifier, part)
            if len(parts) == 1
            else checkpoint(logits_of_batch, classifier, part, use_reentrant=False)
            for part in parts
        ]
        return log_mean_softmax(torch.cat(rows).unflatten(0, (len(pixels), copies)), dim=1)

    return soft_logits
