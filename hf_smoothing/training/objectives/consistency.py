"""Cross-entropy and agreement between noisy copies of an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F

from hf_smoothing.attacks.losses import kl_divergence, log_mean_softmax
from hf_smoothing.training.objectives.base import for_each_image, noisy_copies
from hf_smoothing.training.objectives.signature import Batch, LossAndLogs, ObjectiveState, PixelsToLogits


def consistency(
    model: PixelsToLogits, batch: Batch, state: ObjectiveState, *,
    copies: int = 2, weight: float | Sequence[float] = 10.0, entropy: float = 0.5,
) -> LossAndLogs:  # fmt: skip
    """mean_i CE(F_i, y) + weight * mean_i KL(F || F_i) + entropy * H(F), F being the mean of the softmax F_i of `copies` noisy copies.

    The copies of an image have one sigma, drawn from the mixture, so that F is the smoothed classifier at that sigma.

    Args:
        model, batch, state: As for every objective.
        copies: Number of noisy copies of each image, m.
        weight: Weight of the divergence, lambda: one number, or one for each sigma of a mixture with a list of them.
            The paper takes 20 at sigma .25 and 10 above, each for a network of its own.
        entropy: Weight of the entropy of the mean, eta.

    Raises:
        ValueError: Without noise, with fewer than two copies, or with weights that do not fit the mixture.

    Source: Jeong and Shin, arXiv 2006.04062.
    """
    if not isinstance(copies, int) or copies < 2 or not entropy >= 0.0:
        raise ValueError(
            f"Consistency needs a whole number of at least 2 copies and an entropy weight >= 0, got copies={copies}, entropy={entropy}."
        )
    noise, sigma = noisy_copies(batch, state, copies, "Consistency")
    weights = for_each_image(weight, "weight", state.noise, sigma)
    count = len(batch.pixels)
    noisy = (batch.pixels + noise).flatten(0, 1)
    logits = model(noisy).float().view(copies, count, -1)
    log_p, log_mean = F.log_softmax(logits, dim=-1), log_mean_softmax(logits)
    losses = F.nll_loss(log_p.flatten(0, 1), batch.labels.repeat(copies))
    if state.label_smoothing:
        losses = (1.0 - state.label_smoothing) * losses - state.label_smoothing * log_p.mean()
    apart = kl_divergence(log_mean, log_p).mean(0)  # of each image
    uncertainty = -(log_mean.exp() * log_mean).sum(-1).mean()
    loss = losses + (weights * apart).mean() + entropy * uncertainty
    return loss, {"cross_entropy": losses, "divergence": apart.mean(), "entropy": uncertainty}
