"""Cross-entropy and agreement between noisy copies of an image."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from hf_smoothing.attacks.losses import divergence, log_mean_softmax
from hf_smoothing.training.objectives.base import Batch, ObjectiveState, noisy_copies


def consistency(
    model: Callable[[Tensor], Tensor],
    batch: Batch,
    state: ObjectiveState,
    *,
    copies: int = 2,
    weight: float = 10.0,
    entropy: float = 0.5,
) -> tuple[Tensor, dict[str, Tensor]]:
    """mean_i CE(F_i, y) + weight * mean_i KL(F || F_i) + entropy * H(F), F being the mean of the softmax F_i of `copies` noisy copies.

    The copies of an image have one sigma, drawn from the mixture, so that F is the smoothed classifier at that sigma.

    Args:
        model, batch, state: as for every objective.
        copies: noisy copies of each image, m.
        weight: of the divergence, lambda. The paper takes 20 at sigma .25 and 10 above.
        entropy: weight of the entropy of the mean, eta.

    Raises:
        ValueError: without noise, or with fewer than two copies.

    Source: Jeong and Shin, arXiv 2006.04062.
    """
    if not isinstance(copies, int) or copies < 2 or not weight >= 0.0 or not entropy >= 0.0:
        raise ValueError(
            f"Consistency needs a whole number of at least 2 copies and weights >= 0, got copies={copies}, weight={weight}, entropy={entropy}."
        )
    noise, _ = noisy_copies(batch, state, copies, "Consistency")
    count = len(batch.pixels)
    noisy = (batch.pixels + noise).flatten(0, 1)
    logits = model(noisy).float().view(copies, count, -1)
    log_p, log_mean = F.log_softmax(logits, dim=-1), log_mean_softmax(logits)
    losses = F.nll_loss(log_p.flatten(0, 1), batch.labels.repeat(copies))
    if state.label_smoothing:
        losses = (1.0 - state.label_smoothing) * losses - state.label_smoothing * log_p.mean()
    apart = divergence(log_mean, log_p).mean()
    uncertainty = -(log_mean.exp() * log_mean).sum(-1).mean()
    loss = losses + weight * apart + entropy * uncertainty
    return loss, {"cross_entropy": losses, "divergence": apart, "entropy": uncertainty}
