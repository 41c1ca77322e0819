"""One perturbation for all images of a data set."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_smoothing.attacks.ascent import check_positive, check_units, climb
from hf_smoothing.attacks.balls import Norm, check_norm, clamped_pixels, norms, per_image
from hf_smoothing.attacks.losses import check_labels, cross_entropies, logits_of_batch
from hf_smoothing.pixels import to_unit_pixels, without_tolerance
from hf_smoothing.types import Classifier


def universal_perturbation(
    logits_of: Classifier,
    pixels: Tensor,
    labels: Tensor | None = None,
    *,
    epsilon: float,
    norm: Norm = "linf",
    epochs: int = 5,
    batch_size: int = 100,
    step_size: float | None = None,
    clip_loss: float = 9.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A perturbation within distance `epsilon` of 0 that, added to any image and clamped to [0, 1], raises the cross-entropy.

    Ascent over minibatches in random order, with losses clipped so that a few images cannot decide the direction.

    Args:
        logits_of: As for `pgd`; in eval mode.
        pixels: Pixels (count, channels, height, width), uint8 or float in [0, 1].
        labels: Labels (count,); the predictions by default, so that none are needed.
        epsilon: Radius in [0, 1] pixel units.
        norm: The norm, "linf" or "l2".
        epochs: Number of passes over the images.
        batch_size: Number of images per step.
        step_size: Length of a step in the norm; epsilon / 4 by default.
        clip_loss: Largest loss of an image that counts.
        generator: Generator on any device; decides the order. torch's global one by default.

    Returns:
        A float32 tensor (channels, height, width), on the device of `pixels`.

    Raises:
        ValueError: As `pgd`, or on numbers that make no sense.

    Source: Shafahi et al. (2020), arXiv 1811.11304, algorithm 1.
    """
    norm, epochs, batch_size = (
        check_norm(norm),
        check_positive(epochs, "epochs"),
        check_positive(batch_size, "batch_size"),
    )
    if not clip_loss > 0.0:
        raise ValueError(f"`clip_loss` must be > 0, got {clip_loss}: no image would count.")
    with torch.inference_mode(False), torch.enable_grad():
        clean = to_unit_pixels(pixels, "pixels").detach()
        if labels is None:
            with torch.no_grad():
                labels = torch.cat([logits_of_batch(logits_of, part).argmax(1) for part in clean.split(batch_size)])
        labels = check_labels(labels, clean)
        zero = torch.zeros_like(clean[:1])
        radius = per_image(epsilon, zero, "epsilon")
        check_units(radius, norm, clean.shape[1:])
        stride = radius / 4 if step_size is None else per_image(step_size, zero, "step_size")
        delta = zero
        device = "cpu" if generator is None else generator.device
        for _ in range(epochs):
            order = torch.randperm(len(clean), generator=generator, device=device).to(clean.device)
            for chosen in order.split(batch_size):

                def losses_of(shift: Tensor, images: Tensor = clean[chosen], truth: Tensor = labels[chosen]) -> Tensor:
                    moved = clamped_pixels(images + shift)
                    return cross_entropies(logits_of, moved, truth).clamp_max(clip_loss)

                _, gradient = climb(losses_of, delta.clone())
                step = gradient.sign() if norm == "linf" else gradient / norms(gradient, norm).clamp_min(1e-300)
                delta = _project(delta.double() + stride * step, radius, norm)
    return delta[0]


def _project(delta: Tensor, radius: Tensor, norm: Norm) -> Tensor:
    """Onto the ball around 0, as float32 that has not been rounded out of it."""
    if norm == "l2":  # 1e-6 is far above what rounding the entries to float32 can add to the norm
        return (delta * (radius * (1.0 - 1e-6) / norms(delta, norm).clamp_min(1e-300)).clamp_max(1.0)).float()
    point = delta.clamp(-radius, radius).float()
    return torch.where(point.double().abs() > radius, torch.nextafter(point, torch.zeros_like(point)), point)


@torch.no_grad()
def fooled(logits_of: Classifier, pixels: Tensor, perturbation: Tensor, batch_size: int = 250) -> Tensor:
    """Which images get another class when the perturbation is added; the mean over them is the fooling rate.

    Args:
        logits_of, pixels: As for `universal_perturbation`.
        perturbation: Perturbation (channels, height, width).
        batch_size: Number of images per forward pass.

    Returns:
        A bool tensor (count,).

    Raises:
        ValueError: On a perturbation of another shape than the images.
    """
    if perturbation.shape != pixels.shape[1:]:
        raise ValueError(
            f"`perturbation` must have the shape of an image, {tuple(pixels.shape[1:])}, got {tuple(perturbation.shape)}."
        )
    found = []
    for part in without_tolerance(to_unit_pixels(pixels, "pixels")).split(batch_size):
        moved = (part + perturbation.to(part.device)).clamp(0.0, 1.0)
        found.append(logits_of_batch(logits_of, part).argmax(1) != logits_of_batch(logits_of, moved).argmax(1))
    return torch.cat(found)
