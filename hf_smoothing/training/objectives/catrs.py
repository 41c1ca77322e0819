"""Confidence-aware training: hard images are asked for less, easy ones for more."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_smoothing.attacks.losses import kl_divergence, log_mean_softmax
from hf_smoothing.models.network import Network
from hf_smoothing.training.objectives.base import network_of, no_smoothing, noisy_copies
from hf_smoothing.training.objectives.signature import Batch, LossAndLogs, ObjectiveState, PixelsToLogits
from hf_smoothing.units import check_radius


def cat_rs(
    model: PixelsToLogits, batch: Batch, state: ObjectiveState, *,
    copies: int = 4, weight: float = 1.0, epsilon: float = 1.0, steps: int = 4,
) -> LossAndLogs:  # fmt: skip
    """L_low + weight * L_high, averaged over the batch.

    With p the share of an image's copies that are classified rightly, K ~ Binomial(copies, p), at least 1:
    L_low = (1 / copies) times the sum of the K smallest cross-entropies of its copies;
    L_high = [K = copies] * max_i KL(F_mean || F(x + d*_i)), d*_i found by ascent of that KL (network in eval mode): after each step
    projected to l2 distance epsilon of d_i, then given back about the mean and mean square of d_i. F_mean, the mean softmax over copies, is held fixed; the authors take
    it from another network, trained before.

    Args:
        model, batch, state: As for every objective; the model is a `Network`.
        copies: Number of noisy copies, M.
        weight: Weight lambda; larger at larger sigma.
        epsilon: Radius around each noise, [0, 1] pixel units; 1 by the authors (they call it 256 / 256).
        steps: Number of steps of the ascent, each 2 epsilon / steps long.

    Raises:
        ValueError: Without noise, or on settings out of range.

    Source: Jeong, Kim and Shin (2023), arXiv 2212.09000, equations 6 to 9.
    """
    network = network_of(model, "CAT-RS")
    if not weight >= 0.0 or not epsilon >= 0.0 or not isinstance(steps, int) or steps < 1:
        raise ValueError(
            f"CAT-RS needs weight >= 0, epsilon >= 0 and a whole number of steps, at least 1, got {weight}, {epsilon} and {steps}."
        )
    check_radius(epsilon, "l2", "epsilon", batch.pixels.shape[1:])
    if not isinstance(copies, int) or copies < 2:
        raise ValueError(
            f"CAT-RS identifies hard images by how many copies are right: it needs at least 2 copies, got {copies}."
        )
    no_smoothing(state, "CAT-RS")
    noise, _ = noisy_copies(batch, state, copies, "CAT-RS")
    count = len(noise)
    logits = network((batch.pixels + noise).flatten(0, 1)).float().unflatten(0, noise.shape[:2])
    labels = batch.labels.expand(count, -1)
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(count, -1).sort(0).values
    confidence = (logits.argmax(-1) == labels).float().mean(0)
    draws = torch.rand(count, len(batch.labels), generator=state.generator, device=confidence.device)
    accepted = (draws < confidence).sum(0).clamp_min(1)
    kept = torch.arange(count, device=accepted.device)[:, None] < accepted
    low = (losses * kept).mean(0).mean()
    target = log_mean_softmax(logits).detach()
    worst = _worst_noise(network, batch.pixels, noise, target, epsilon, steps)
    moved = F.log_softmax(network((batch.pixels + worst).flatten(0, 1)).float(), dim=-1).unflatten(0, noise.shape[:2])
    high = (kl_divergence(target, moved).amax(0) * (accepted == count)).mean()
    return low + weight * high, {"low": low, "high": high, "confidence": confidence.mean()}


def _worst_noise(
    network: Network, pixels: Tensor, noise: Tensor, target: Tensor, epsilon: float, steps: int
) -> Tensor:
    """Noise near the one drawn that moves the answers farthest from the target, with its mean and mean square."""
    axes = (2, 3, 4)
    mean, size = noise.mean(axes, keepdim=True), noise.square().mean(axes, keepdim=True).sqrt()
    moved = noise
    with network.evaluating(), torch.enable_grad():
        for _ in range(steps):
            moved = moved.detach().requires_grad_()
            log_q = F.log_softmax(network((pixels + moved).flatten(0, 1)).float(), dim=-1).unflatten(
                0, noise.shape[:2]
            )
            (gradient,) = torch.autograd.grad(-(target.exp() * log_q).sum(), moved)
            length = gradient.flatten(2).norm(dim=2)[:, :, None, None, None].clamp_min(1e-12)
            shift = moved.detach() + 2.0 * epsilon / steps * gradient / length - noise
            far = shift.flatten(2).norm(dim=2)[:, :, None, None, None].clamp_min(1e-12)
            moved = noise + shift * (epsilon / far).clamp_max(1.0)
            now = moved.square().mean(axes, keepdim=True).sqrt().clamp_min(1e-12)
            moved = mean + (moved - moved.mean(axes, keepdim=True)) / now * size
    return moved.detach()
