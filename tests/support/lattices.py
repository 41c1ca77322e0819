"""Boundaries, levels and lattices of sequential tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from hf_smoothing.statistics import crossing_probabilities, spending_boundaries, union_boundaries


ALPHAS = [0.05, 0.001, 1e-5]
KINDS = {"union": union_boundaries, "spending": spending_boundaries}
Q = [float(stats.norm.cdf(r)) for r in np.arange(0, 3.01, 0.25)]
# 13 probabilities for quick lattices, 3 where one walk takes some 30 ms.
GRIDS = [(20, Q), (50, Q), (1000, Q), (100_000, Q[::6])]

boundaries = pytest.mark.parametrize("boundaries", KINDS.values(), ids=KINDS)
# The extreme levels over all lattices are for `make test-slow`.
levels = pytest.mark.parametrize(
    "alpha", [pytest.param(alpha, marks=pytest.mark.slow if alpha != 0.001 else ()) for alpha in ALPHAS]
)


def crossing(p: float, looks: Sequence[int], bounds: Sequence[int]) -> float:
    """Probability that a coin of heads probability p crosses a boundary at any look."""
    return float(crossing_probabilities(p, looks, bounds).sum())
