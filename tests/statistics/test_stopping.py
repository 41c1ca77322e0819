"""What stopping costs: a plain bound on stopped counts is wrong, giving up is exact, and choosing the class afterwards takes half of alpha."""

from __future__ import annotations

import bisect
import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hf_smoothing.statistics import (
    error_shares,
    geometric_looks,
    hopeless,
    lower_bound,
    spending_boundaries,
    union_boundaries,
)
from tests.support.lattices import ALPHAS, GRIDS, Q, boundaries, crossing, levels


# --- What a wrong rule does: a fixed-n bound on counts that a rule stopped


def stopped(p: float, looks, bounds) -> list[list[tuple[int, float]]]:
    """A + C as a slow twin: for each look the counts at which it stops, with their probabilities."""
    lowest, alive, drawn, found = 0, np.ones(1), 0, []
    for n, b in zip(looks, bounds, strict=True):
        step, reach = n - drawn, 9 * math.sqrt((n - drawn) * p * (1 - p)) + 40
        first, last = max(0, int(step * p - reach)), min(step, int(step * p + reach))
        alive = np.convolve(alive, stats.binom.pmf(np.arange(first, last + 1), step, p))
        lowest, drawn = lowest + first, n
        counts = lowest + np.arange(len(alive))
        ends = (counts >= b) | hopeless(counts, n, looks[-1], bounds[-1])
        found.append(
            [(int(s), float(mass)) for s, mass in zip(counts[ends], alive[ends], strict=True) if mass > 1e-18]
        )
        alive = np.where(ends, 0.0, alive)
    assert sum(mass for look in found for _, mass in look) == pytest.approx(1.0, abs=1e-9)
    return found


def test_a_plain_bound_on_stopped_counts_is_wrong_and_ours_is_right():
    # statistics.md A: target .5 sigma, p = .7, alpha .001; simulated there, exact here.
    p, alpha, looks = 0.7, 0.001, geometric_looks(100_000)
    bounds = union_boundaries(float(stats.norm.cdf(0.5)), looks, alpha)
    plain = sound = 0.0
    for k, ends in enumerate(stopped(p, looks, bounds)):
        for s, mass in ends:
            plain += mass * float(lower_bound(s, looks[k], alpha) > p)
            sound += mass * float(lower_bound(s, looks[k], alpha * error_shares(len(looks))[k]) > p)
    assert plain == pytest.approx(0.0036, abs=1e-4)
    assert sound <= alpha


def test_a_plain_bound_at_every_look_is_worse_still():
    p, alpha, looks = 0.7, 0.001, geometric_looks(100_000)
    each = [bisect.bisect_right(range(n + 1), p, key=lambda s, n=n: float(lower_bound(s, n, alpha))) for n in looks]
    assert crossing(p, looks, each) == pytest.approx(0.0125, abs=2e-4)
    assert crossing(p, looks, union_boundaries(p, looks, alpha)) <= alpha


# --- Giving up


def twin_hopeless(s: int, n: int, n_max: int, b: int) -> bool:
    """Statistics.md, C, word for word."""
    if s + (n_max - n) < b:
        return True
    m = (s + 0.5) / (n + 1)
    z = NormalDist().inv_cdf(0.97)
    predicted = (s + (n_max - n) * m) / n_max + z * math.sqrt(m * (1 - m) * (n_max - n) / (n_max * n))
    return predicted < (b - 0.5) / n_max


@given(st.integers(1, 100_000), st.data())
def test_hopeless_against_the_formula(n_max, data):
    n = data.draw(st.integers(1, n_max))
    s = data.draw(st.lists(st.integers(0, n), min_size=1, max_size=5))
    b = data.draw(st.integers(1, n_max + 1))
    assert hopeless(s, n, n_max, b).tolist() == [twin_hopeless(x, n, n_max, b) for x in s]


