"""Certified accuracy equals a plain loop, never rises with the radius, and has exact intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hf_smoothing.statistics import ABSTAIN, abstention_rate, average_certified_radius, certified_accuracy


@st.composite
def columns(draw) -> tuple[list[int], list[int], list[float]]:
    size = draw(st.integers(1, 30))
    predictions = draw(st.lists(st.integers(ABSTAIN, 3), min_size=size, max_size=size))
    labels = draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    radii = draw(st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.3, 1.0, 3.5]), min_size=size, max_size=size))
    return predictions, labels, [0.0 if p == ABSTAIN else r for p, r in zip(predictions, radii, strict=True)]


@given(columns(), st.lists(st.floats(0.0, 4.0), min_size=1, max_size=5))
def test_certified_accuracy_against_a_plain_loop(data, thresholds):
    predictions, labels, radii = data
    result = certified_accuracy(predictions, labels, radii, thresholds)
    for threshold, accuracy in zip(thresholds, result.accuracy, strict=True):
        hits = sum(p == y and r >= threshold for p, y, r in zip(predictions, labels, radii, strict=True))
        assert accuracy == hits / len(labels)
    assert result.num_images == len(labels)


@given(columns())
def test_curve_never_rises(data):
    curve = certified_accuracy(*data, thresholds=np.linspace(0, 4, 81)).accuracy
    assert np.all(np.diff(curve) <= 0)


@given(columns())
def test_average_certified_radius_is_the_area_under_the_curve(data):
    # The curve is a staircase that falls at the radii only, so its area is exact from one value between any two of them.
    edges = np.unique([0.0, *data[2]])
    area = 0.0
    if len(edges) > 1:
        curve = certified_accuracy(*data, thresholds=(edges[:-1] + edges[1:]) / 2).accuracy
        area = float(np.sum(curve * np.diff(edges)))
    assert average_certified_radius(*data) == pytest.approx(area, abs=1e-12)


@given(columns(), st.permutations(range(30)))
def test_order_of_images_does_not_matter(data, order):
    chosen = [i for i in order if i < len(data[0])]
    shuffled = [np.asarray(column)[chosen] for column in data]
    grid = [0.0, 0.25, 1.0]
    np.testing.assert_array_equal(
        certified_accuracy(*shuffled, grid).accuracy, certified_accuracy(*data, grid).accuracy
    )
    assert average_certified_radius(*shuffled) == pytest.approx(average_certified_radius(*data), abs=1e-12)


def test_threshold_is_compared_without_tolerance():
    # At the ceiling a whole share of the images has one radius: the next double above it must find none of them.
    ceiling = 0.9528641407
    result = certified_accuracy([0] * 5, [0] * 5, [ceiling] * 5, [ceiling, np.nextafter(ceiling, 2.0)])
    assert result.accuracy.tolist() == [1.0, 0.0]


def test_abstention_is_never_correct_and_has_no_radius():
    result = certified_accuracy([ABSTAIN, 2], [1, 2], [0.0, 0.4], [0.0])
    assert result.accuracy.tolist() == [0.5]
    assert average_certified_radius([ABSTAIN, 2], [1, 2], [0.0, 0.4]) == pytest.approx(0.2)
    assert abstention_rate([ABSTAIN, 2]) == 0.5


def test_interval_of_the_accuracy_is_exact():
    result = certified_accuracy([1] * 6 + [0] * 4, [1] * 10, [0.5] * 10, [0.0, 1.0], confidence=0.9)
    for j, hits in enumerate((6, 0)):
        expected = stats.binomtest(hits, 10).proportion_ci(0.9, method="exact")
        assert (result.lower[j], result.upper[j]) == pytest.approx((expected.low, expected.high), rel=1e-8)
    assert result.confidence == 0.9
    assert result.thresholds.tolist() == [0.0, 1.0]


GOOD = {"predictions": [1, ABSTAIN], "references": [1, 0], "radii": [0.5, 0.0], "thresholds": [0.0]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"radii": [0.5]}, r"one-dimensional and of equal length, got shapes \(2,\), \(2,\) and \(1,\)"),
        ({"predictions": [[1, 0]]}, "one-dimensional and of equal length"),
        ({"predictions": [1.0, 0.0]}, "`predictions` must be integer class indices, got dtype float64"),
        ({"references": ["cat", "dog"]}, "`references` must be integer class indices"),
        ({"references": [True, False]}, "`references` must be integer class indices, got dtype bool"),
        ({"predictions": [1, -2]}, "`predictions` must be classes >= 0 or -1 for abstention, got -2"),
        ({"references": [1, -1]}, "`references` must be classes >= 0, got -1"),
        ({"radii": [-0.5, 0.0]}, "`radii` must be >= 0 and not nan or infinite, got -0.5"),
        ({"radii": [float("nan"), 0.0]}, "`radii` must be >= 0 and not nan or infinite, got nan"),
        ({"radii": [float("inf"), 0.0]}, "`radii` must be >= 0 and not nan or infinite, got inf"),
        ({"radii": ["far", "near"]}, "`radii` must be numbers"),
        ({"radii": [0.5, 0.1]}, "abstains must have radius 0.0"),
        ({"thresholds": []}, "`thresholds` must be a non-empty list of radii >= 0"),
        ({"thresholds": [-1.0]}, "`thresholds` must be a non-empty list of radii >= 0"),
        ({"thresholds": [float("nan")]}, "`thresholds` must be a non-empty list of radii >= 0"),
        ({"confidence": 95}, "`confidence` must"),
    ],
)
def test_bad_columns_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        certified_accuracy(**{**GOOD, **change})


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_an_abstention_that_an_unsigned_column_has_lost_is_noticed(dtype):
    lost = np.asarray([0, -1]).astype(dtype)
    for measure in (
        lambda: abstention_rate(lost),
        lambda: certified_accuracy(lost, [0, 1], [0.5, 0.0], [0.0]),
        lambda: average_certified_radius([0, 1], lost, [0.5, 0.0]),
    ):
        with pytest.raises(ValueError, match="must be of a signed dtype, got .* which is what -1 becomes"):
            measure()
    assert abstention_rate(np.asarray([0, 254], dtype)) == 0.0


def test_no_image_has_no_accuracy():
    for call in (
        lambda: certified_accuracy([], [], [], [0.0]),
        lambda: average_certified_radius([], [], []),
        lambda: abstention_rate([]),
    ):
        with pytest.raises(ValueError, match="At least one"):
            call()
