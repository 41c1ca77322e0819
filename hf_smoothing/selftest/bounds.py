"""The levels: bounds and stopping rules against probabilities that are computed in another way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal, localcontext

import numpy as np

from hf_smoothing import statistics
from hf_smoothing.selftest.lines import CheckError


BOUNDS = ((1, 10, 0.05), (10, 10, 0.001), (60, 100, 0.001), (311, 500, 0.05), (990, 1_000, 0.001), (5_200, 10_000, 0.01),
    (9_995, 10_000, 0.001), (51_000, 100_000, 0.001), (99_999, 100_000, 0.001), (100_000, 100_000, 0.001))  # fmt: skip
"""Successes, trials and failure probabilities whose bounds are put to the exact tail."""

SHARP = 1e-9
"""A lower bound that is larger by this share must fail: it is no more cautious than it has to be."""

DIGITS = 60


def clopper_pearson(device: str) -> str:
    """Lower and upper bounds are on the safe side of the exact ones, and next to them."""
    for k, n, alpha in BOUNDS:
        # The upper bound of n - k successes is the mirror image.
        low, high = float(statistics.lower_bound(k, n, alpha)), float(statistics.upper_bound(n - k, n, alpha))
        with localcontext() as context:
            context.prec = DIGITS
            sides = {"lower": Decimal(low), "upper": 1 - Decimal(high)}
            larger = Decimal(low) * (1 + Decimal(SHARP))
        for side, bound in sides.items():
            excess = float(binomial_tail(k, n, bound) / Decimal(alpha)) - 1.0
            if binomial_tail(k, n, bound) > Decimal(alpha):
                count = k if side == "lower" else n - k
                raise CheckError(
                    f"the {side} bound of {count} of {n} must fail with probability {alpha} at most, got {alpha} (1 + {excess:.0e})"
                )
        if not binomial_tail(k, n, larger) > Decimal(alpha):
            raise CheckError(f"the lower bound of {k} of {n} must be within {SHARP:g} of the exact one, got {low}")
    return f"{len(BOUNDS)} bounds on either side, outward and within {SHARP:g} of exact"


def binomial_tail(k: int, n: int, p: Decimal) -> Decimal:
    """P(Binomial(n, p) >= k) to 50 digits.

    Args:
        k: Successes, above n p, so that the terms fall.
        n: Trials.
        p: Success probability, below 1.

    >>> binomial_tail(2, 3, Decimal("0.5")) == Decimal("0.5")
    True
    """
    with localcontext() as context:
        context.prec = DIGITS
        term = Decimal(math.comb(n, k)) * p**k * (1 - p) ** (n - k)
        total, odds = term, p / (1 - p)
        for successes in range(k, n):
            term *= odds * (n - successes) / (successes + 1)
            total += term
            if term < total.scaleb(5 - DIGITS):
                break
        return total


def stopping_rules(device: str) -> str:
    """A target just out of reach is certified at any look of a sequential rule with probability at most its level."""
    looks, found = statistics.geometric_looks(400), []
    for spending in (False, True):
        for level in (0.05, 0.001):
            for radius in (0.0, 0.25, 0.75):
                (boundary,) = statistics.target_boundaries([radius], looks, level=level, sigma=0.5, spending=spending)
                p = statistics.probability_for_radius(radius, 0.5)
                probability = crossing(float(p), looks, boundary.tolist())
                found.append(probability / level)
                if not probability <= level * (1 + 1e-9):
                    rule = "error spending" if spending else "union bound"
                    raise CheckError(
                        f"{rule}: radius {radius} is certified falsely with probability {probability:.2e} at level {level}"
                    )
    return f"{len(found)} boundaries, false with {min(found):.2f} to {max(found):.2f} of their level"


def crossing(p: float, looks: Sequence[int], boundary: Sequence[int]) -> float:
    """Probability that a walk with success probability p is at or above the boundary at any look.

    Args:
        p: Success probability.
        looks: Numbers of draws, ascending.
        boundary: Count that certifies at each look.

    >>> crossing(0.5, [2], [2]), crossing(0.5, [1, 2], [1, 2])
    (0.25, 0.5)
    """
    alive, before, crossed = np.ones(1), 0, 0.0
    for look, end in zip(looks, boundary, strict=True):
        more = look - before
        steps = [math.comb(more, k) * p**k * (1 - p) ** (more - k) for k in range(more + 1)]
        alive, before = np.convolve(alive, steps), look
        crossed += float(alive[end:].sum())
        alive[end:] = 0.0
    return crossed
