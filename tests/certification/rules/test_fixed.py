"""The rule of fixed n with the bound on the runner-up follows its formula."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hf_smoothing import statistics
from hf_smoothing.certification import FixedRule, Votes
from hf_smoothing.statistics import ABSTAIN


# --- FixedRule with the runner-up bound


@given(
    st.lists(st.integers(0, 60), min_size=2, max_size=5).filter(lambda counts: sum(counts) >= 10), st.integers(0, 4)
)
def test_runner_up_rule_against_the_formula(counts, top):
    top %= len(counts)
    n = sum(counts)
    rule = FixedRule(0.5, n0=10, n=n, bound="runner-up")
    selection = np.eye(len(counts), dtype=np.int64)[top] * 10
    votes = Votes(3, None, [selection, np.array(counts)], 10 + n)
    certificate = rule.decide(votes)
    low = statistics.lower_bound(counts[top], n, 0.0005)
    high = statistics.upper_bound(max(c for i, c in enumerate(counts) if i != top), n, 0.0005)
    a, b = float(low), min(float(high), 1 - float(low))
    radius = 0.25 * (stats.norm.ppf(a) - stats.norm.ppf(b)) if a > b else 0.0
    assert (certificate.p_lower, certificate.p_upper) == (float(low), float(high))
    assert certificate.radius == pytest.approx(radius, rel=1e-9, abs=1e-12)
    assert certificate.prediction == (top if certificate.radius > 0 else ABSTAIN)
    assert rule.wanted(votes) == votes.drawn and rule.wanted(Votes(0)) == 10 + n


def test_runner_up_bound_certifies_without_a_majority():
    votes = Votes(0, None, [np.array([9, 1, 0, 0]), np.array([4500, 2000, 2000, 1500])], 10_010)
    one_sided, runner_up = (
        FixedRule(1.0, 10, 10_000, bound=bound).decide(votes) for bound in ("one-sided", "runner-up")
    )
    assert one_sided.abstained and runner_up.prediction == 0
    assert 0.2 < runner_up.radius < 0.5 * (stats.norm.ppf(0.45) - stats.norm.ppf(0.2))
