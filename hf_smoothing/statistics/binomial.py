"""Exact bounds on a binomial probability, vectorised.

Source: Clopper & Pearson, *The use of confidence or fiducial limits illustrated in the case of the binomial*,
Biometrika 26 (1934). The bounds are quantiles of the beta distribution, computed by `scipy.special.betaincinv`, which is
more than ten times cheaper than `scipy.stats.beta.ppf` and equal to it. Half of such quantiles lie on the wrong side of the exact
bound, by a little. So each is put to the test that defines it, the binomial tail at the bound, and moved until it passes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from hf_smoothing.units import check_alpha, check_confidence


def _check_counts(successes: ArrayLike, trials: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    k, n = np.broadcast_arrays(np.asarray(successes), np.asarray(trials))
    for name, values in (("successes", k), ("trials", n)):
        if values.dtype.kind not in "iu" and not np.all(np.isfinite(values) & (np.floor(values) == values)):
            raise ValueError(f"`{name}` must be whole numbers, got {values}. Pass counts, not frequencies.")
    if np.any(n < 1) or np.any(k < 0) or np.any(k > n):
        raise ValueError(f"Counts must satisfy 0 <= successes <= trials and trials >= 1, got {k} of {n}.")
    return k.astype(np.float64), n.astype(np.float64)


MARGIN, TESTED = 1e-10, 1e-40
"""By which share of alpha the tail at a bound stays below alpha: more than the relative error of `scipy.special.betainc`, which is at most
a third of this up to a million trials, and down to tails of the second number, in `tests/statistics/test_binomial.py`, against sums of 40 digits:
3e-11 before SciPy 1.17, 2e-12 from there on. Far below, at 1e-250, that function is wrong by orders of magnitude."""


def _rounded_down(
    bound: NDArray[np.float64], k: NDArray[np.float64], n: NDArray[np.float64], alpha: float
) -> NDArray[np.float64]:
    """Moved down by steps that double from one unit in the last place, until P(Binomial(n, bound) >= k) <= alpha."""
    shape, bound, k, n = bound.shape, bound.flatten(), k.ravel(), n.ravel()
    step, open_ = np.spacing(bound), np.arange(bound.size)
    while open_.size:
        tail = special.betainc(k[open_], n[open_] - k[open_] + 1.0, bound[open_])
        open_ = open_[tail > alpha * (1.0 - MARGIN)]
        bound[open_] = np.maximum(bound[open_] - step[open_], 0.0)
        step[open_] *= 2.0
    return bound.reshape(shape)


def lower_bound(successes: ArrayLike, trials: ArrayLike, alpha: float) -> NDArray[np.float64]:
    """A one-sided lower confidence bound: P(bound > p) <= alpha for every success probability p.

    Args:
        successes: Whole numbers k, 0 <= k <= trials, any shape.
        trials: Whole numbers n >= 1, broadcast against `successes`.
        alpha: Failure probability of one bound, in [1e-40, 1/2].

    Returns:
        A float64 array of the broadcast shape, in [0, 1), never above the exact bound: 0 for k = 0, alpha ** (1 / n) for k = n,
        rounded down. Relative error below 1e-9 in the tested range (golden values in `tests/statistics/test_binomial.py`).

    Raises:
        ValueError: If `alpha` is not in [1e-40, 1/2] or the counts are not counts.

    Source: Clopper & Pearson (1934).

    >>> round(float(lower_bound(990, 1000, alpha=0.001)), 12)
    0.976036187155
    """
    alpha = check_alpha(alpha, TESTED)
    k, n = _check_counts(successes, trials)
    # betaincinv needs both parameters positive: k = 0 (bound 0) is replaced by a harmless 1 and overwritten.
    some = np.maximum(k, 1.0)
    bound = np.where(k == n, alpha ** (1.0 / n), special.betaincinv(some, n - some + 1.0, alpha))
    return np.asarray(np.where(k == 0, 0.0, _rounded_down(bound, some, n, alpha)), dtype=np.float64)


def upper_bound(successes: ArrayLike, trials: ArrayLike, alpha: float) -> NDArray[np.float64]:
    """A one-sided upper confidence bound: P(bound < p) <= alpha for every success probability p.

    Arguments, errors and source as `lower_bound`, of which it is the mirror image.

    >>> float(upper_bound(10, 10, alpha=0.001))
    1.0
    """
    alpha = check_alpha(alpha, TESTED)
    k, n = _check_counts(successes, trials)
    other = lower_bound(n - k, n, alpha)
    return np.asarray(np.where(other > 0.0, np.nextafter(1.0 - other, 2.0).clip(max=1.0), 1.0), dtype=np.float64)


def interval(
    successes: ArrayLike, trials: ArrayLike, confidence: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The exact two-sided (Clopper-Pearson) interval, for reporting a measured share such as an accuracy.

    Args:
        successes, trials: As in `lower_bound`.
        confidence: Coverage of the interval, in [1/2, 1). This is a confidence level, not a failure probability.

    Returns:
        The tuple (lower, upper), float64 arrays of the broadcast shape.

    Raises:
        ValueError: If `confidence` is not in [1/2, 1) or the counts are not counts.

    >>> [round(float(x), 3) for x in interval(300, 500)]
    [0.556, 0.643]
    """
    tail = (1.0 - check_confidence(confidence)) / 2.0
    return lower_bound(successes, trials, tail), upper_bound(successes, trials, tail)


def two_sided_pvalue(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """P-value of the exact two-sided binomial test that two counts come from a fair coin.

    This is the test of PREDICT: with the counts of the top two classes, answering only if the p-value is at most alpha
    returns a wrong class with probability at most alpha.

    Args:
        first, second: Whole numbers >= 0 with a positive sum, any broadcastable shapes.

    Returns:
        A float64 array in (0, 1]; symmetric in its arguments.

    Source: Cohen, Rosenfeld & Kolter (2019), arXiv 1902.02918, function Predict; the fair-coin case of the exact test is
    twice the upper tail.

    >>> float(two_sided_pvalue(5, 5))
    1.0
    """
    a, b = np.broadcast_arrays(
        np.asarray(first) + np.int64(0), np.asarray(second) + np.int64(0)
    )  # uint8 would overflow
    more, trials = _check_counts(np.maximum(a, b), a + b)
    # P(X >= more) for X ~ Binomial(trials, 1/2), as a regularised incomplete beta function; more >= 1 since trials >= 1.
    tail = special.betainc(more, trials - more + 1.0, 0.5)
    return np.asarray(np.minimum(1.0, 2.0 * tail), dtype=np.float64)
