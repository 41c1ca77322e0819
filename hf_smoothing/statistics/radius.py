"""From a bound on the top-class probability to a certified l2 radius, and back.

Source of everything here: Cohen, Rosenfeld & Kolter, *Certified Adversarial Robustness via Randomized Smoothing* (2019),
arXiv 1902.02918, Theorem 1 in its one-sided form (upper bound of the runner-up = 1 - p_lower).
"""

from __future__ import annotations

import math
from decimal import ROUND_FLOOR, Decimal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from hf_smoothing.statistics.binomial import lower_bound
from hf_smoothing.units import check_alpha, check_sigma


def _check_probability(name: str, value: ArrayLike) -> NDArray[np.float64]:
    p = np.asarray(value, dtype=np.float64)
    if not np.all((p >= 0.0) & (p <= 1.0)):  # written so that nan fails
        raise ValueError(f"`{name}` must hold probabilities in [0, 1], got {p}.")
    return p


def _check_slack(slack: float) -> float:
    if not 0.0 <= slack < 0.5:
        raise ValueError(f"`slack` must be a total variation in [0, 1/2), got {slack}.")
    return slack


def l2_radius(p_lower: ArrayLike, sigma: float, slack: float = 0.0) -> NDArray[np.float64]:
    """The l2 radius within which the smoothed classifier's answer cannot change; 0 where nothing is certified.

    If the top class has probability at least `p_lower` > 1/2 under N(0, sigma^2 I) noise, it stays the top class under
    every perturbation of l2 norm below sigma * Phi^-1(p_lower).

    Args:
        p_lower: Lower bounds of the top-class probability, in [0, 1], any shape.
        sigma: Noise standard deviation in [0, 1] pixel units.
        slack: Total variation between the noise that is drawn and the exact law. It moves a probability by at most so much, at
            the image and at the perturbed one: sigma (Phi^-1(p_lower - slack) - Phi^-1(1/2 + slack)).

    Returns:
        A float64 array of the same shape, in [0, 1] pixel units; inf for p_lower = 1.

    Raises:
        ValueError: If a probability is outside [0, 1] or `sigma` is not positive.

    Source: arXiv 1902.02918, Theorem 1 and Algorithm CERTIFY.

    >>> round(float(l2_radius(0.976036187155, sigma=0.5)), 6)
    0.989005
    """
    p = np.maximum(_check_probability("p_lower", p_lower) - _check_slack(slack), 0.0)
    return np.asarray(check_sigma(sigma) * np.maximum(special.ndtri(p) - special.ndtri(0.5 + slack), 0.0))


def runner_up_radius(p_lower: ArrayLike, p_upper: ArrayLike, sigma: float, slack: float = 0.0) -> NDArray[np.float64]:
    """The l2 radius from a bound on the top class and one on the runner-up; 0 where nothing is certified.

    R = sigma/2 (Phi^-1(p_lower) - Phi^-1(min(p_upper, 1 - p_lower))), without slack never below the one-sided radius from the same
    `p_lower`.
    With both bounds at alpha/2 it holds with probability 1 - alpha, and no correction over the classes is needed although
    p_upper belongs to the largest of the other counts: the true runner-up is one fixed class, whose count is no larger, and the
    bound is monotone in the count.

    Args:
        p_lower: Lower bounds of the top class's probability.
        p_upper: Upper bounds from the largest count of another class, same shape.
        sigma: Noise standard deviation in [0, 1] pixel units.
        slack: As in `l2_radius`, s. At the image it moves both bounds, to a = Phi^-1(p_lower - s) and b = Phi^-1(p_upper + s); at the
            perturbed one the exact probabilities must still differ by 2 s: Phi(a - r/sigma) - Phi(b + r/sigma) >= 2 s holds
            if r stays s / phi(|a + b|/2 + 1) below sigma (a - b)/2.

    Raises:
        ValueError: If a probability is outside [0, 1] or `sigma` is not positive.

    Source: arXiv 1902.02918, Theorem 1.

    >>> bool(runner_up_radius(0.8, 0.05, sigma=1.0) > l2_radius(0.8, sigma=1.0))
    True
    """
    low = np.maximum(_check_probability("p_lower", p_lower) - _check_slack(slack), 0.0)
    high = np.minimum(np.minimum(_check_probability("p_upper", p_upper), 1.0 - np.asarray(p_lower)) + slack, 1.0)
    a, b = special.ndtri(low), special.ndtri(high)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):  # inf - inf where nothing is known: radius 0
        multiple = 0.5 * (a - b)
        if slack > 0.0:
            cost = slack * np.sqrt(2.0 * np.pi) * np.exp(0.5 * (0.5 * np.abs(a + b) + 1.0) ** 2)
            multiple = np.where(cost <= 1.0, multiple - cost, 0.0)
    return np.asarray(check_sigma(sigma) * np.maximum(np.nan_to_num(multiple, nan=0.0, posinf=np.inf), 0.0))


