"""Words follow the intervals."""

import numpy as np
import pytest

from examples.studies.verdicts import across, interval, listed, verdict, word
from hf_smoothing.statistics import Paired, paired_difference


def found(low, high, images=250):
    return Paired((low + high) / 2, low, high, 0.5, images)


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (found(0.001, 0.02), "higher"),
        (found(-0.02, -0.001), "lower"),
        (found(-0.001, 0.02), "no significant difference"),
        (found(0.0, 0.02), "no significant difference"),
        (found(-0.02, 0.0), "no significant difference"),
        (found(0.001, 0.02, images=29), "not tested"),
        (None, "not tested"),
    ],
)
def test_a_word_says_no_more_than_its_interval(one, said):
    assert word(one) == said
    assert verdict(one).startswith(said)
    assert ("[" in verdict(one)) == (said != "not tested")


def test_the_evidence_stands_beside_the_word():
    assert verdict(found(0.01, 0.03)) == "higher, +0.020 [+0.010, +0.030]"
    assert verdict(found(-0.078, -0.02), 100.0) == "lower, -4.9 [-7.8, -2.0]"
    assert interval(found(-0.0002, 0.02)) == "+0.010 [-0.000, +0.020]"  # which side of 0 an end is on, is shown
    assert verdict(found(-0.0002, 0.02)) == "no significant difference, +0.010 [-0.000, +0.020]"


def test_several_places_are_gathered_by_what_they_say():
    several = {"0.25": found(0.01, 0.02), "0.5": found(-0.1, 0.1), "1.0": found(-0.2, 0.1), "2.0": None}
    assert across(several) == "higher at 0.25; no significant difference at 0.5 and 1.0; not tested at 2.0"
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"


def test_words_and_measured_columns():
    rng = np.random.default_rng(0)
    a = rng.normal(size=100)
    assert word(paired_difference(a + 1.0 + rng.normal(0, 0.1, 100), a)) == "higher"
    assert word(paired_difference(a, a)) == "no significant difference"
