"""Accuracy under attack: over a grid of radii, as a ratio, at matched clean accuracy, as an area."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_smoothing.attacks import ATTACKS, Norm, distance
from hf_smoothing.attacks.ascent import check_positive
from hf_smoothing.attacks.losses import check_answers, check_labels, logits_of_batch
from hf_smoothing.pixels import to_unit_pixels, without_tolerance
from hf_smoothing.types import Classifier
from hf_smoothing.units import check_seed, plain_numbers


NORMS: tuple[Norm, ...] = ("linf", "l2")
"""In the order in which they are measured and shown; what is made in one norm alone is made in the first that is there."""

Right = NDArray[np.bool_]
"""(radii, images): whether the network is right about the attacked image."""


def attack_curve(
    classify: Classifier,
    pixels: Tensor,
    labels: Tensor,
    *,
    attack: str = "pgd",
    norm: Norm = "linf",
    epsilons: Sequence[float],
    steps: int = 10,
    batch_size: int = 250,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> Right:
    """Whether each image is still classified rightly under an attack of each radius.

    An image that fails at one radius fails at every larger one: the same point lies in the larger ball. So only those still right
    are attacked again.

    Args:
        classify: Pixels -> logits, differentiable; its modules in eval mode.
        pixels: Pixels (count, channels, height, width), uint8 or float in [0, 1]; floats are taken as float32, those beyond by the tolerance of
            pixels as 0 and 1, which the attacked images end at.
        labels: Labels, int64 (count,).
        attack: A name in `ATTACKS`.
        norm: The norm, "linf" or "l2".
        epsilons: Radii in [0, 1] pixel units, growing; 0 stands for the clean image.
        steps: Number of steps of the attack.
        batch_size: Images attacked together.
        seed: Seed of the attack.
        progress: Called with the number of images done, or None.

    Returns:
        A bool tensor (len(epsilons), count).

    Raises:
        ValueError: On an unknown attack, radii that do not grow, pixels outside [0, 1], or labels out of range.
    """
    if attack not in ATTACKS:
        raise ValueError(f"`attack` must be one of {', '.join(ATTACKS)}, got {attack!r}.")
    epsilons = check_epsilons(epsilons, norm, pixels[0].numel() if len(pixels) else None)
    check_positive(batch_size, "batch_size")
    if not len(pixels):
        raise ValueError("A curve needs at least one image, got none.")
    # What the attack moves: other roundings of it would lie outside small balls.
    pixels = without_tolerance(to_unit_pixels(pixels, "pixels"))
    labels = check_labels(labels, pixels)
    generator = torch.Generator(pixels.device).manual_seed(check_seed(seed))
    right = np.zeros((len(epsilons), len(pixels)), dtype=bool)
    for first in range(0, len(pixels), batch_size):
        images, truth = pixels[first : first + batch_size], labels[first : first + batch_size]
        alive = torch.arange(len(images), device=images.device)
        for row, epsilon in enumerate(epsilons):
            if len(alive):
                clean = points = images[alive]
                if epsilon:
                    points = ATTACKS[attack](
                        classify, clean, truth[alive], epsilon=epsilon, norm=norm, steps=steps, generator=generator
                    )
                # Success counts only inside the ball and the pixel range.
                within = (distance(points, clean, norm) <= epsilon) & (points == points.clamp(0.0, 1.0)).flatten(
                    1
                ).all(1)
                with torch.no_grad():
                    logits = logits_of_batch(classify, points)
                check_answers(logits, truth)
                kept = (logits.argmax(1) == truth[alive]) | ~within
                alive = alive[kept]
            right[row, first + alive.cpu().numpy()] = True
        if progress is not None:
            progress(len(images))
    return right


def check_epsilons(epsilons: Sequence[float], norm: Norm, entries: int | None = None) -> tuple[float, ...]:
    """Return radii as Python's numbers if they make sense.

    Args:
        epsilons: Radii, growing: a list, an array or a tensor.
        norm: The norm, "linf" or "l2".
        entries: Number of entries of an image, if they are known.

    Raises:
        TypeError: If they are no sequence.
        ValueError: On an unknown norm; if there are none, they do not grow or are not finite, or one is above the diameter of the pixel cube (1, or
            the root of the number of entries), as figures in 0..255 units are.
    """
    if norm not in NORMS:
        raise ValueError(f"A norm must be one of {' and '.join(NORMS)}, got {norm!r}.")
    values = plain_numbers(epsilons, "Radii", "(0.0, 0.01)")
    if not values or not _grow(values) or not values[0] >= 0.0:
        raise ValueError(f"Radii must be finite and grow from 0 or above, got {epsilons!r}.")
    largest = 1.0 if norm == "linf" else np.inf if entries is None else entries**0.5
    if values[-1] > largest:
        raise ValueError(
            f"{norm} radii are in [0, 1] pixel units, at most {largest:.4g}, got {list(values)}, which look like steps of 0..255. Divide them by 255."
        )
    return values


def _grow(values: Sequence[float]) -> bool:
    return bool(np.isfinite(values).all()) and all(b > a for a, b in itertools.pairwise(values))


def decline_ratio(clean: float, attacked: float) -> float:
    """(clean - attacked) / clean: the share of the accuracy that the attack takes; nan where there is none to take.

    It confounds robustness with accuracy: see `matched`.
    """
    return (clean - attacked) / clean if clean else float("nan")


def matched(curves: Sequence[Right]) -> list[Right]:
    """The curves restricted to the images that all networks get right without an attack: clean accuracy is 1 for all of them.

    Args:
        curves: Accuracies of several networks on the same images; the first row is that of the clean images.

    Raises:
        ValueError: If they are of different numbers of images.
    """
    if len(sizes := {len(curve[0]) for curve in curves}) > 1:
        raise ValueError(
            f"Curves must be of the same images, got {sorted(sizes)} of them. Attack the same images for each network."
        )
    both = np.logical_and.reduce([curve[0] for curve in curves])
    return [curve[:, both] for curve in curves]


def area_under_curve(epsilons: Sequence[float], accuracies: Sequence[float]) -> float:
    """Mean accuracy over radii from the first to the last, by the trapezoidal rule.

    Args:
        epsilons: Radii, growing; at least two.
        accuracies: The accuracy at each.

    Raises:
        TypeError: If the radii are no sequence.
        ValueError: If there are too few radii, they do not grow, or there is not one accuracy for each.
    """
    return float(_areas(epsilons, np.asarray(accuracies, dtype=float)))


def area_of_each(epsilons: Sequence[float], curve: Right) -> NDArray[np.float64]:
    """The area under each image's own curve: bool (radii, images) -> float64 (images,), whose mean is `area_under_curve`.

    Raises:
        TypeError, ValueError: As `area_under_curve`.
    """
    return np.asarray(_areas(epsilons, np.asarray(curve, dtype=float)))


def _areas(epsilons: Sequence[float], accuracies: NDArray[np.float64]) -> Any:
    """Areas under accuracies (radii, ...)."""
    radii = plain_numbers(epsilons, "Radii", "(0.0, 0.01)")
    if len(radii) < 2 or not _grow(radii) or accuracies.shape[:1] != (len(radii),):
        raise ValueError(
            f"An area needs at least two radii that grow and an accuracy at each, got {list(radii)} and accuracies of shape {accuracies.shape}. Pass "
            "the radii of the curve itself, as attack_curve had them."
        )
    middles = (accuracies[1:] + accuracies[:-1]) / 2.0
    widths = np.diff(radii).reshape(-1, *(1,) * (middles.ndim - 1))
    return (middles * widths).sum(0) / (radii[-1] - radii[0])