def test_hopeless_near_its_border_against_the_formula():
    n_max, b = 1000, 730
    for n in geometric_looks(n_max):
        counts = np.arange(n + 1)
        found = hopeless(counts, n, n_max, b)
        assert found.tolist() == [twin_hopeless(int(s), n, n_max, b) for s in counts]
        assert found[0] and (n == n_max or not found[-1])
        assert np.all(np.diff(found.astype(int)) <= 0)  # more successes never make it hopeless


def test_hopeless_broadcasts_over_targets():
    counts, finals = np.array([10, 15, 20]), np.array([600, 700, 950])
    table = hopeless(counts[:, None], 20, 1000, finals)
    assert table.shape == (3, 3)
    assert table.tolist() == [[twin_hopeless(int(s), 20, 1000, int(b)) for b in finals] for s in counts]


@given(st.integers(1, 60), st.data())
def test_curtailment_is_exact(n_max, data):
    n = data.draw(st.integers(0, n_max))
    s, b = data.draw(st.integers(0, n)), data.draw(st.integers(1, n_max + 1))
    reachable = any(s + more >= b for more in range(n_max - n + 1))
    given_up = bool(hopeless(s, n, n_max, b))
    assert given_up or reachable  # what cannot be reached is always given up
    if n == n_max:
        assert given_up == (s < b)
    if n == 0:
        assert given_up == (not reachable)


# --- No selection stage, at alpha/2 (statistics.md D)


@boundaries
@levels
@pytest.mark.parametrize(
    ("n_max", "targets"),
    [(20, [Q[0]]), (1000, [Q[0], Q[2], Q[4], Q[8]]), (100_000, [Q[2]])],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_crossing_grows_at_least_in_proportion_to_p(boundaries, alpha, n_max, targets):
    looks = geometric_looks(n_max)
    for q in targets:
        bounds = boundaries(q, looks, alpha / 2)
        grid = q * (np.linspace(0.05, 1.0, 20) if n_max <= 1000 else np.array([0.5, 0.9, 0.98, 0.995, 1]))
        ratios = np.array([crossing(float(p), looks, bounds) / p for p in grid])
        assert np.all(np.diff(ratios) >= -1e-9 * ratios[1:] - 1e-20)
        assert ratios[-1] <= alpha


@boundaries
@pytest.mark.parametrize(("n_max", "targets"), GRIDS, ids=lambda value: str(value) if isinstance(value, int) else "")
def test_why_crossing_grows_at_least_in_proportion_to_p(boundaries, n_max, targets):
    # A path that first crosses with s successes in n draws has probability p^s (1-p)^(n-s), which divided by p grows up to
    # p = (s-1)/(n-1). If that is at least q at the boundary of every look, the sum over all paths grows so up to q.
    looks = geometric_looks(n_max)
    for alpha in (0.9, 0.5, *ALPHAS):
        for q in targets:
            reachable = [(b, n) for b, n in zip(boundaries(q, looks, alpha / 2), looks, strict=True) if b <= n]
            assert all(b - 1 >= q * (n - 1) for b, n in reachable)


SPLITS = {
    "two": [0.5] * 2,
    "three": [1 / 3] * 3,
    "unequal": [0.4, 0.3, 0.3],
    "ten": [0.1] * 10,
    "just not certain": [0.7, 0.3],
}


@boundaries
@pytest.mark.parametrize("probabilities", SPLITS.values(), ids=SPLITS)
def test_false_claims_of_all_classes_together_stay_within_alpha(boundaries, probabilities):
    for n_max, alpha in ((1000, 0.05), (1000, 0.001), (20, 0.05)):
        looks = geometric_looks(n_max)
        for q in (Q[0], float(stats.norm.cdf(0.5244005127080407)), Q[4]):  # Phi^-1(.7) among them
            bounds = boundaries(q, looks, alpha / 2)
            false = sum(crossing(p, looks, bounds) for p in probabilities if p <= q)
            assert false <= alpha


@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_a_choice_after_the_fact_needs_the_half(alpha):
    # Two equal classes: without halving, both can cross, and together they exceed alpha.
    looks = geometric_looks(1000)
    bounds = spending_boundaries(0.5, looks, alpha)
    assert 2 * crossing(0.5, looks, bounds) > 1.5 * alpha
