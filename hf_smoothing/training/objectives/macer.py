"""Maximising the certified radius itself, without an attack."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from hf_smoothing.attacks.losses import log_mean_softmax
from hf_smoothing.training.objectives.base import no_smoothing, noisy_copies
from hf_smoothing.training.objectives.signature import Batch, LossAndLogs, ObjectiveState, PixelsToLogits


def macer(
    model: PixelsToLogits, batch: Batch, state: ObjectiveState, *,
    copies: int = 16, weight: float = 12.0, gamma: float = 8.0, beta: float = 16.0,
) -> LossAndLogs:  # fmt: skip
    """mean of -log mean_i F_y + weight * sigma / 2 * max(gamma - (Phi^-1(p_1) - Phi^-1(p_2)), 0), the latter where the mean is right.

    p_1 and p_2 are the two largest entries of the mean over copies of softmax(beta * logits): a differentiable stand-in for vote
    shares. Where they are 0 or 1 the radius is beyond every margin, and the term is 0.

    Args:
        model, batch, state: As for every objective.
        copies: Number of noisy copies, k.
        weight: Weight lambda of the robustness loss; to be tuned with sigma. 12 is what is used at sigma .25 on CIFAR-10.
        gamma: Margin of the hinge.
        beta: Inverse temperature.

    Raises:
        ValueError: Without noise, or on settings out of range.

    Source: Zhai et al. (2020), arXiv 2001.02378, equations 11 and 12 and algorithm 1.
    """
    if not weight >= 0.0 or not gamma > 0.0 or not beta > 0.0:
        raise ValueError(f"MACER needs weight >= 0, gamma > 0 and beta > 0, got {weight}, {gamma} and {beta}.")
    no_smoothing(state, "MACER")
    noise, sigma = noisy_copies(batch, state, copies, "MACER")
    logits = model((batch.pixels + noise).flatten(0, 1)).float().unflatten(0, noise.shape[:2])
    standard = F.nll_loss(log_mean_softmax(logits), batch.labels)
    top, which = log_mean_softmax(beta * logits).exp().double().topk(2, dim=1)
    # In float64, and away from 0 and 1, where the inverse of Phi has no finite slope.
    open_ = (top[:, 0] < 1.0 - 1e-12) & (top[:, 1] > 1e-12) & (which[:, 0] == batch.labels)
    gap = torch.special.ndtri(top[open_, 0]) - torch.special.ndtri(top[open_, 1])
    hinge = (gamma - gap).clamp_min(0.0) * (gap <= gamma)
    robust = (sigma[open_] / 2 * hinge).sum().float() / len(batch.labels)
    return standard + weight * robust, {"standard": standard, "robust": robust}
