"""Paired differences, ratios and the exact test of McNemar agree with SciPy and cover the truth."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hf_smoothing.statistics import mcnemar, paired_difference, paired_ratio


NUMBERS = st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=2, max_size=40)


@given(pairs=NUMBERS, confidence=st.floats(0.5, 0.999))
def test_the_difference_is_that_of_scipys_paired_test(pairs, confidence):
    a, b = np.array(pairs).T
    found = paired_difference(a, b, confidence)
    d = a - b
    assert found.value == pytest.approx(d.mean(), abs=1e-12)
    assert found.num_images == len(d)
    assert found.low <= found.value <= found.high
    assert 0.0 <= found.p_value <= 1.0
    if np.ptp(d) > 1e-3:  # below, scipy warns of a loss of precision
        other = stats.ttest_rel(a, b)
        low, high = other.confidence_interval(confidence)
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6, abs=1e-9)
        assert found.p_value == pytest.approx(other.pvalue, rel=1e-6, abs=1e-12)


def test_without_spread_the_p_value_is_that_of_the_signs():
    assert paired_difference([1.0, 1.0], [1.0, 1.0]).p_value == 1.0
    same = paired_difference([0.5] * 5, [0.25] * 5)
    assert same.value == 0.25
    assert same.p_value == 2.0**-4  # two of the 2^5 ways to put signs are as extreme


@pytest.mark.parametrize("number", [2, 3, 5, 6, 40])
@pytest.mark.parametrize(
    ("first", "second"), [(0.1, 0.0), (1.0, 0.0), (0.3, 0.1), (1e-9, 0.0), (-7.7, 0.1), (0.1, 0.1)]
)
def test_an_interval_without_spread_claims_no_more_than_the_test_of_the_signs(first, second, number):
    """Whether or not the mean of equal numbers is rounded: a spread of 1e-17 is none."""
    generator = np.random.default_rng(number)
    shift = generator.uniform(0, 1, number)
    for moved in (np.zeros(number), shift):  # differences that are equal but for rounding
        found = paired_difference(first + moved, second + moved)
        assert found.p_value == (1.0 if first == second else 2.0 ** (1 - number))
        assert found.low <= found.value <= found.high
        if found.p_value > 0.05 and first != second:
            assert found.low <= 0.0 <= found.high
        assert math.isinf(found.low) == math.isinf(found.high) == (number < 6)


def test_the_ends_of_a_ratio_do_not_rest_on_one_image():
    found = paired_ratio([0.5, 0.2, 0.1, 0.4, 0.3], [0.0, 0.0, 0.0, 0.0, 0.3])
    assert found.value == pytest.approx(5.0) and (found.low, found.high) == (0.0, math.inf)
    # Also where most resamples are 0 / 0, and where a ratio may be negative.
    assert paired_ratio([0.0, 0.0, 0.0, 0.3], [0.0, 0.0, 0.0, 0.3]).low == 0.0
    assert paired_ratio([0.0, 0.0, -0.1, 0.3], [0.0, 0.0, 0.0, 0.3]).low == -math.inf


@pytest.mark.parametrize(
    "column", [[0, 7, 3], [math.nan, 1.0, 0.0], ["cat", "dog", "eel"], [None, True, False], [0, 1, 1]]
)
def test_the_test_of_who_is_right_takes_truth_values_alone(column):
    right = [True, False, True]
    for pair in ((column, right), (right, column)):
        with pytest.raises(TypeError, match=r"needs truth values \(bool\), got .*predictions == labels"):
            mcnemar(*pair)


def test_intervals_cover_the_truth_as_often_as_they_say():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        base = generator.normal(size=50)
        found = paired_difference(base + generator.normal(0.3, 0.5, 50), base, 0.9)
        covered += found.low <= 0.3 <= found.high
    assert stats.binomtest(covered, 2000, 0.9).pvalue > 1e-4


def test_pairing_is_what_makes_small_differences_visible():
    generator = np.random.default_rng(1)
    base = generator.gamma(2.0, 1.0, 250)
    better = base + 0.05 + generator.normal(0, 0.1, 250)
    assert paired_difference(better, base).p_value < 1e-6
    assert stats.ttest_ind(better, base).pvalue > 0.1


def test_the_ratio_and_its_bootstrap():
    generator = np.random.default_rng(2)
    b = generator.gamma(2.0, 1.0, 300)
    a = 0.8 * b + generator.normal(0, 0.2, 300)
    found = paired_ratio(a, b)
    assert found.value == pytest.approx(a.mean() / b.mean())
    assert found.low < 0.8 < found.high
    assert found.high - found.low < 0.08
    again, other = paired_ratio(a, b), paired_ratio(a, b, seed=1)
    assert (again.low, again.high) == (found.low, found.high)
    assert (other.low, other.high) != (found.low, found.high)
    exact = paired_ratio(2 * b, b)
    assert (exact.low, exact.value, exact.high) == (2.0, 2.0, 2.0)


def test_intervals_of_the_ratio_cover_the_truth():
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(300):
        b = generator.gamma(2.0, 1.0, 100)
        a = 0.5 * b * generator.uniform(0.5, 1.5, 100)
        found = paired_ratio(a, b, 0.9, resamples=300)
        covered += found.low <= 0.5 <= found.high
    assert covered / 300 > 0.83


@settings(max_examples=50)
@given(only_first=st.integers(0, 8), only_second=st.integers(0, 8), both=st.integers(0, 5), neither=st.integers(0, 5))
def test_mcnemar_is_the_exact_test_of_the_images_that_differ(only_first, only_second, both, neither):
    a = [True] * only_first + [False] * only_second + [True] * both + [False] * neither
    b = [False] * only_first + [True] * only_second + [True] * both + [False] * neither
    total = only_first + only_second
    extreme = abs(only_first - only_second)
    ways = (
        sum(1 for signs in itertools.product((1, -1), repeat=total) if abs(sum(signs)) >= extreme)
        if total <= 12
        else None
    )
    if ways is not None and total:
        assert mcnemar(a, b) == pytest.approx(ways / 2**total)
    if total == 0:
        assert mcnemar(a, b) == 1.0
    assert mcnemar(a, b) == mcnemar(b, a)


@pytest.mark.parametrize("function", [paired_difference, paired_ratio])
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([1.0], [1.0], "two at least"),
        ([1.0, 2.0], [1.0], r"shapes \(2,\) and \(1,\)"),
        ([[1.0, 2.0]], [[1.0, 2.0]], "two columns"),
        ([1.0, math.nan], [1.0, 2.0], "finite numbers"),
        ([1.0, 2.0], [1.0, math.inf], "finite numbers"),
    ],
)
def test_columns_that_do_not_pair_are_refused(function, first, second, message):
    with pytest.raises(ValueError, match=message):
        function(first, second)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95])
def test_confidence_is_a_share(confidence):
    for function in (paired_difference, paired_ratio):
        with pytest.raises(ValueError, match="`confidence` must be strictly between 0 and 1"):
            function([1.0, 2.0], [2.0, 1.0], confidence)


def test_a_ratio_to_nothing_and_columns_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="whose mean is not 0"):
        paired_ratio([1.0, 2.0], [0.0, 0.0])
    with pytest.raises(ValueError, match="one entry for each of the same images"):
        mcnemar([True], [True, False])
