"""How often false certificates are too many: exact binomial verdicts, and the probability that an audit finds what is there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special


def _tail(count: ArrayLike, trials: int, rate: float) -> NDArray[np.float64]:
    """P(Binomial(trials, rate) >= count), for counts up to trials + 1."""
    return np.asarray(special.bdtrc(np.asarray(count) - 1, trials, rate), dtype=np.float64)


def p_value(false: int, trials: int, alpha: float) -> float:
    """Probability of this number of false certificates, or more, where each is false with probability alpha.

    >>> p_value(0, 100, 0.05), round(p_value(12, 100, 0.05), 4)
    (1.0, 0.0043)
    """
    return float(_tail(false, trials, alpha))


def critical_count(trials: int, alpha: float, false_alarm: float) -> int:
    """The smallest number of false certificates whose p-value is at most `false_alarm`; trials + 1 if there is none.

    >>> critical_count(4_000, 0.05, 0.001)
    245
    """
    counts = np.arange(trials + 2)
    return int(counts[_tail(counts, trials, alpha) <= false_alarm][0])


def power(rate: float, trials: int, critical: int) -> float:
    """Probability of `critical` false certificates or more, where each is false with probability `rate`."""
    return float(_tail(critical, trials, rate))


def smallest_rate(trials: int, critical: int) -> float:
    """The rate of false certificates that is found with probability 0.99; 1 if none is."""
    if power(1.0, trials, critical) < 0.99:
        return 1.0
    return float(optimize.brentq(lambda rate: power(rate, trials, critical) - 0.99, 0.0, 1.0, xtol=1e-9))


def power_of_hunt(rates: Sequence[float], explore: int, confirm: int, critical: int) -> float:
    """Probability that an audit finds a violation: some case has most false certificates in the search, and enough of them again.

    Args:
        rates: Probability of a false certificate in each case.
        explore: Certificates per case in the search.
        confirm: Fresh certificates of the case with most false ones, the first of those.
        critical: Number of false ones among them that is a violation.

    >>> power_of_hunt([0.1], 10, 4_000, 244) == power(0.1, 4_000, 244)
    True
    """
    counts = np.arange(explore + 1)
    total = 0.0
    for place, rate in enumerate(rates):
        chosen = _tail(counts, explore, rate) - _tail(counts + 1, explore, rate)
        for other, theirs in enumerate(rates):
            if other != place:  # fewer where the other comes first
                chosen = chosen * (1.0 - _tail(counts + (other > place), explore, theirs))
        total += float(chosen.sum()) * power(rate, confirm, critical)
    return total
