"""Decoupled direction and norm: the smallest l2 perturbation that changes an answer, as far as few steps find it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hf_smoothing.attacks.ascent import check_positive, check_units, climb
from hf_smoothing.attacks.balls import inside, norms, per_image
from hf_smoothing.attacks.losses import check_labels, log_odds, logits_of_batch
from hf_smoothing.pixels import to_unit_pixels
from hf_smoothing.types import Classifier


def ddn(
    logits_of: Classifier,
    pixels: Tensor,
    labels: Tensor,
    *,
    largest: float | Tensor,
    steps: int = 100,
    gamma: float = 0.05,
    start: float = 1.0,
) -> Tensor:
    """Images in [0, 1] within l2 distance `largest` that are misclassified as near to `pixels` as was found.

    The radius shrinks by (1 - gamma) after a step that fools, and grows by (1 + gamma) after one that does not.

    Args:
        logits_of, pixels, labels: As for `pgd`.
        largest: Radius never to leave, one for all images or (batch,).
        steps: Number of steps of the search; their length falls from 1 to .01 (cosine).
        gamma: Relative change of the radius.
        start: First radius.

    Returns:
        A float32 tensor, the shape of `pixels`: the nearest misclassified point, or the last one where none was found.

    Source: Rony et al. (2019), arXiv 1811.09600, algorithm 1 (without quantisation).
    """
    steps = check_positive(steps, "steps")
    with torch.inference_mode(False), torch.enable_grad():
        clean = to_unit_pixels(pixels, "pixels").detach()
        labels = check_labels(labels, clean)
        bound = per_image(largest, clean, "largest")
        check_units(bound, "l2", clean.shape[1:], "largest")
        radius = torch.full_like(bound, start)
        delta = torch.zeros_like(clean).double()
        best, best_length = clean, torch.full_like(bound, torch.inf)
        fooled = torch.zeros(len(clean), dtype=torch.bool, device=clean.device)
        point = clean
        for step in range(steps):
            length = 0.01 + 0.99 * (1.0 + math.cos(math.pi * step / steps)) / 2.0
            answers: list[Tensor] = []

            def losses_of(x: Tensor, answers: list[Tensor] = answers) -> Tensor:
                answers.append(logits_of_batch(logits_of, x))
                return log_odds(lambda _: answers[0], x, labels)

            _, gradient = climb(losses_of, point.detach())
            fools = answers[0].argmax(1) != labels
            how_far = norms(point.detach().double() - clean.double(), "l2")
            better = fools & (how_far < best_length).flatten()
            best = torch.where(better[:, None, None, None], point.detach(), best)
            best_length = torch.where(better[:, None, None, None], how_far, best_length)
            fooled |= fools
            delta = delta + length * gradient.double() / norms(gradient, "l2").clamp_min(1e-300)
            radius = radius * torch.where(fools[:, None, None, None], 1.0 - gamma, 1.0 + gamma)
            radius = torch.minimum(radius, bound)
            delta = delta * (radius / norms(delta, "l2").clamp_min(1e-300))
            point = inside(clean, delta, bound, "l2")
            delta = point.double() - clean.double()
        with torch.no_grad():
            fools = logits_of_batch(logits_of, point).argmax(1) != labels
            how_far = norms(point.double() - clean.double(), "l2")
        better = (fools & (how_far < best_length).flatten()) | ~(fooled | fools)
        return torch.where(better[:, None, None, None], point, best)
