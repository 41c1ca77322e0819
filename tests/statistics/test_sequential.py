"""Sequential boundaries equal slow twins in exact fractions and keep their level at every look."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hf_smoothing.statistics import (
    crossing_probabilities,
    error_shares,
    geometric_looks,
    lower_bound,
    sequential_lower_bound,
    spending_boundaries,
    union_boundaries,
)
from tests.support.lattices import ALPHAS, GRIDS, KINDS, Q, boundaries, crossing, levels
from tests.support.tails import exact_tail


# --- Looks and shares


@given(st.integers(1, 500_000))
def test_looks_ascend_from_the_first_to_n_max(n_max):
    looks = geometric_looks(n_max)
    assert looks[-1] == n_max
    assert looks[0] == min(20, n_max)
    assert all(a < b for a, b in itertools.pairwise(looks))
    assert all(type(n) is int for n in looks)


@given(st.integers(40, 500_000))
def test_looks_grow_by_about_one_half(n_max):
    looks = np.array(geometric_looks(n_max), dtype=float)
    growth = looks[1:] / looks[:-1]
    steps = len(growth)
    assert growth == pytest.approx((n_max / 20) ** (1 / steps), rel=0.05)  # rounding moves a look by 1/2 of 20
    # The nearest number of steps: a half more or fewer would be on the other side of the ratio.
    assert (steps - 0.5) * math.log(1.5) <= math.log(n_max / 20) <= (steps + 0.5) * math.log(1.5) or steps == 1


def test_looks_golden():
    # statistics.md: "geometric: 20, ratio 1.5, 22 looks to 1e5".
    looks = geometric_looks(100_000)
    assert (len(looks), looks[0], looks[1], looks[-1]) == (22, 20, 30, 100_000)
    assert geometric_looks(1) == (1,) and geometric_looks(20) == (20,)
    assert geometric_looks(21) == (20, 21)


@pytest.mark.parametrize("alpha", [1e-12, 1e-20, 1e-24, 1e-25, 1e-26, 1e-30, 1e-36])
@pytest.mark.parametrize("boundaries", [spending_boundaries, union_boundaries])
def test_no_look_at_a_minute_level_crosses_more_often(boundaries, alpha):
    for q, n in ((0.5, 10_000), (0.9, 2_000), (0.999, 300)):
        looks = geometric_looks(n)
        reached = [(b, m) for b, m in zip(boundaries(q, looks, alpha), looks, strict=True) if b <= m]
        assert all(exact_tail(b, m, q) <= alpha for b, m in reached)


@pytest.mark.parametrize("boundaries", [spending_boundaries, union_boundaries])
def test_levels_below_the_tested_ones_are_refused(boundaries):
    for alpha in (1e-41, 1e-100, 1e-150):
        with pytest.raises(ValueError, match="`alpha` must be at least 1e-40"):
            boundaries(0.5, geometric_looks(10_000), alpha)


@pytest.mark.parametrize("n_max", [0, -5])
def test_impossible_looks_are_refused(n_max):
    with pytest.raises(ValueError, match="`n_max` must be at least 1, got"):
        geometric_looks(n_max)


def test_looks_are_whole_numbers():
    with pytest.raises(ValueError, match="`n_max` must be a whole number"):
        geometric_looks(1e5)


@given(st.integers(1, 200))
def test_shares_are_the_whole_with_half_for_the_last_look(count):
    shares = error_shares(count)
    assert shares.shape == (count,)
    assert math.fsum(shares) == pytest.approx(1.0, rel=1e-14)
    assert shares[-1] == (0.5 if count > 1 else 1.0)
    assert np.all(shares[:-1] == shares[0]) or count == 1
    assert np.all(shares > 0)


# --- The exact lattice against slow twins


def twin_crossing(p: Fraction, looks, bounds) -> list[Fraction]:
    """Draw by draw, in exact fractions: the probability of the first crossing at each look."""
    alive, drawn, found = {0: Fraction(1)}, 0, []
    for n, b in zip(looks, bounds, strict=True):
        for _ in range(n - drawn):
            step: dict[int, Fraction] = {}
            for s, mass in alive.items():
                step[s + 1] = step.get(s + 1, Fraction(0)) + mass * p
                step[s] = step.get(s, Fraction(0)) + mass * (1 - p)
            alive = step
        drawn = n
        found.append(sum((mass for s, mass in alive.items() if s >= b), Fraction(0)))
        alive = {s: mass for s, mass in alive.items() if s < b}
    return found


@st.composite
def small_tests(draw):
    looks = sorted(draw(st.sets(st.integers(1, 24), min_size=1, max_size=4)))
    bounds = [draw(st.integers(0, n + 1)) for n in looks]
    return looks, bounds


@given(st.integers(1, 99), small_tests())
def test_crossing_probabilities_against_fractions(percent, test):
    looks, bounds = test
    expected = [float(x) for x in twin_crossing(Fraction(percent, 100), looks, bounds)]
    found = crossing_probabilities(percent / 100, looks, bounds)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-22)
    assert np.all(found >= np.array(expected) * (1 - 1e-11))


@given(st.sampled_from([0.1, 0.5, 0.69, 0.9, 0.999]), st.integers(1, 100_000), st.floats(-6, 6))
def test_one_look_is_a_binomial_tail(p, n, z):
    b = min(n + 1, max(0, round(n * p + z * math.sqrt(n * p * (1 - p)))))
    expected = float(stats.binom.sf(b - 1, n, p))
    assert crossing(p, (n,), (b,)) == pytest.approx(expected, rel=1e-9, abs=1e-24)


def test_many_looks_that_none_crosses_are_one_binomial():
    looks = geometric_looks(100_000)
    bounds = [n + 1 for n in looks[:-1]] + [70_150]
    assert crossing(0.7, looks, bounds) == pytest.approx(float(stats.binom.sf(70_149, 100_000, 0.7)), rel=1e-8)


def twin_spending(q: Fraction, looks, alpha: Fraction) -> tuple[int, ...]:
    """Lan and DeMets word for word: at each look the smallest boundary that keeps the total within what may be spent by then."""
    chosen: list[int] = []
    count = len(looks)
    for k, n in enumerate(looks):
        share = Fraction(1) if k == count - 1 else Fraction(k + 1, 2 * (count - 1))
        for b in range(n + 2):
            if sum(twin_crossing(q, looks[: k + 1], [*chosen, b])) <= alpha * share:
                chosen.append(b)
                break
    return tuple(chosen)


@pytest.mark.parametrize("looks", [(7,), (4, 8, 13), (5, 7, 10, 16)])
@pytest.mark.parametrize("percent", [50, 69, 84, 97])
@pytest.mark.parametrize("alpha", ["0.3", "0.05", "0.001"])
def test_spending_boundaries_against_fractions(looks, percent, alpha):
    q = percent / 100
    # Fraction(q) is the number the code sees, not its decimal.
    assert spending_boundaries(q, looks, float(alpha)) == twin_spending(Fraction(q), looks, Fraction(alpha))


# --- Level


@boundaries
@levels
@pytest.mark.parametrize(("n_max", "targets"), GRIDS, ids=lambda value: str(value) if isinstance(value, int) else "")
def test_level_is_exact_and_grows_with_p(boundaries, alpha, n_max, targets):
    looks = geometric_looks(n_max)
    for q in targets:
        bounds = boundaries(q, looks, alpha)
        assert len(bounds) == len(looks)
        # Just below q, where nothing is to be given away, and far below.
        grid = sorted({q * x for x in (0.5, 0.95, 0.9999)} | {q})
        if n_max > 1000:
            grid = grid[-2:]
        found = [crossing(p, looks, bounds) for p in grid]
        assert max(found) <= alpha
        assert all(a <= b * (1 + 1e-9) + 1e-22 for a, b in itertools.pairwise(found))
        above = crossing((1 + q) / 2, looks, bounds)
        assert above >= found[-1] * (1 - 1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("n_max", [20, 50, 1000])
def test_level_at_q_itself(kind, alpha, n_max):
    looks = geometric_looks(n_max)
    for q in Q:
        bounds = KINDS[kind](q, looks, alpha)
        assert crossing(q, looks, bounds) <= alpha
        assert bounds[-1] > n_max or crossing(q, looks, bounds) > 0


@given(st.floats(0.5, 0.9999), st.integers(20, 3000), st.floats(1e-8, 0.5), st.sampled_from(sorted(KINDS)))
def test_level_is_exact_anywhere(q, n_max, alpha, kind):
    looks = geometric_looks(n_max)
    bounds = KINDS[kind](q, looks, alpha)
    assert crossing(q, looks, bounds) <= alpha
    assert crossing(0.97 * q, looks, bounds) <= alpha


@pytest.mark.parametrize("alpha", ALPHAS)
def test_spending_leaves_little_of_alpha(alpha):
    looks = geometric_looks(100_000)
    for q in (Q[0], Q[2], Q[4], Q[8]):  # targets up to 2 sigma
        assert 0.95 * alpha <= crossing(q, looks, spending_boundaries(q, looks, alpha)) <= alpha
    # At 3 sigma counts are coarse: one success more or less is a large part of alpha.
    assert 0.85 * alpha <= crossing(Q[12], looks, spending_boundaries(Q[12], looks, alpha)) <= alpha


def test_the_union_bound_leaves_much_of_alpha():
    # Otherwise error spending would have no reason to be.
    looks = geometric_looks(1000)
    assert all(crossing(q, looks, union_boundaries(q, looks, 0.001)) < 0.8 * 0.001 for q in Q)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(("n_max", "targets"), GRIDS, ids=lambda value: str(value) if isinstance(value, int) else "")
def test_spending_crosses_no_later_than_the_union_bound(alpha, n_max, targets):
    looks = geometric_looks(n_max)
    for q in targets:
        spending, union = (np.array(kind(q, looks, alpha)) for kind in (spending_boundaries, union_boundaries))
        assert np.mean(spending <= union) >= 0.9
        p = q + 0.3 * (1 - q)
        assert crossing(p, looks, spending) >= crossing(p, looks, union) - 1e-9
        # Not only in the end: by each look.
        sooner = np.cumsum(crossing_probabilities(p, looks, spending))
        assert np.all(sooner >= np.cumsum(crossing_probabilities(p, looks, union)) - 1e-9)


# --- The union bound is a confidence bound


@boundaries
@given(st.floats(0.5, 0.9999), st.integers(1, 100_000), st.floats(1e-8, 0.5))
def test_boundaries_are_counts_or_out_of_reach(boundaries, q, n_max, alpha):
    looks = geometric_looks(min(n_max, 3000) if boundaries is spending_boundaries else n_max)
    assert all(0 < b <= n + 1 for b, n in zip(boundaries(q, looks, alpha), looks, strict=True))


@given(st.floats(0.5, 0.9999), st.integers(1, 100_000), st.floats(1e-8, 0.5))
def test_union_boundary_is_the_smallest_count_whose_bound_exceeds_q(q, n_max, alpha):
    looks = geometric_looks(n_max)
    levels = alpha * error_shares(len(looks))
    for b, n, level in zip(union_boundaries(q, looks, alpha), looks, levels, strict=True):
        if b <= n:
            assert lower_bound(b, n, level) > q
        assert b >= 1
        assert lower_bound(b - 1, n, level) <= q


@given(st.integers(1, 100_000), st.floats(1e-8, 0.5), st.data())
def test_sequential_lower_bound_is_the_lower_bound_at_its_share(n_max, alpha, data):
    looks = geometric_looks(n_max)
    reached = looks[: data.draw(st.integers(1, len(looks)))]
    counts = [data.draw(st.integers(0, n)) for n in reached]
    found = sequential_lower_bound(counts, looks, alpha)
    shares = [1.0] if len(looks) == 1 else [0.5 / (len(looks) - 1)] * (len(looks) - 1) + [0.5]
    assert found.tolist() == [
        float(lower_bound(s, n, alpha * w)) for s, n, w in zip(counts, reached, shares, strict=False)
    ]


def test_sequential_lower_bound_before_the_first_look_is_empty():
    assert sequential_lower_bound([], (20, 30), 0.001).shape == (0,)


@pytest.mark.parametrize("p", [0.5, 0.7, 0.95, 0.999])
def test_all_bounds_hold_together(p):
    # P(some L_k > p) by the exact lattice, with boundaries read off the bounds themselves.
    alpha, looks = 0.01, geometric_looks(400)
    first_false = []
    for k, n in enumerate(looks):
        level = alpha * error_shares(len(looks))[k]
        first_false.append(int(np.argmax([float(lower_bound(s, n, level)) > p for s in range(n + 1)] + [True])))
    assert 0 < crossing(p, looks, first_false) <= alpha


@boundaries
@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_alpha_is_checked(boundaries, alpha):
    with pytest.raises(ValueError, match="`alpha` must be a failure probability"):
        boundaries(0.5, (20, 30), alpha)
    with pytest.raises(ValueError, match="`alpha` must be a failure probability"):
        sequential_lower_bound([15], (20, 30), alpha)
