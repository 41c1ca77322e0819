"""What a certifier is asked: one image and classifiers whose answers and radii are known exactly."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hf_smoothing.audit.known import Bands
from hf_smoothing.units import as_number, check_radius, check_sigma, diameter, is_several


GREY_STEPS = 128
"""The shade of the image, in steps of 1/255: in the middle, and 8-bit."""

SHAPE = (1, 2, 2)
"""Of the image: small, so that noise costs little; two across, so that radii up to 2 are no farther than its pixel cube."""

USUAL = (0.25, 0.5, 1.0, 1.5, 2.0)
"""Radii that are tried by default, in multiples of sigma."""


@dataclass(frozen=True, eq=False)
class Case:
    """A question with a known answer.

    Attributes:
        name: What kind of classifier it is.
        classifier: The classifier.
        image: Pixels (channels, height, width), float32 multiples of 1/255.
        label, radius: Exact answer of the smoothed classifier, and its exact l2 radius.
    """

    name: str
    classifier: Bands
    image: Tensor
    label: int
    radius: float


def make_cases(sigma: float, radii: Sequence[float] | None = None) -> tuple[Case, ...]:
    """The questions of an audit.

    Every threshold lies halfway between two steps of 1/255, so that noise that is rounded to the grid has the same exact radius as noise
    that is not.

    Args:
        sigma: Noise standard deviation in [0, 1] pixel units.
        radii: Radii that the certifier may claim; a half-space just inside each makes the claim false. By default multiples of sigma, of those that
            8-bit pixels of this shape can be apart.

    Raises:
        ValueError: If sigma or a radius is out of its range, or a radius below 1/255, where no half-space lies inside.
    """
    sigma = check_sigma(sigma)
    alone = as_number(radii)
    if radii is not None and not is_several(radii) and not (math.isnan(alone) and isinstance(radii, Iterable)):
        cure = "Leave it out for multiples of sigma." if math.isnan(alone) else f"Pass [{alone:g}]."
        raise ValueError(f"`radii` must be a list of radii, got {radii!r}. {cure}")
    usual = [factor * sigma for factor in USUAL if 0.5 / 255 < factor * sigma <= diameter(SHAPE)]
    claimed = usual if radii is None else list(radii)
    distances = dict.fromkeys([0.5 / 255, *(_just_inside(radius) for radius in claimed)])
    found = [_case("half-space", [-255 * distance], sigma) for distance in distances]
    # A class to the left and one to the right with many between: no rule that compares two classes has a smaller exact radius.
    found.append(_case("two classes and many between", np.linspace(-0.1, 0.4, 9) * 255 * sigma, sigma))
    found.append(_case("three fair classes", np.array([-0.4307, 0.4307]) * 255 * sigma, sigma))
    return tuple(found)


def _just_inside(radius: float) -> float:
    """The largest odd multiple of 1/510 below a radius."""
    length = check_radius(radius, "l2", "radii", SHAPE)
    if 255 * length <= 0.5:
        raise ValueError(
            f"`radii` must be above 1/510, half a step of 8-bit pixels, got {radius}. The boundary itself is always tried."
        )
    return (math.ceil(255 * length - 0.5) - 0.5) / 255


def _case(name: str, ends: Sequence[float] | np.ndarray, sigma: float) -> Case:
    """A classifier of bands by the first pixel, whose ends are given in steps from the image."""
    halfway = np.unique(np.floor(np.asarray(ends) + 1e-9) + 0.5)
    first = torch.zeros(SHAPE)
    first[0, 0, 0] = 1.0
    image = torch.full(SHAPE, GREY_STEPS / 255)
    classifier = Bands(first, [(GREY_STEPS + end) / 255 for end in halfway])
    label, radius = classifier.answer(image, sigma)
    return Case(name, classifier, image, label, radius)
