"""Binomial tails to more digits than a double has."""

from __future__ import annotations

import mpmath  # type: ignore[import-untyped]


def exact_tail(k: int, n: int, p: float) -> mpmath.mpf:
    """P(Binomial(n, p) >= k) to 30 digits, term by term from the largest on, for p < k / n."""
    with mpmath.workdps(40):
        b = mpmath.mpf(p)
        logarithm = mpmath.loggamma(n + 1) - mpmath.loggamma(k + 1) - mpmath.loggamma(n - k + 1)
        term = mpmath.exp(logarithm + k * mpmath.log(b) + (n - k) * mpmath.log1p(-b))
        total, j = mpmath.mpf(0), k
        while j <= n and term > total * mpmath.mpf(10) ** -30:
            total, term, j = total + term, term * (n - j) / (j + 1) * b / (1 - b), j + 1
        return total
