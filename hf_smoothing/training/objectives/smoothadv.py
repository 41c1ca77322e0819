"""Training on images attacked through noise: SmoothAdv, and SmoothMix between an image and its attacked self."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_smoothing.attacks import ascend, ddn
from hf_smoothing.attacks.losses import kl_divergence, log_mean_softmax, log_odds
from hf_smoothing.models.network import Network
from hf_smoothing.training.objectives.base import network_of, noisy_copies
from hf_smoothing.training.objectives.signature import Batch, LossAndLogs, ObjectiveState, PixelsToLogits
from hf_smoothing.units import check_radius


def smoothadv(
    model: PixelsToLogits, batch: Batch, state: ObjectiveState, *,
    epsilon: float = 0.5, steps: int = 4, copies: int = 2, warm_up: float = 0.1, attack: Literal["pgd", "ddn"] = "pgd",
) -> LossAndLogs:  # fmt: skip
    """mean_i CE(f(x' + d_i), y), x' the image within l2 distance epsilon with the largest -log mean_i F_y(x' + d_i) found.

    The attack and the loss share the noise d_i. The network is in eval mode during the attack.

    Args:
        model, batch, state: As for every objective; the model is a `Network`.
        epsilon: Radius in [0, 1] pixel units; it grows to this during the warm-up.
        steps: Number of steps of the attack.
        copies: Number of noisy copies, m.
        warm_up: Share of the training in which the radius grows from 0.
        attack: Either "pgd", steps of 2 epsilon / steps from the image; or "ddn", which looks for the smallest
            perturbation that fools, from the whole radius on. Both climb the log-odds of the mean, whose gradient
            points where that of its logarithm does.

    Raises:
        ValueError: Without noise, without the progress of the training that a warm-up needs, or on settings out of range.

    Source: Salman et al. (2019), arXiv 1906.04584, section 2.2 and algorithm 1.
    """
    network = network_of(model, "SmoothAdv")
    if (
        not epsilon >= 0.0
        or not 0.0 <= warm_up <= 1.0
        or attack not in ("pgd", "ddn")
        or not isinstance(steps, int)
        or steps < 1
    ):
        raise ValueError(
            "SmoothAdv needs epsilon >= 0, a warm_up in [0, 1], attack 'pgd' or 'ddn' and a whole number of steps, at least 1, got "
            f"{epsilon}, {warm_up}, {attack!r} and {steps}."
        )
    noise, _ = noisy_copies(batch, state, copies, "SmoothAdv")
    check_radius(epsilon, "l2", "epsilon", batch.pixels.shape[1:])
    radius = epsilon * min(state.done("SmoothAdv") / warm_up, 1.0) if warm_up else epsilon

    def logits_of(x: Tensor) -> Tensor:
        return log_mean_softmax(_logits(network, x, noise))

    with network.evaluating():
        if attack == "ddn":
            moved = ddn(logits_of, batch.pixels, batch.labels, largest=radius, steps=steps, start=radius)
        else:
            moved = ascend(
                lambda x: log_odds(logits_of, x, batch.labels), batch.pixels, epsilon=radius, norm="l2", steps=steps,
                step_size=2.0 * radius / steps, start="clean", keep="last",
            )  # fmt: skip
    logits = _logits(network, moved, noise)
    loss = F.cross_entropy(
        logits.flatten(0, 1), batch.labels.repeat(len(noise)), label_smoothing=state.label_smoothing
    )
    return loss, {"radius": loss.new_tensor(radius)}


def smoothmix(
    model: PixelsToLogits, batch: Batch, state: ObjectiveState, *,
    weight: float = 5.0, steps: int = 4, step_size: float = 1.0, copies: int = 2,
    one_step: bool = False, warm_up: float = 0.1,
) -> LossAndLogs:  # fmt: skip
    """mean_i CE(f(x + d_i), y) + weight * mean_i KL(y_mix || F(x_mix + d_i)) for images that the mean gets right.

    x~ is where T normalised steps of ascent of -log mean_i F_y lead, within [0, 1] only; with lambda uniform on (0, 1/2),
    x_mix = (1 - lambda) x + lambda x~ and y_mix = (1 - lambda) mean_i F(x + d_i) + lambda / classes.

    Args:
        model, batch, state: As for every objective; the model is a `Network`.
        weight: Weight eta; it grows to this during the warm-up.
        steps, step_size: Number T and length alpha of the steps of the ascent (network in eval mode).
        copies: Number of noisy copies, m.
        one_step: Start from the image after one step, not farther off than step_size (which grows in the warm-up), instead of x.
        warm_up: Share of the training in which they grow.

    Raises:
        ValueError: Without noise, without the progress of the training that a warm-up needs, or on settings out of range.

    Source: Jeong et al. (2021), arXiv 2111.09277.
    """
    network = network_of(model, "SmoothMix")
    if (
        not weight >= 0.0
        or not step_size > 0.0
        or not 0.0 <= warm_up <= 1.0
        or not isinstance(steps, int)
        or steps < 1 + one_step
    ):
        raise ValueError(
            f"SmoothMix needs weight >= 0, step_size > 0, warm_up in [0, 1] and at least {1 + one_step} steps, got {weight}, {step_size}, "
            f"{warm_up} and {steps}."
        )
    noise, _ = noisy_copies(batch, state, copies, "SmoothMix")
    grown = min(state.done("SmoothMix") / warm_up, 1.0) if warm_up else 1.0

    def climb(pixels: Tensor, count: int) -> Tensor:
        return ascend(
            lambda x: log_odds(lambda at: log_mean_softmax(_logits(network, at, noise)), x, batch.labels),
            pixels, epsilon=None, norm="l2", steps=count, step_size=step_size, start="clean", keep="last",
        )  # fmt: skip

    pixels = batch.pixels
    with network.evaluating():
        if one_step:
            near = climb(pixels, 1)
            far = climb(near, steps - 1)
            shift = near - pixels
            length = shift.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
            pixels = pixels + shift * (grown * step_size / length).clamp_max(1.0)
        else:
            far = climb(pixels, steps)
    logits = _logits(network, pixels, noise)
    standard = F.cross_entropy(
        logits.flatten(0, 1), batch.labels.repeat(len(noise)), label_smoothing=state.label_smoothing
    )
    mean = log_mean_softmax(logits).exp()
    classes = mean.shape[1]
    # Away from 0, so that every entry of the target has a logarithm.
    share = 0.5 * torch.rand(len(pixels), generator=state.generator, device=pixels.device).clamp_min(1e-12)
    mixed = pixels + share[:, None, None, None] * (far - pixels)
    target = mean + share[:, None] * (1.0 / classes - mean)
    log_q = F.log_softmax(_logits(network, mixed, noise), dim=-1)
    right = (mean.argmax(1) == batch.labels).float()
    robust = (right * kl_divergence(target.log(), log_q).mean(0)).mean()
    return standard + weight * grown * robust, {"standard": standard, "mix": robust}


def _logits(network: Network, pixels: Tensor, noise: Tensor) -> Tensor:
    """(copies, batch, classes)."""
    noisy = pixels + noise
    logits: Tensor = network(noisy.flatten(0, 1)).float().unflatten(0, noise.shape[:2])
    return logits
