"""Stability training: the answer to a noisy copy should be that to the clean image."""

from __future__ import annotations

import torch.nn.functional as F

from hf_smoothing.training.objectives.base import noisy_copies
from hf_smoothing.training.objectives.signature import Batch, LossAndLogs, ObjectiveState, PixelsToLogits


def stability(model: PixelsToLogits, batch: Batch, state: ObjectiveState, *, weight: float = 2.0) -> LossAndLogs:
    """CE(f(x), y) + weight * mean of - sum_j F_j(x) log F_j(x + d), with gradients through both.

    Args:
        model, batch, state: As for every objective.
        weight: Weight of the stability loss; 2 by the authors.

    Raises:
        ValueError: Without noise, or on a negative weight.

    Source: Li et al. (2019), arXiv 1809.03113, section 4.
    """
    if not weight >= 0.0:
        raise ValueError(f"Stability training needs weight >= 0, got {weight}.")
    noise, _ = noisy_copies(batch, state, 1, "Stability training")
    clean, noisy = model(batch.pixels).float(), model(batch.pixels + noise[0]).float()
    standard = F.cross_entropy(clean, batch.labels, label_smoothing=state.label_smoothing)
    stable = -(clean.softmax(1) * F.log_softmax(noisy, dim=1)).sum(1).mean()
    return standard + weight * stable, {"standard": standard, "stability": stable}
