"""The known answers of the self-test come from other programs: Python's integers, mpmath, and counting."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from hf_smoothing import statistics
from hf_smoothing.noise import GridStream
from hf_smoothing.selftest import bounds, certificates, draws
from tests.support.grid_noise import twin_draw
from tests.support.tails import exact_tail


@pytest.mark.parametrize("sigma", draws.GOLDEN_GRID)
def test_golden_draws_are_those_of_the_slow_twin(sigma):
    stream = GridStream(draws.GOLDEN_SEED, draws.GOLDEN_SHAPE, sigma=sigma)
    steps = [np.array(twin_draw(stream, *pair)).astype(np.int16) for pair in draws.GOLDEN_PAIRS]
    assert draws.digest_of(steps) == draws.GOLDEN_GRID[sigma]


def test_golden_votes_are_counted_on_the_slow_twin():
    stream = GridStream(0, (1, 2, 2), sigma=certificates.SIGMA)
    first = [twin_draw(stream, 0, draw)[0] for draw in range(certificates.VOTE_DRAWS)]
    bands = np.searchsorted([-149.5, -39.5, 60.5, 120.5], first)
    assert tuple(np.bincount(bands, minlength=5).tolist()) == certificates.VOTES


@pytest.mark.parametrize(("k", "n", "alpha"), bounds.BOUNDS)
def test_the_exact_tail_is_that_of_mpmath(k, n, alpha):
    p = float(statistics.lower_bound(k, n, alpha))
    assert float(bounds.binomial_tail(k, n, Decimal(p)) / Decimal(str(exact_tail(k, n, p)))) == pytest.approx(
        1, rel=1e-14
    )


def test_the_probability_of_crossing_is_that_of_all_walks():
    looks, boundary, p = (2, 5, 7), (2, 4, 5), 0.4
    walks = (np.arange(1 << 7)[:, None] >> np.arange(7)) & 1
    sums = walks.cumsum(axis=1)[:, [look - 1 for look in looks]]
    weights = p ** walks.sum(axis=1) * (1 - p) ** (7 - walks.sum(axis=1))
    assert bounds.crossing(p, looks, boundary) == pytest.approx(
        weights[(sums >= boundary).any(axis=1)].sum(), rel=1e-12
    )
