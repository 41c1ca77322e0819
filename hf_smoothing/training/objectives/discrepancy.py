"""Discrepancy mitigation: features that an attack cannot move far; and keeping those of a teacher."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F

from hf_smoothing.attacks import feature_pgd
from hf_smoothing.models import SmoothedClassifier
from hf_smoothing.models.loading import load_classifier
from hf_smoothing.models.network import Network
from hf_smoothing.training.objectives.adversarial import network_to_attack
from hf_smoothing.training.objectives.base import clean_pixels, network_of
from hf_smoothing.training.objectives.signature import Batch, LossAndLogs, ObjectiveState, PixelsToLogits


def discrepancy_mitigation(
    model: PixelsToLogits, batch: Batch, state: ObjectiveState, *,
    epsilon: float = 0.5 / 255, steps: int = 10, beta: float = 500.0,
) -> LossAndLogs:  # fmt: skip
    """CE(h(phi(x)), y) + beta / B * MSE(phi(x'), phi(x)), phi the penultimate features and h the head.

    x' is found within l-infinity distance epsilon by ascent of that MSE (network in eval mode meanwhile); the MSE is a mean over
    batch and features, B the images of this forward pass (so accumulating gradients, or
    more ranks, raises the weight), and gradients flow through both sides.

    Args:
        model, batch, state: As for every objective; the model is a `Network`.
        epsilon: Radius in [0, 1] pixel units.
        steps: Number of steps of the attack, each 1.25 epsilon / steps long, from Gaussian noise of standard deviation
            .0005.
        beta: Weight of the discrepancy.

    Raises:
        ValueError: With training noise, or on a weight or radius out of range.

    Source: arXiv 2106.10989.
    """
    network = network_to_attack(model, state, "Discrepancy mitigation", epsilon, "linf")
    if not 0.0 <= beta < float("inf"):
        raise ValueError(f"Discrepancy mitigation needs a weight `beta` >= 0, got {beta}. 0 is plain training.")
    with network.evaluating():
        moved = feature_pgd(network.features, batch.pixels, epsilon=epsilon, steps=steps, generator=state.generator)
    logits, clean = network.with_features(batch.pixels)
    standard = F.cross_entropy(logits.float(), batch.labels, label_smoothing=state.label_smoothing)
    discrepancy = F.mse_loss(network.features(moved).float(), clean.float())
    loss = standard + beta / len(batch.labels) * discrepancy
    return loss, {"standard": standard, "discrepancy": discrepancy}


def feature_distillation(
    model: PixelsToLogits,
    batch: Batch,
    state: ObjectiveState,
    *,
    teacher: str | SmoothedClassifier,
    weight: float = 0.1,
) -> LossAndLogs:
    """CE(f(x), y) + weight * mean ||phi(x) - phi_teacher(x)||_2: the features stay near those of a frozen teacher.

    Args:
        model, batch, state: As for every objective; the model is a `Network`.
        teacher: Path or Hub id of the backbone (with its notes or image processor), or a `SmoothedClassifier`; its features
            must be as wide as the network's.
        weight: Weight lambda.

    Raises:
        ValueError: With training noise, or if the widths differ.

    Source: Shafahi et al. (2020), arXiv 1905.08232, section 4.
    """
    network = network_of(model, "Feature distillation")
    clean_pixels(state, "Feature distillation trains on clean images")
    frozen = (_teacher(teacher) if isinstance(teacher, str) else teacher).to(batch.pixels.device)
    watched = Network(frozen, frozen.classify)
    with watched.evaluating(), torch.no_grad():
        wanted = watched.features(batch.pixels)
    logits, features = network.with_features(batch.pixels)
    if wanted.shape != features.shape:
        raise ValueError(
            f"The teacher must have features as wide as the network's {features.shape[1]}, got {wanted.shape[1]}. "
            "Distil from the backbone that is finetuned."
        )
    standard = F.cross_entropy(logits.float(), batch.labels, label_smoothing=state.label_smoothing)
    apart = (features.float() - wanted.float()).norm(dim=1).mean()
    return standard + weight * apart, {"standard": standard, "distance": apart}


@functools.lru_cache(maxsize=2)
def _teacher(path: str) -> SmoothedClassifier:
    # Kept for the process: a teacher does not change while it teaches.
    model: SmoothedClassifier = load_classifier(path, sigma=0.25, device="cpu")
    model.requires_grad_(False)
    return model
