"""Cross-entropy on a mixture of clean and noisy images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.special import betaincinv

from hf_smoothing.training.objectives.signature import Batch, LossAndLogs, ObjectiveState, PixelsToLogits


def mixture_cross_entropy(
    model: PixelsToLogits, batch: Batch, state: ObjectiveState, *, mixup: float = 0.0
) -> LossAndLogs:
    """Mean cross-entropy of one noisy (or clean) copy of each image.

    With one sigma and no clean share it is Gaussian augmentation (Cohen et al., arXiv 1902.02918); with a mixture, the pretraining
    of Qiu et al., arXiv 2312.09020; without noise, ordinary training.

    Args:
        model, batch, state: As for every objective.
        mixup: A of Beta(a, a), of which one share per batch is drawn, to mix each image and its label with another before the noise
            (Zhang et al., arXiv 1710.09412); DMAE finetunes with it. 0 mixes nothing.

    Raises:
        ValueError: If `mixup` is negative.
    """
    pixels, share = batch.pixels, 1.0
    if not mixup >= 0.0:
        raise ValueError(f"`mixup` must be >= 0, e.g. 0.8, or 0 for none, got {mixup}.")
    if mixup:
        # The quantile of a uniform draw: the generator has no Beta distribution.
        draw = torch.rand((), generator=state.generator, device=state.generator.device)
        share = float(betaincinv(mixup, mixup, float(draw)))
        pixels = share * pixels + (1.0 - share) * pixels.flip(0)
    if state.noise is not None:
        pixels, _ = state.noise.add(pixels, state.generator)
    logits = model(pixels).float()
    loss = F.cross_entropy(logits, batch.labels, label_smoothing=state.label_smoothing)
    if mixup:
        other = F.cross_entropy(logits, batch.labels.flip(0), label_smoothing=state.label_smoothing)
        loss = share * loss + (1.0 - share) * other
    return loss, {}
