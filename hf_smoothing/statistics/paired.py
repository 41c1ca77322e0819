"""Comparing two classifiers on the same images: the images differ far more than the classifiers do."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy  # `scipy.stats` is imported by its first use, which few runs need: it takes as long as a third of torch
from numpy.typing import ArrayLike, NDArray

from hf_smoothing.units import check_confidence


@dataclass(frozen=True)
class Paired:
    """A comparison over images.

    Attributes:
        value: The difference or ratio.
        low, high: Its confidence interval; an infinite end is one that the images do not bound.
        p_value: Two-sided p-value of "no difference"; nan for a ratio.
        num_images: Number of pairs.
    """

    value: float
    low: float
    high: float
    p_value: float
    num_images: int


ROUNDING = 64 * float(np.finfo(np.float64).eps)
"""Share of the largest number by which differences that are equal may be apart: rounding of a few operations."""


def _pairs(first: ArrayLike, second: ArrayLike, confidence: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    check_confidence(confidence)
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(
            f"A paired comparison needs two columns with one number for each of the same images (two at least), got shapes {a.shape} and {b.shape}."
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("A paired comparison needs finite numbers, got nan or inf.")
    return a, b


def paired_difference(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> Paired:
    """Mean of first - second over images, with Student's paired t interval and test; those of the signs where all differences are equal.

    Args:
        first, second: A number per image, such as its certified radius (0 where wrong), (N,). With several training seeds
            pass the mean over seeds: the interval is then about new images, not about new training runs.
        confidence: Coverage of the interval.

    Raises:
        ValueError: On unequal lengths, fewer than two images, or numbers that are not finite.

    >>> result = paired_difference([0.5, 0.2, 0.0, 0.4], [0.3, 0.1, 0.0, 0.1])
    >>> round(result.value, 3), round(result.p_value, 3)
    (0.15, 0.103)
    """
    a, b = _pairs(first, second, confidence)
    d = a - b
    difference, error = float(d.mean()), float(d.std(ddof=1) / math.sqrt(len(d)))
    rounding = ROUNDING * float(np.abs([a, b]).max())
    if np.ptp(d) <= rounding:  # no spread, so no t: the exact test of the signs instead, and what it does not reject
        extreme = 2.0 ** (1 - len(d))
        reach = 0.0 if extreme <= 1.0 - confidence else math.inf
        p_value = 1.0 if abs(difference) <= rounding else extreme
        return Paired(difference, difference - reach, difference + reach, p_value, len(d))
    half = float(scipy.stats.t.ppf((1.0 + confidence) / 2.0, len(d) - 1)) * error
    p_value = float(2.0 * scipy.stats.t.sf(abs(difference) / error, len(d) - 1))
    return Paired(difference, difference - half, difference + half, p_value, len(d))


def paired_ratio(
    first: ArrayLike, second: ArrayLike, confidence: float = 0.95, resamples: int = 9999, seed: int = 0
) -> Paired:
    """mean(first) / mean(second) over images, with a bootstrap interval (percentiles) over images.

    A resample in which the mean of `second` is 0 does not bound the ratio, and widens the interval at both ends: with few images that are not 0
    there it has no end.

    Arguments and errors as `paired_difference`; the mean of `second` must not be 0.

    >>> round(paired_ratio([0.5, 0.2, 0.0, 0.4], [0.3, 0.1, 0.1, 0.1]).value, 3)
    1.833
    """
    a, b = _pairs(first, second, confidence)
    if b.mean() == 0.0:
        raise ValueError("A ratio needs a second column whose mean is not 0.")
    generator = np.random.default_rng(seed)
    means = np.empty((2, resamples))
    for row in range(resamples):  # one at a time: all at once take gigabytes for a large test set
        chosen = generator.integers(0, len(a), len(a))
        means[:, row] = a[chosen].mean(), b[chosen].mean()
    above, below = means
    unknown = below == 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = above / below
    least = 0.0 if min(a.min(), b.min()) >= 0.0 else -np.inf
    tail = (1.0 - confidence) / 2.0
    low = np.quantile(np.where(unknown, least, ratios), tail, method="inverted_cdf")
    high = np.quantile(np.where(unknown, np.inf, ratios), 1.0 - tail, method="inverted_cdf")
    return Paired(float(a.mean() / b.mean()), float(low), float(high), float("nan"), len(a))


def mcnemar(first: ArrayLike, second: ArrayLike) -> float:
    """Exact two-sided p-value of "both are right equally often", from the images on which they differ.

    Args:
        first, second: Whether each is right (or certified at a radius), bool (N,), on the same images.

    Raises:
        ValueError: On unequal lengths.
        TypeError: On other than truth values.

    Source: McNemar (1947), Psychometrika 12(2).

    >>> mcnemar([True, True, True, True, False], [False, False, False, True, False])
    0.25
    """
    a, b = np.asarray(first), np.asarray(second)
    for column in (a, b):
        if column.size and column.dtype != bool:  # classes or radii would all count as right
            raise TypeError(
                f"A paired test of who is right needs truth values (bool), got {column.dtype}. Compare first, such as predictions == labels."
            )
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(
            f"A paired test needs one entry for each of the same images, got shapes {a.shape} and {b.shape}."
        )
    a, b = a.astype(bool), b.astype(bool)  # columns without any entry are of no dtype
    only_first, only_second = int((a & ~b).sum()), int((~a & b).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(scipy.stats.binomtest(only_first, only_first + only_second).pvalue)
