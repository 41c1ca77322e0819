"""Radii follow their formulas, meet golden values, and are rounded down."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hf_smoothing.statistics import (
    check_sigma,
    l2_radius,
    lower_bound,
    max_radius,
    min_draws,
    probability_for_radius,
    round_down,
    runner_up_radius,
    two_sided_pvalue,
    upper_bound,
)


sigmas = st.floats(0.01, 4.0)


@given(st.floats(0.0, 1.0), sigmas)
def test_radius_against_the_normal_quantile(p, sigma):
    expected = max(0.0, sigma * stats.norm.ppf(p))
    assert float(l2_radius(p, sigma)) == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_radius_golden():
    # sigma * Phi^-1(p), with Phi^-1(0.976036187155) = 1.978010 from a table of the normal distribution.
    assert float(l2_radius(0.976036187155, 0.5)) == pytest.approx(0.989005, abs=1e-6)
    assert l2_radius([0.0, 0.3, 0.5], 1.0).tolist() == [0.0, 0.0, 0.0]
    assert float(l2_radius(1.0, 1.0)) == np.inf


@given(st.floats(0.5, 1.0, exclude_max=True), st.floats(0.01, 0.5), st.sampled_from([0.25, 0.5, 2.0, 8.0]))
def test_radius_is_linear_in_sigma(p, sigma, factor):
    # Exact, since the factors are powers of two.
    assert float(l2_radius(p, factor * sigma)) == factor * float(l2_radius(p, sigma))


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), sigmas)
def test_radius_never_falls_when_the_probability_rises(first, second, sigma):
    low, high = sorted((first, second))
    assert l2_radius(low, sigma) <= l2_radius(high, sigma)


@given(st.floats(0.0, 5.0), sigmas)
def test_probability_for_radius_inverts_l2_radius(multiple, sigma):
    radius = multiple * sigma
    back = float(l2_radius(probability_for_radius(radius, sigma), sigma))
    # Near probability 1 one rounding of the probability (2 ** -53) moves the radius by sigma / density.
    slack = sigma * 2.0**-52 / stats.norm.pdf(multiple)
    assert back == pytest.approx(radius, rel=1e-13, abs=4 * slack)


@pytest.mark.parametrize(
    ("n", "expected"),
    # SciPy 1.17.1: norm.ppf(0.001 ** (1 / n)).
    [(100, 1.500), (1_000, 2.463), (10_000, 3.199), (100_000, 3.811)],
)
def test_ceiling_golden(n, expected):
    assert float(max_radius(n, alpha=0.001, sigma=1.0)) == pytest.approx(expected, abs=5e-4)


def test_ceiling_golden_with_nine_digits():
    # SciPy 1.17.1: norm.ppf(0.001 ** (1 / 100_000)).
    assert float(max_radius(100_000, alpha=0.001, sigma=1.0)) == pytest.approx(3.811456563, abs=1e-9)


@given(st.integers(1, 100_000), st.floats(1e-6, 0.5), sigmas, st.data())
def test_no_count_beats_the_ceiling(n, alpha, sigma, data):
    k = data.draw(st.integers(0, n))
    assert l2_radius(lower_bound(k, n, alpha), sigma) <= max_radius(n, alpha, sigma)
    assert l2_radius(lower_bound(n, n, alpha), sigma) == max_radius(n, alpha, sigma)


def test_min_draws_golden():
    # 2 ** -10 < 0.001 < 2 ** -9, and 2 * 2 ** -11 < 0.001 < 2 * 2 ** -10.
    assert min_draws(0.001) == 10
    assert min_draws(0.001, two_sided=True) == 11


@given(st.floats(1e-12, 0.5))
def test_min_draws_is_the_first_number_that_can_decide(alpha):
    n = min_draws(alpha)
    assert float(lower_bound(n, n, alpha)) > 0.5
    assert n == 1 or float(lower_bound(n - 1, n - 1, alpha)) <= 0.5
    n = min_draws(alpha, two_sided=True)
    assert float(two_sided_pvalue(n, 0)) <= alpha
    assert n == 1 or float(two_sided_pvalue(n - 1, 0)) > alpha


@given(st.floats(0.0, 1e6), st.integers(0, 12))
def test_round_down_is_the_largest_decimal_not_above(radius, digits):
    text = round_down(radius, digits)
    assert Decimal(text) <= Decimal(radius) < Decimal(text) + Decimal(1).scaleb(-digits)
    assert len(text.partition(".")[2]) == digits


def test_round_down_golden():
    # 0.3 and 2.675 are stored just below themselves in binary, 0.1 + 0.2 just above 0.3.
    assert [round_down(x) for x in (0.0, 0.9999, 0.3, 0.1 + 0.2)] == ["0.000", "0.999", "0.299", "0.300"]
    assert round_down(2.675, digits=2) == "2.67"
    assert round_down(float("inf")) == "inf"


@pytest.mark.parametrize("radius", [float("nan"), float("-inf")])
def test_round_down_of_what_is_no_radius_is_refused(radius):
    with pytest.raises(ValueError, match="radius"):
        round_down(radius)


@pytest.mark.parametrize("sigma", [0.0, -0.5, float("nan"), float("inf")])
def test_sigma_that_is_no_noise_level_is_refused(sigma):
    message = r"`sigma` must be a positive noise standard deviation in \[0, 1\] pixel units, got"
    for call in (check_sigma, lambda s: l2_radius(0.9, s), lambda s: probability_for_radius(0.1, s)):
        with pytest.raises(ValueError, match=message):
            call(sigma)
    with pytest.raises(ValueError, match=message):
        max_radius(100, 0.001, sigma)


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan"), [0.5, 2.0]])
def test_probability_outside_the_unit_interval_is_refused(p):
    with pytest.raises(ValueError, match=r"`p_lower` must hold probabilities in \[0, 1\]"):
        l2_radius(p, 0.5)


@pytest.mark.parametrize("radius", [-0.1, float("nan"), [0.5, -2.0]])
def test_negative_radius_has_no_probability(radius):
    with pytest.raises(ValueError, match="`radius` must not be negative or nan"):
        probability_for_radius(radius, 0.5)


@pytest.mark.parametrize("n", [0, -1, float("nan")])
def test_ceiling_of_no_draws_is_refused(n):
    with pytest.raises(ValueError, match="`n` must be at least 1"):
        max_radius(n, 0.001, 0.5)


@pytest.mark.parametrize("call", [lambda: min_draws(0.0), lambda: max_radius(10, 1.0, 0.5)])
def test_alpha_is_checked(call):
    with pytest.raises(ValueError, match="`alpha` must be a failure probability"):
        call()


# --- Slack: the total variation between the noise that is drawn and its law


slacks = st.floats(0.0, 1e-3)


@given(st.floats(0.0, 1.0), sigmas, slacks)
def test_radius_with_slack_against_the_formula(p, sigma, slack):
    expected = sigma * (stats.norm.ppf(max(0.0, p - slack)) - stats.norm.ppf(0.5 + slack))
    assert float(l2_radius(p, sigma, slack)) == pytest.approx(max(0.0, expected), rel=1e-12, abs=1e-14 * sigma)


@given(st.floats(0.0, 2.5), sigmas, slacks)
def test_probability_for_radius_inverts_l2_radius_with_slack(multiple, sigma, slack):
    radius = multiple * sigma
    q = float(probability_for_radius(radius, sigma, slack))
    assert q >= float(probability_for_radius(radius, sigma))
    assert float(l2_radius(q, sigma, slack)) == pytest.approx(radius, rel=1e-11, abs=1e-13 * sigma)


@given(st.floats(0.5, 1.0), sigmas, slacks, slacks)
def test_slack_only_costs(p, sigma, first, second):
    less, more = sorted((first, second))
    assert l2_radius(p, sigma, more) <= l2_radius(p, sigma, less) <= l2_radius(p, sigma)
    # At the centre of the law the density is largest: no cure is cheaper than 2 slack sigma / phi(0).
    if 0.5 + 2 * more < p:
        assert l2_radius(p, sigma, more) <= l2_radius(p, sigma) - 2 * more * sigma * 2.5 + 1e-12 * sigma


def test_slack_of_the_sampler_is_what_it_says():
    # A classifier whose probability is 1/2 + 2 slack under the drawn noise may be at 1/2 under the law, and next to a perturbed image
    # where the drawn noise gives 1/2 - slack: nothing may be claimed.
    slack = 8e-8
    assert float(l2_radius(0.5 + 2 * slack, 1.0, slack)) == pytest.approx(0.0, abs=1e-15)
    assert float(l2_radius(0.5 + 2.1 * slack, 1.0, slack)) > 0
    assert float(probability_for_radius(0.0, 1.0, slack)) == pytest.approx(0.5 + 2 * slack, abs=1e-15)
    assert float(probability_for_radius(50.0, 1.0, slack)) == 1.0


# --- The runner-up radius


def twin_runner_up(a: float, b: float, sigma: float) -> float:
    """Theorem 1 for probabilities a of the top class and b of the runner-up."""
    return 0.5 * sigma * (stats.norm.ppf(a) - stats.norm.ppf(b)) if a > b else 0.0


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), sigmas)
def test_runner_up_radius_against_the_formula(low, high, sigma):
    expected = twin_runner_up(low, min(high, 1 - low), sigma)
    assert float(runner_up_radius(low, high, sigma)) == pytest.approx(expected, rel=1e-12, abs=1e-14 * sigma)


def test_runner_up_radius_golden():
    # A table of the normal distribution: Phi^-1(.8) = 0.841621, Phi^-1(.05) = -1.644854.
    assert float(runner_up_radius(0.8, 0.05, 1.0)) == pytest.approx((0.841621 + 1.644854) / 2, abs=1e-6)
    # The other classes have at most 1 - .8 together, whatever their own bound says.
    assert float(runner_up_radius(0.8, 0.9, 1.0)) == pytest.approx(0.841621, abs=1e-6)
    # A majority is not needed: .4 against .1.
    assert float(runner_up_radius(0.4, 0.1, 1.0)) == pytest.approx((-0.253347 + 1.281552) / 2, abs=1e-6)
    assert float(runner_up_radius(0.4, 0.45, 1.0)) == 0.0


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), sigmas)
def test_runner_up_radius_is_never_below_the_one_sided_one(low, high, sigma):
    one_sided = float(l2_radius(low, sigma))
    assert float(runner_up_radius(low, high, sigma)) >= one_sided * (1 - 1e-12) - 1e-14 * sigma


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0), sigmas)
def test_runner_up_radius_is_monotone_in_both_bounds(low, first, second, sigma):
    smaller, larger = sorted((first, second))
    assert runner_up_radius(low, smaller, sigma) >= runner_up_radius(low, larger, sigma)
    assert runner_up_radius(smaller, low, sigma) <= runner_up_radius(larger, low, sigma) * (1 + 1e-12) + 1e-14 * sigma


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), sigmas, slacks)
def test_runner_up_radius_with_slack(low, high, sigma, slack):
    found = float(runner_up_radius(low, high, sigma, slack))
    assert found <= float(runner_up_radius(low, high, sigma))
    a, b = stats.norm.ppf(max(0.0, low - slack)), stats.norm.ppf(min(1.0, min(high, 1 - low) + slack))
    if found > 0.0 and slack >= 1e-12 and math.isfinite(a) and math.isfinite(b):
        # At the perturbed image the exact probabilities differ by what the noise that is drawn may take from both.
        r = found / sigma
        assert stats.norm.cdf(a - r) - stats.norm.cdf(b + r) >= 2 * slack * (1 - 1e-9)
        assert r <= (a - b) / 2


def test_runner_up_radius_at_the_ends():
    assert float(runner_up_radius(0.0, 0.0, 1.0)) == 0.0
    assert float(runner_up_radius(0.0, 1.0, 1.0)) == 0.0
    assert float(runner_up_radius(1.0, 0.0, 1.0)) == np.inf
    assert float(runner_up_radius(1.0, 1.0, 1.0)) == np.inf
    assert np.isfinite(runner_up_radius(1.0, 0.0, 1.0, slack=1e-8))
    found = runner_up_radius([0.0, 0.5, 0.9], [0.0, 0.5, 0.05], 2.0)
    assert found.shape == (3,) and found[1] == 0.0


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_runner_up_probability_outside_the_unit_interval_is_refused(p):
    with pytest.raises(ValueError, match=r"`p_lower` must hold probabilities in \[0, 1\]"):
        runner_up_radius(p, 0.1, 0.5)
    with pytest.raises(ValueError, match=r"`p_upper` must hold probabilities in \[0, 1\]"):
        runner_up_radius(0.9, p, 0.5)
    with pytest.raises(ValueError, match="`sigma` must be a positive noise"):
        runner_up_radius(0.9, 0.1, -1.0)


RUNNER_UP_LAWS = {
    "two classes": [0.6, 0.4],
    "tied runners-up": [0.4, 0.3, 0.3],
    "nearly tied with the top": [0.35, 0.33, 0.32],
    "all alike": [0.25] * 4,
    "ten": [0.46, *[0.06] * 9],
    "a clear top": [0.9, 0.05, 0.05],
}


def runner_up_failures(law: list[float], alpha: float, trials: int, n0: int = 10, n: int = 200) -> int:
    """How often the whole procedure, selection included, claims more than is true (arXiv 1902.02918, Theorem 1)."""
    rng = np.random.default_rng(0)
    p = np.array(law)
    top = rng.multinomial(n0, p, size=trials).argmax(axis=1)
    counts = rng.multinomial(n, p, size=trials)
    first = counts[np.arange(trials), top]
    others = counts.copy()
    others[np.arange(trials), top] = -1
    low, high = lower_bound(first, n, alpha / 2), upper_bound(others.max(axis=1), n, alpha / 2)
    rival = np.array([np.delete(p, c).max() for c in range(len(p))])
    true = np.maximum(0.0, 0.5 * (stats.norm.ppf(p) - stats.norm.ppf(rival)))[top]
    return int((runner_up_radius(low, high, 1.0) > true + 1e-12).sum())


@pytest.mark.parametrize("law", RUNNER_UP_LAWS.values(), ids=RUNNER_UP_LAWS)
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_runner_up_radius_covers(law, alpha):
    trials = 20_000
    failures = runner_up_failures(law, alpha, trials)
    assert stats.binom.sf(failures - 1, trials, alpha) > 1e-3


def test_the_coverage_count_has_power():
    # At a level five times too high the same verdict is a clear no.
    trials = 20_000
    failures = runner_up_failures(RUNNER_UP_LAWS["two classes"], 0.25, trials)
    assert stats.binom.sf(failures - 1, trials, 0.05) < 1e-9
