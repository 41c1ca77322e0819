"""Binomial bounds meet golden values, mirror and nest, and cover as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from hf_smoothing.statistics import check_alpha, interval, lower_bound, two_sided_pvalue, upper_bound
from hf_smoothing.statistics.binomial import MARGIN, TESTED
from tests.support.tails import exact_tail


ALPHAS = [0.001, 0.01, 0.05, 0.5]


@st.composite
def counts(draw, largest: int = 100_000) -> tuple[int, int]:
    n = draw(st.integers(1, largest))
    return draw(st.integers(0, n)), n


def bisect_lower(k: int, n: int, alpha: float) -> float:
    """The p at which k or more successes have probability alpha, found with nothing but the binomial tail."""
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        if stats.binom.sf(k - 1, n, middle) <= alpha:
            low = middle
        else:
            high = middle
    return low


@pytest.mark.parametrize(
    ("k", "n", "expected"),
    [
        # SciPy 1.17.1's beta.ppf(0.001, k, n - k + 1), confirmed by a bisection on the binomial tail.
        (99, 100, 0.911373111296),
        (900, 1000, 0.867464018026),
        (990, 1000, 0.976036187155),
    ],
)
def test_lower_bound_golden(k, n, expected):
    assert lower_bound(k, n, alpha=0.001) == pytest.approx(expected, abs=1e-11)
    assert bisect_lower(k, n, 0.001) == pytest.approx(expected, abs=1e-12)


def test_interval_golden():
    # 60% measured on 500 and on 10,000 images, by R's binom.test: 55.6 to 64.3 and 59.0 to 61.0 percent.
    assert np.round(interval(300, 500), 3).tolist() == [0.556, 0.643]
    assert np.round(interval(6000, 10_000), 3).tolist() == [0.590, 0.610]


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("n", [1, 2, 10, 100, 1000, 100_000])
def test_lower_bound_against_beta_quantile_and_bisection(n, alpha):
    k = np.unique(np.linspace(1, n, 23).astype(int))
    bounds = lower_bound(k, n, alpha)
    np.testing.assert_allclose(bounds, stats.beta.ppf(alpha, k, n - k + 1), rtol=1e-9)
    for j in (0, len(k) // 2, len(k) - 1):
        assert bounds[j] == pytest.approx(bisect_lower(int(k[j]), n, alpha), rel=1e-9)


@pytest.mark.parametrize("k", [0, 1, 37, 99, 100])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_interval_against_binomtest(k, confidence):
    expected = stats.binomtest(k, 100).proportion_ci(confidence, method="exact")
    # binomtest finds its ends with a root finder, to about nine digits.
    np.testing.assert_allclose(interval(k, 100, confidence), (expected.low, expected.high), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("n", [1, 10, 1000, 100_000])
def test_no_success_bounds_nothing_and_only_successes_give_the_root(n, alpha):
    assert float(lower_bound(0, n, alpha)) == 0.0
    root = alpha ** (1 / n)
    assert (1 - 1e-9) * root <= float(lower_bound(n, n, alpha)) <= root
    assert float(upper_bound(n, n, alpha)) == 1.0
    assert float(upper_bound(0, n, alpha)) == pytest.approx(1 - root, rel=1e-9)


@given(counts(), st.floats(1e-9, 0.5))
def test_lower_bound_is_below_the_observed_share(pair, alpha):
    k, n = pair
    assert 0.0 <= float(lower_bound(k, n, alpha)) <= k / n


@given(counts(), st.floats(1e-9, 0.499), st.floats(1e-9, 0.499))
def test_bounds_are_nested_in_alpha(pair, first, second):
    small, large = sorted((first, second))
    assert (
        lower_bound(*pair, small)
        <= lower_bound(*pair, large)
        <= upper_bound(*pair, large)
        <= upper_bound(*pair, small)
    )


@given(counts(largest=5_000), st.floats(1e-6, 0.5))
def test_bounds_increase_with_every_success(pair, alpha):
    k, n = pair
    if k < n:
        assert lower_bound(k, n, alpha) < lower_bound(k + 1, n, alpha)


@given(counts(), st.floats(1e-9, 0.5))
def test_lower_and_upper_bounds_mirror_each_other(pair, alpha):
    k, n = pair
    assert float(upper_bound(k, n, alpha)) == pytest.approx(1.0 - float(lower_bound(n - k, n, alpha)), abs=1e-15)


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3])
@pytest.mark.parametrize("n", [1, 5, 20, 100, 1000])
def test_exact_level_never_exceeds_alpha(n, alpha):
    """P(bound > p), summed over the lattice of outcomes, for p on a grid and just below every value the bound can take."""
    bounds = lower_bound(np.arange(n + 1), n, alpha)
    just_below = np.nextafter(bounds[bounds > 0], 0.0)
    for p in np.concatenate([np.linspace(0.001, 0.999, 199), just_below[:: max(1, n // 50)]]):
        first = int(np.argmax(bounds > p)) if bounds[-1] > p else n + 1
        assert np.all(bounds[first:] > p)
        assert stats.binom.sf(first - 1, n, p) <= alpha
    # The level is reached at the values of the bound, so no smaller bound is thrown away.
    k = np.arange(1, n + 1)
    np.testing.assert_allclose(stats.binom.sf(k - 1, n, bounds[1:]), alpha, rtol=1e-8)


def grid(count: int, seed: int):
    """Counts (successes, trials) up to a million trials, with levels: anywhere, and where nearly all or nearly none succeed."""
    generator = np.random.default_rng(seed)
    for number in range(count):
        n = int(10 ** generator.uniform(0, 6))
        few = int(10 ** generator.uniform(0, np.log10(n + 1)))
        k = (n - few + 1, few, int(generator.integers(1, n + 1)))[number % 3]
        lowest = -9 if number % 2 else np.log10(TESTED)
        yield int(np.clip(k, 1, n)), n, float(10 ** generator.uniform(lowest, np.log10(0.5)))


def check_tails(count: int, seed: int) -> None:
    wrong = 0
    for k, n, alpha in grid(count, seed):
        bound = float(lower_bound(k, n, alpha))
        tail = exact_tail(k, n, bound)
        assert tail <= alpha, (k, n, alpha)
        assert tail >= alpha * (1 - 1e-7), (k, n, alpha)  # and nothing is thrown away
        assert abs(special.betainc(k, n - k + 1, bound) / tail - 1) < MARGIN / 3, (k, n, alpha)
        wrong += k < n and exact_tail(k, n, float(special.betaincinv(k, n - k + 1, alpha))) > alpha
    assert wrong > 0.2 * count  # bounds that were not put to the test would not pass it


def test_no_bound_lies_above_the_exact_one():
    check_tails(150, 0)


@pytest.mark.parametrize("bound", [lower_bound, upper_bound])
@pytest.mark.parametrize("alpha", [9e-42, 1e-250, 1e-307, 5e-324])
def test_levels_below_the_tested_ones_are_refused(alpha, bound):
    with pytest.raises(ValueError, match=r"`alpha` must be at least 1e-40, as bounds are tested down to there, got"):
        bound(1962, 2000, alpha)


@pytest.mark.slow
def test_no_bound_of_thousands_lies_above_the_exact_one():
    check_tails(20_000, 1)


@pytest.mark.parametrize("n", [100, 100_000, 1_000_000])
def test_bounds_increase_with_every_success_all_along(n):
    for alpha in (1e-6, 0.001, 0.3):
        for start in (0, n // 3, max(0, n - 1_000)):
            k = np.arange(start, min(n, start + 1_000) + 1)
            assert (np.diff(lower_bound(k, n, alpha)) > 0).all()
            assert (np.diff(upper_bound(k, n, alpha)) > 0).all()


@pytest.mark.parametrize("p", [0.5, 0.7, 0.99])
def test_simulated_coverage(p):
    n, alpha, runs = 100, 0.05, 50_000
    successes = np.random.default_rng(7).binomial(n, p, size=runs)
    failures = int((lower_bound(successes, n, alpha) > p).sum())
    assert stats.binomtest(failures, runs, alpha, alternative="greater").pvalue > 1e-3
    # The same verdict finds the observed share out, which is no bound at all.
    naive = int((successes / n > p).sum())
    assert stats.binomtest(naive, runs, alpha, alternative="greater").pvalue < 1e-3


@given(st.integers(0, 400), st.integers(0, 400))
def test_two_sided_pvalue_against_binomtest(first, second):
    if first + second:
        expected = stats.binomtest(first, first + second, 0.5).pvalue
        assert float(two_sided_pvalue(first, second)) == pytest.approx(expected, rel=1e-9)
        assert two_sided_pvalue(first, second) == two_sided_pvalue(second, first)


def test_bounds_broadcast_and_keep_shape_and_dtype():
    bounds = lower_bound([[0], [3]], [3, 5, 9], 0.1)
    assert bounds.shape == (2, 3)
    assert bounds.dtype == np.float64
    assert bounds[1, 2] == lower_bound(3, 9, 0.1)
    assert lower_bound(np.uint8(200), np.uint8(255), 0.1) == lower_bound(200, 255, 0.1)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 99.9, float("nan"), float("inf")])
def test_alpha_that_is_no_probability_is_refused(alpha):
    with pytest.raises(ValueError, match=r"`alpha` must be a failure probability above 0 and at most 1/2, got"):
        check_alpha(alpha)
    for bound in (lower_bound, upper_bound):
        with pytest.raises(ValueError, match=r"`alpha` must be a failure probability"):
            bound(1, 2, alpha)


@pytest.mark.parametrize("bound", [lower_bound, upper_bound])
@pytest.mark.parametrize(
    ("k", "n", "message"),
    [
        (0.5, 10, "`successes` must be whole numbers, got 0.5. Pass counts, not frequencies"),
        (float("nan"), 10, "`successes` must be whole numbers, got nan"),
        (float("inf"), 10, "`successes` must be whole numbers, got inf"),
        (1, 10.5, "`trials` must be whole numbers, got 10.5"),
        (-1, 10, "0 <= successes <= trials and trials >= 1, got -1 of 10"),
        (11, 10, "0 <= successes <= trials and trials >= 1, got 11 of 10"),
        (0, 0, "0 <= successes <= trials and trials >= 1, got 0 of 0"),
    ],
)
def test_counts_that_are_no_counts_are_refused(bound, k, n, message):
    with pytest.raises(ValueError, match=message):
        bound(k, n, 0.01)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95])
def test_interval_names_its_own_argument(confidence):
    with pytest.raises(ValueError, match="`confidence` must"):
        interval(1, 2, confidence)


def test_pvalue_needs_votes():
    with pytest.raises(ValueError, match="trials >= 1, got 0 of 0"):
        two_sided_pvalue(0, 0)


def test_pvalue_of_narrow_integers_does_not_wrap_around():
    assert two_sided_pvalue(np.uint8(200), np.uint8(100)) == two_sided_pvalue(200, 100)
