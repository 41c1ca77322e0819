"""Training on attacked images: adversarial training and TRADES."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from hf_smoothing.attacks import Norm, ascend, pgd
from hf_smoothing.attacks.losses import kl_divergence
from hf_smoothing.models.network import Network
from hf_smoothing.training.objectives.base import clean_pixels, network_of
from hf_smoothing.training.objectives.signature import Batch, LossAndLogs, ObjectiveState, PixelsToLogits
from hf_smoothing.units import check_radius


def adversarial_training(
    model: PixelsToLogits, batch: Batch, state: ObjectiveState, *,
    epsilon: float = 8 / 255, norm: Norm = "linf", steps: int = 10,
) -> LossAndLogs:  # fmt: skip
    """CE(f(x'), y), x' the image within epsilon of x with the largest loss that PGD finds (network in eval mode meanwhile).

    Args:
        model, batch, state: As for every objective; the model is a `Network`.
        epsilon: Radius of the ball, [0, 1] pixel units.
        norm: The norm, "linf" or "l2".
        steps: Number of steps of the attack, each 2.5 epsilon / steps long, from a random start.

    Raises:
        ValueError: With training noise.

    Source: Madry et al. (2018), arXiv 1706.06083, equation 2.1.
    """
    network = network_to_attack(model, state, "Adversarial training", epsilon, norm)
    with network.evaluating():
        moved = pgd(
            network,
            batch.pixels,
            batch.labels,
            epsilon=epsilon,
            norm=norm,
            steps=steps,
            generator=state.generator,
            keep="last",
        )
    logits = network(moved).float()
    loss = F.cross_entropy(logits, batch.labels, label_smoothing=state.label_smoothing)
    return loss, {"accuracy_attacked": (logits.argmax(1) == batch.labels).float().mean()}


def trades(
    model: PixelsToLogits, batch: Batch, state: ObjectiveState, *,
    epsilon: float = 8 / 255, norm: Norm = "linf", steps: int = 10, weight: float = 6.0, start: float = 0.001,
) -> LossAndLogs:  # fmt: skip
    """CE(f(x), y) + weight * KL(f(x) || f(x')), x' the image within epsilon of x with the largest KL that ascent finds.

    Args:
        model, batch, state, epsilon, norm, steps: As for `adversarial_training`; steps of 2.5 epsilon / steps.
        weight: Weight of the divergence, 1 / lambda in the paper.
        start: Standard deviation of the noise at which the ascent starts.

    Raises:
        ValueError: With training noise.

    Source: Zhang et al. (2019), arXiv 1901.08573, algorithm 1.
    """
    network = network_to_attack(model, state, "TRADES", epsilon, norm)
    with network.evaluating():
        with torch.no_grad():
            target = F.log_softmax(network(batch.pixels).float(), dim=1)
        moved = ascend(
            lambda x: kl_divergence(target, F.log_softmax(network(x).float(), dim=1)),
            batch.pixels, epsilon=epsilon, norm=norm, steps=steps, start=start, generator=state.generator, keep="last",
        )  # fmt: skip
    logits = network(batch.pixels).float()
    standard = F.cross_entropy(logits, batch.labels, label_smoothing=state.label_smoothing)
    robust = kl_divergence(F.log_softmax(logits, dim=1), F.log_softmax(network(moved).float(), dim=1)).mean()
    return standard + weight * robust, {"standard": standard, "divergence": robust}


def network_to_attack(model: PixelsToLogits, state: ObjectiveState, name: str, epsilon: float, norm: Norm) -> Network:
    """The model as a `Network`; training noise, beside which an attack within [0, 1] means nothing, and radii in 0..255 units are refused.

    Raises:
        ValueError: The message names what is refused.
    """
    network = network_of(model, name)
    clean_pixels(state, f"{name} attacks clean images")
    check_radius(epsilon, norm, "epsilon")  # in l2 the attack itself compares with the size of the images
    return network