def probability_for_radius(radius: ArrayLike, sigma: float, slack: float = 0.0) -> NDArray[np.float64]:
    """q(r) = Phi(r / sigma), the top-class probability that makes radius r just certifiable; the inverse of `l2_radius`.

    Args:
        radius: L2 radii >= 0 in [0, 1] pixel units, any shape.
        sigma: Noise standard deviation in the same units.
        slack: As in `l2_radius`.

    Raises:
        ValueError: If a radius is negative or nan, or `sigma` is not positive.

    >>> float(probability_for_radius(0.0, sigma=0.25))
    0.5
    """
    r = np.asarray(radius, dtype=np.float64)
    if not np.all(r >= 0.0):
        raise ValueError(f"`radius` must not be negative or nan, got {r}.")
    return np.asarray(
        np.minimum(special.ndtr(r / check_sigma(sigma) + special.ndtri(0.5 + _check_slack(slack))) + slack, 1.0)
    )


def max_radius(n: ArrayLike, alpha: float, sigma: float) -> NDArray[np.float64]:
    """The ceiling: the radius certified when all `n` estimation draws agree. No certificate from `n` draws exceeds it.

    >>> round(float(max_radius(100_000, alpha=0.001, sigma=1.0)), 9)
    3.811456563
    """
    draws = np.asarray(n, dtype=np.float64)
    if not np.all((draws >= 1) & (np.floor(draws) == draws)):
        raise ValueError(f"`n` must be at least 1, and whole, got {draws}. Pass a count, not a share.")
    return l2_radius(lower_bound(draws, draws, alpha), sigma)


def min_draws(alpha: float, *, two_sided: bool = False) -> int:
    """The smallest number of draws with which anything can be decided at failure probability `alpha`.

    With fewer, even unanimous votes leave CERTIFY (one-sided) or PREDICT (two-sided) no choice but to abstain.

    >>> min_draws(0.001), min_draws(0.001, two_sided=True)
    (10, 11)
    """
    alpha = check_alpha(alpha)
    n = 1
    # Unanimous draws decide when their bound exceeds 1/2 (CERTIFY) or 2 * 2 ** -n <= alpha (PREDICT).
    while not (2.0 * 0.5**n <= alpha if two_sided else lower_bound(n, n, alpha) > 0.5):
        n += 1
    return n


def exact_text(value: float) -> str:
    """The shortest text that is exactly this number, for a radius or sigma that somebody chose.

    >>> exact_text(0.25), exact_text(1.0)
    ('0.25', '1')
    """
    return repr(float(value)).removesuffix(".0")


DIGITS = {"l2": 3, "linf": 5}
"""Decimals of a radius that is printed, by its norm; l-infinity radii are small."""


def radius_text(radius: float, norm: str) -> str:
    """A radius as it is printed: rounded down, with as many decimals as its norm needs.

    >>> radius_text(0.98897, "l2"), radius_text(0.0078431, "linf")
    ('0.988', '0.00784')
    """
    return round_down(radius, DIGITS[norm])


def round_down(radius: float, digits: int = 3) -> str:
    """A radius as decimal text, rounded towards zero, so that what is printed is never more than what is certified.

    >>> round_down(0.98897), round_down(0.5)
    ('0.988', '0.500')
    """
    if not radius >= 0.0:
        raise ValueError(f"A radius must be >= 0 and not nan, got {radius}.")
    if math.isinf(radius):
        return "inf"
    # Decimal(float) is exact: no rounding happens before the one that is asked for.
    return f"{Decimal(radius).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_FLOOR):f}"
