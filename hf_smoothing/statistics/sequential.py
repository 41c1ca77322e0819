"""Testing whether a probability exceeds q while the draws come in: when to look, what may be claimed, when to give up.

A rule looks at the number of successes S_k after n_1 < ... < n_K draws and claims p > q as soon as S_k reaches a boundary b_k.
It is *valid at any stopping time* with level alpha: if p <= q, the probability that any look crosses is at most alpha.
Stopping without a claim can never make a false one, so `hopeless` may be any rule at all; nothing has to be proved of it.

Source: group-sequential tests with error spending (Lan & DeMets, Biometrika 70, 1983), here exact for binomial counts.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import scipy  # `scipy.stats` is imported by its first use, which few runs need: it takes as long as a third of torch
from numpy.typing import ArrayLike, NDArray
from scipy import special

from hf_smoothing.statistics.binomial import TESTED, lower_bound
from hf_smoothing.units import check_alpha, check_whole


FIRST_LOOK = 20
LOOK_RATIO = 1.5
"""Where the looks begin, and how far apart they are: the number of draws at one over that at the look before."""

FUTILITY_QUANTILE = 0.97
"""How sure to be that a target will be missed before it is given up: less makes fewer draws, and loses a few of the images that hang
in the balance."""

# Each look's window leaves out this much of a binomial on either side; it is counted as crossing, never as safe. Next to a level that is not
# far above it, nothing is left to be spent, and no boundary can be reached.
_TAIL = 1e-25


def geometric_looks(n_max: int) -> tuple[int, ...]:
    """Draw counts n_1 < ... < n_K = n_max at which to look, growing geometrically.

    Evenly spaced on a logarithmic scale between `FIRST_LOOK` and `n_max`, with a ratio as near to `LOOK_RATIO` as that allows.

    Raises:
        ValueError: If `n_max` is below 1.

    >>> geometric_looks(100), len(geometric_looks(100_000))
    ((20, 30, 45, 67, 100), 22)
    """
    n_max = check_whole(n_max, "n_max")
    if n_max < 1:
        raise ValueError(f"`n_max` must be at least 1, got {n_max}.")
    if n_max <= FIRST_LOOK:
        return (n_max,)
    steps = max(1, round(np.log(n_max / FIRST_LOOK) / np.log(LOOK_RATIO)))
    return tuple(sorted({round(FIRST_LOOK * (n_max / FIRST_LOOK) ** (k / steps)) for k in range(steps + 1)}))


def error_shares(count: int) -> NDArray[np.float64]:
    """What each of `count` looks may spend of the failure probability: the last one half, the others the rest in equal parts.

    >>> error_shares(3).tolist()
    [0.25, 0.25, 0.5]
    """
    if count == 1:
        return np.ones(1)
    return np.append(np.full(count - 1, 0.5 / (count - 1)), 0.5)


def sequential_lower_bound(successes: ArrayLike, looks: Sequence[int], alpha: float) -> NDArray[np.float64]:
    """Lower bounds L_k that hold at all looks together: P(some L_k > p) <= alpha for every p.

    L_k is the Clopper-Pearson bound at alpha w_k, with w = `error_shares`. So the largest of them is a valid bound at any
    stopping time, whatever decided when to stop.

    Proof: P(exists k: L_k > p) <= sum_k P(L_k > p) <= sum_k alpha w_k = alpha, by the union bound.

    Args:
        successes: Counts S_1, ..., S_m at the first m <= K looks, (..., m).
        looks: All K looks of the rule, also those that are not reached.
        alpha: Failure probability.

    Returns:
        A float64 array, the shape of `successes`.
    """
    counts = np.asarray(successes)
    shares = check_alpha(alpha, TESTED) * error_shares(len(looks))
    bounds = [lower_bound(counts[..., k], looks[k], shares[k]) for k in range(counts.shape[-1])]
    return np.stack(bounds, axis=-1) if bounds else np.zeros(counts.shape)


@functools.lru_cache(maxsize=4096)
def union_boundaries(q: float, looks: tuple[int, ...], alpha: float) -> tuple[int, ...]:
    """Rule A: b_k is the smallest count whose bound L_k (see `sequential_lower_bound`) exceeds q; n_k + 1 if none does.

    Level: P_p(some S_k >= b_k) <= alpha for all p <= q, since S_k >= b_k says L_k > q >= p.

    Args:
        q: Probability to exceed, in (0, 1).
        looks: Numbers of draws n_1 < ... < n_K.
        alpha: Failure probability.
    """
    n = np.asarray(looks)
    shares = check_alpha(alpha, TESTED) * error_shares(len(looks))
    low, high = np.zeros_like(n), n + 1  # L(low) <= q < L(high), with L(n + 1) taken as 1
    while np.any(high - low > 1):
        middle = np.where(high - low > 1, (low + high) // 2, low)
        bound = np.array([float(lower_bound(s, m, a)) for s, m, a in zip(middle, n, shares, strict=True)])
        high = np.where((bound > q) & (middle > low), middle, high)
        low = np.where(bound > q, low, middle)
    return tuple(int(b) for b in high)


@functools.lru_cache(maxsize=4096)
def spending_boundaries(q: float, looks: tuple[int, ...], alpha: float) -> tuple[int, ...]:
    """Rule B: b_k is the smallest count for which P_q(no crossing before look k, S_k >= b_k) stays within what may be spent by then.

    By look k the rule may have spent alpha (w_1 + ... + w_k), w = `error_shares`; what one look leaves passes on to the next.
    The probabilities are exact sums over the lattice of counts, so nothing is lost to a union bound.

    Level: P_q(some crossing) = sum_k P_q(first crossing at k) <= alpha by construction. For p < q couple the draws so that
    every success under p is one under q: each S_k only grows, so crossing only becomes more likely, and the level holds for all
    p <= q. For radii r_1 < r_2 < ... claim r_j only if all of q_1, ..., q_j are crossed: by fixed-sequence testing each may use
    the whole of alpha, since the first false claim needs a crossing of the smallest q_j >= p.

    Arguments as `union_boundaries`. Rounding is below 1e-10 of each share, and given away.
    """
    allowed = check_alpha(alpha, TESTED) * np.cumsum(error_shares(len(looks))) * (1.0 - 1e-10)
    spent, chosen = 0.0, []

    def choose(k: int, lowest: int, mass: NDArray[np.float64], neglected: float) -> int:
        nonlocal spent
        spent += neglected
        if spent > allowed[k]:  # what lies beyond the window may be more
            chosen.append(looks[k] + 1)
            return chosen[-1]
        # upper[i]: probability of arriving at lowest + i or more without having crossed.
        upper = np.append(np.cumsum(mass[::-1])[::-1], 0.0)
        cut = int(np.flatnonzero(upper <= allowed[k] - spent)[0])
        spent += float(upper[cut])
        chosen.append(min(lowest + cut, looks[k] + 1))
        return chosen[-1]

    _walk(q, looks, choose)
    return tuple(chosen)


def crossing_probabilities(p: float, looks: Sequence[int], boundaries: Sequence[int]) -> NDArray[np.float64]:
    """The exact probability that S_k reaches its boundary for the first time at look k, for each k, when draws succeed with p.

    An upper bound: tails below 1e-25 that are left out are counted as crossing.

    Args:
        p: Success probability, in (0, 1).
        looks, boundaries: Looks n_1 < ... < n_K and their boundaries b_1, ..., b_K.

    Returns:
        A float64 array (K,); its sum is the probability of ever crossing.
    """
    found = np.zeros(len(looks))

    def fixed(k: int, lowest: int, mass: NDArray[np.float64], neglected: float) -> int:
        found[k] = mass[max(0, boundaries[k] - lowest) :].sum() + neglected
        return boundaries[k]

    _walk(p, looks, fixed)
    return found


def _walk(p: float, looks: Sequence[int], boundary: Callable[[int, int, NDArray[np.float64], float], int]) -> None:
    """Carry P(S_k = lowest + i, not crossed) from look to look; `boundary` sees it before the crossed part is cut off."""
    lowest, mass = 0, np.ones(1)
    for k, (before, n) in enumerate(itertools.pairwise((0, *looks))):
        # Both ends by the lower tail of a binomial, which scipy inverts so far out; the upper one is that of the failures.
        first = int(scipy.stats.binom.ppf(_TAIL, n - before, p))
        last = n - before - int(scipy.stats.binom.ppf(_TAIL, n - before, 1.0 - p))
        mass = np.convolve(mass, scipy.stats.binom.pmf(np.arange(first, last + 1), n - before, p))
        lowest += first
        mass = mass[: max(0, boundary(k, lowest, mass, 2 * _TAIL) - lowest)]
        if len(mass) == 0:  # everything has crossed; the walk goes on without any mass
            mass = np.zeros(1)


def hopeless(successes: ArrayLike, drawn: int, n_max: int, final: ArrayLike) -> NDArray[np.bool_]:
    """Whether to give up: the final boundary is out of reach, or will be missed at the share of successes seen so far.

    (i) Curtailment: even if all further draws succeeded, the final count would stay below b_K. (ii) Prediction: the final share,
    extrapolated from m = (S + 1/2) / (n + 1) and raised by its standard error times Phi^-1(`FUTILITY_QUANTILE`), stays below b_K.
    It costs power, never validity.

    Args:
        successes: Count s after `drawn` draws, any shape.
        drawn: Number of draws so far, n.
        n_max: Number of draws at the last look, N.
        final: Last boundary b_K, broadcast against `successes`.
    """
    s, b = np.asarray(successes, dtype=np.float64), np.asarray(final, dtype=np.float64)
    left = n_max - drawn
    curtailed = s + left < b
    if drawn == 0:
        return curtailed
    m = (s + 0.5) / (drawn + 1.0)
    error = special.ndtri(FUTILITY_QUANTILE) * np.sqrt(m * (1.0 - m) * (left / (n_max * drawn)))
    predicted = (s + left * m) / n_max + error
    return np.asarray(curtailed | (predicted < (b - 0.5) / n_max))
