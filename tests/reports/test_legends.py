"""Names and styles by which many curves of one picture can be distinguished."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_smoothing.reports.legends import short_names, styles


def test_names_are_shortened_to_what_differs():
    logs = [f"/home/someone/certification_output/cifar10/{m}/noise_0.50/test/sigma_0.50" for m in ("cohen", "macer")]
    assert short_names(logs) == ["cohen", "macer"]
    assert short_names(["a/1/x", "a/2/y"]) == ["1/x", "2/y"]
    assert short_names(["same", "same", "other"]) == ["same", "same", "other"]
    (long,) = short_names(["an-organisation/a-model-with-a-very-long-name"])
    assert len(long) == 28 and long.startswith("an-organisati") and long.endswith("very-long-name")
    alike = [f"{'x' * 20}{k}{'y' * 20}" for k in range(2)]
    assert short_names(alike) == alike  # shorter they would be one


@given(st.lists(st.text("ab/", min_size=1, max_size=12), min_size=1, max_size=6))
def test_different_names_stay_different_and_equal_ones_equal(names):
    short = short_names(names)
    for (a, x), (b, y) in itertools.combinations(zip(names, short, strict=True), 2):
        assert (a == b) == (x == y)


@pytest.mark.parametrize(
    "curves",
    [
        [(f"m{k}", 0.5) for k in range(30)],
        [("m", 0.1 * k) for k in range(30)],
        [(f"m{k}", sigma) for k in range(10) for sigma in (0.12, 0.25, 0.5, 1.0, None)],
        [("m", 0.5)] * 12,
        [(f"m{k}", None) for k in range(12)],
    ],
)
def test_no_two_curves_differ_in_colour_alone(curves):
    chosen = [(style["linestyle"], style["marker"]) for style in styles(curves)]
    assert len(set(chosen)) == len(curves)


def test_names_keep_their_marker_and_sigmas_their_line():
    chosen = styles([("a", 0.25), ("b", 0.25), ("a", 0.5), ("b", 0.5)])
    assert chosen[0]["marker"] == chosen[2]["marker"] != chosen[1]["marker"]
    assert chosen[0]["linestyle"] == chosen[1]["linestyle"] != chosen[2]["linestyle"]
    assert chosen[0]["fillstyle"] == chosen[1]["fillstyle"] != chosen[2]["fillstyle"]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from([0.25, 0.5, 1.0])), min_size=2, max_size=7))
def test_line_and_marker_differ_both_among_few_curves(curves):
    for one, other in itertools.combinations(styles(curves), 2):
        same_line = one["linestyle"] == other["linestyle"]
        same_marker = (one["marker"], one["fillstyle"]) == (other["marker"], other["fillstyle"])
        assert not same_marker and (not same_line or one["marker"] != other["marker"])
