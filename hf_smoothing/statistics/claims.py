"""From the votes of many images to what is claimed of each: the decisions of the rules, as functions of counts.

Certification asks for one image at a time, `recount` for all rows of a run at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_smoothing.statistics.binomial import lower_bound, upper_bound
from hf_smoothing.statistics.radius import l2_radius, probability_for_radius, runner_up_radius
from hf_smoothing.statistics.sequential import (
    error_shares,
    geometric_looks,
    sequential_lower_bound,
    spending_boundaries,
    union_boundaries,
)


@dataclass(frozen=True)
class Claims:
    """What is claimed of images whose class under test is known: arrays of one shape, that of the images.

    Attributes:
        radius: L2 radii, at most the diameter of the pixel cube.
        p_lower: Lower bounds of the class's probability.
        reached: How many of the rule's target radii are certified, the smallest first, int64.
        p_upper: Upper bounds of every other class's probability, where the radius rests on them.
    """

    radius: NDArray[np.float64]
    p_lower: NDArray[np.float64]
    reached: NDArray[np.int64]
    p_upper: NDArray[np.float64] | None = None

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Whether the class is claimed at all; where not, the classifier abstains."""
        return (self.reached > 0) | (self.radius > 0.0)


def fixed_claims(
    successes: ArrayLike,
    runners_up: ArrayLike,
    *,
    n: int,
    alpha: float,
    sigma: float,
    bound: str = "one-sided",
    slack: float = 0.0,
    diameter: float = math.inf,
) -> Claims:
    """Claims from a fixed number of estimation draws.

    Args:
        successes: Votes of the class under test among `n` estimation draws, any shape.
        runners_up: Largest count of another class, same shape; read only with bound "runner-up".
        n, alpha, sigma, bound, slack, diameter: As in `certification.FixedRule`.

    Source: arXiv 1902.02918, CERTIFY, Theorem 1 and Proposition 2.
    """
    p_upper = None
    if bound == "one-sided":
        p_lower = lower_bound(successes, n, alpha)
        radius = l2_radius(p_lower, sigma, slack)
    else:
        p_lower = lower_bound(successes, n, alpha / 2)
        p_upper = upper_bound(runners_up, n, alpha / 2)
        radius = runner_up_radius(p_lower, p_upper, sigma, slack)
    return Claims(np.minimum(radius, diameter), p_lower, np.zeros(p_lower.shape, dtype=np.int64), p_upper)


def sequential_level(alpha: float, n0: int, label_aware: bool) -> float:
    """Failure probability of the test of one class: half of alpha where no draws of their own chose it."""
    return alpha if n0 or label_aware else alpha / 2


def sequential_ceiling(n: int, level: float, sigma: float, slack: float = 0.0) -> float:
    """The radius that a sequential rule certifies when all `n` draws agree."""
    share = error_shares(len(geometric_looks(n)))[-1]
    return float(l2_radius(float(lower_bound(n, n, level * share)), sigma, slack))


def target_boundaries(
    targets: Sequence[float], looks: Sequence[int], *, level: float, sigma: float, spending: bool, slack: float = 0.0
) -> NDArray[np.int64]:
    """The counts at which each target is certified: int64 (targets, looks)."""
    boundaries = spending_boundaries if spending else union_boundaries
    q = probability_for_radius(targets, sigma, slack)
    return np.array([boundaries(float(p), tuple(looks), level) for p in q], dtype=np.int64)


def targets_reached(successes: ArrayLike, boundaries: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many targets are certified, in order: a target counts only if all smaller ones do.

    Args:
        successes: Counts at the looks so far, (..., m); negative where an image did not come to a look.
        boundaries: Count at which each target is certified, int64 (targets, K), K >= m.

    Returns:
        An int64 array (...).
    """
    counts = np.asarray(successes)
    certified = np.ones(counts.shape[:-1], dtype=bool)
    reached = np.zeros(counts.shape[:-1], dtype=np.int64)
    for row in boundaries:
        certified = certified & (counts >= row[: counts.shape[-1]]).any(axis=-1)
        reached = reached + certified
    return np.asarray(reached)


def sequential_claims(
    successes: ArrayLike,
    boundaries: NDArray[np.int64],
    *,
    targets: Sequence[float],
    looks: Sequence[int],
    level: float,
    sigma: float,
    spending: bool = False,
    slack: float = 0.0,
    diameter: float = math.inf,
) -> Claims:
    """Claims of a sequential rule at the stopping times of images.

    Args:
        successes, boundaries: As in `targets_reached`.
        targets: Target radii, ascending.
        looks, level, sigma, spending, slack, diameter: Looks, level, sigma, spending, slack and diameter of the rule;
            see `certification.SequentialRule`.
    """
    counts = np.asarray(successes)
    reached = targets_reached(counts, boundaries)
    radius = np.concatenate([[0.0], targets])[reached]
    if spending:
        p_lower = np.where(reached > 0, probability_for_radius(radius, sigma, slack), 0.0)
    else:
        bounds = sequential_lower_bound(np.maximum(counts, 0), looks, level)
        p_lower = bounds.max(axis=-1)  # a look that was not reached has the bound 0
        radius = np.maximum(radius, l2_radius(p_lower, sigma, slack))
    return Claims(np.minimum(radius, diameter), p_lower, reached)


MOST_TARGETS = 20
"""Columns of a table that can still be read."""


def target_grid(sigma: float, *, curve: bool = False) -> list[float]:
    """The target radii that are tried by default: up to 3 sigma.

    Args:
        sigma: Noise level.
        curve: Take every sigma/10, for a smooth curve; otherwise multiples of 0.25 (of sigma, if that is less; of 0.5, 1, ... where there would be
            more than `MOST_TARGETS`).

    >>> target_grid(0.25), len(target_grid(1.0)), target_grid(2.0)[:3]
    ([0.0, 0.25, 0.5, 0.75], 13, [0.0, 0.5, 1.0])
    """
    step = sigma / 10 if curve else min(0.25, sigma)
    while not curve and 3 * sigma / step >= MOST_TARGETS:
        step *= 2
    # Rounded so that they are the numbers that people write: 0.15, not 0.15000000000000002.
    return [round(step * k, 12) for k in range(int(3 * sigma / step * (1 + 1e-9)) + 1)]


MOST_SLACK = 1e-5
"""More than the noise of ten megapixels has, which takes a hair off the largest radius that n draws certify."""


def default_targets(sigma: float, n: int, level: float, *, curve: bool = False) -> list[float]:
    """Those of `target_grid` that a sequential rule can certify, whatever the size of the images.

    Args:
        sigma: Noise level.
        n: Number of estimation draws at most.
        level: Failure probability of the test of one class, see `sequential_level`.
        curve: As in `target_grid`.

    >>> default_targets(0.5, 1000, 0.001)
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    reach = sequential_ceiling(n, level, sigma, MOST_SLACK)
    return [radius for radius in target_grid(sigma, curve=curve) if radius < reach]
