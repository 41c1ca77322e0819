"""Rules are made of arguments that belong together, refuse all others with the cure, and are recorded in full."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest

from hf_smoothing.certification import FixedRule, SequentialRule, Votes, make_rule
from hf_smoothing.noise import MAX_DRAWS
from tests.support.rules import RULES, walk


@pytest.mark.parametrize(
    ("radii", "message"),
    [
        ([0.5, 0.25], "`targets` must ascend without repetition"),
        ([0.25, 0.25], "`targets` must ascend without repetition"),
        ([-0.1, 0.5], "`targets` must be a non-empty list of target radii >= 0"),
        ([0.0, math.nan], "`targets` must be a non-empty list of target radii >= 0"),
        ([math.inf], "`targets` must be a non-empty list of target radii >= 0"),
        ([], "`targets` must be a non-empty list of target radii >= 0"),
        (["a"], "`targets` must be a non-empty list of target radii"),
        (0.5, "`targets` must be a non-empty list of target radii"),
    ],
)
def test_targets_that_are_none_are_refused(radii, message):
    with pytest.raises(ValueError, match=message):
        make_rule(0.5, targets=radii)


@pytest.mark.parametrize("options", [{}, {"n0": 0}, {"spending": True}, {"alpha": 0.05}, {"label_aware": True}])
@pytest.mark.parametrize("target", [1.0, 1.9, 3.2])
def test_a_target_above_the_ceiling_names_an_n_that_reaches_it(options, target):
    with pytest.raises(ValueError, match=r"is out of reach: .* Use n = [\d,]+ or more, or smaller targets") as caught:
        make_rule(1.0, targets=[target], n=15, **options)
    n = int(str(caught.value).split("Use n = ")[1].split(" ")[0].replace(",", ""))
    rule = make_rule(1.0, targets=[target], n=n, **options)
    assert rule.ceiling > target
    # Really: unanimous votes certify it.
    certificate = rule.decide(walk(rule, np.zeros(n + 100, dtype=int), 2, label=0))
    assert certificate.certified_targets == (target,)
    # And not wastefully more: a tenth less (or what one look needs) would not do.
    if n > 40:
        with pytest.raises(ValueError, match="out of reach"):
            make_rule(1.0, targets=[target], n=int(0.9 * n), **options)


@pytest.mark.parametrize("n0", [0, 100])
@pytest.mark.parametrize("alpha", [0.05, 0.001, 1e-5, 1e-9])
def test_too_few_draws_name_a_number_that_is_enough(n0, alpha):
    with pytest.raises(ValueError, match="`n` must be at least") as caught:
        make_rule(1.0, n0=n0, n=3, alpha=alpha, targets=[0.0])
    enough = int(str(caught.value).split("at least ")[1].split(" ")[0])
    assert make_rule(1.0, n0=n0, n=enough, alpha=alpha, targets=[0.0]).ceiling > 0
    with pytest.raises(ValueError, match="`n` must be at least"):
        make_rule(1.0, n0=n0, n=enough - 1, alpha=alpha, targets=[0.0])


def test_a_target_that_no_number_of_draws_reaches_names_none():
    with pytest.raises(ValueError, match="No n reaches it; use smaller targets"):
        make_rule(1.0, targets=[4.6])
    with pytest.raises(ValueError, match="No n reaches it; use smaller targets"):
        make_rule(1.0, targets=[9.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "adaptive"}, "`mode` must be one of 'targets', 'curve', 'fixed', got 'adaptive'"),
        ({"mode": "fixed", "targets": [0.5]}, "belong to the sequential rules, but mode is 'fixed'"),
        ({"mode": "fixed", "spending": True}, "belong to the sequential rules, but mode is 'fixed'"),
        ({"mode": "fixed", "label_aware": True}, "belong to the sequential rules, but mode is 'fixed'"),
        ({"mode": "fixed", "bound": "two-sided"}, "`bound` must be one of 'one-sided', 'runner-up', got 'two-sided'"),
        ({"bound": "runner-up"}, "made from a fixed number of draws. Use mode='fixed'"),
        ({"mode": "curve", "bound": "runner-up"}, "made from a fixed number of draws. Use mode='fixed'"),
        ({"mode": "curve", "targets": [0.5]}, "mode='curve' chooses the radii itself"),
        ({"mode": "fixed", "n0": 0}, "`n0` must be at least 1"),
        ({"n0": -1}, "`n0` must be at least 0"),
        ({"n0": 1.5}, "`n0` must be a whole number"),
        ({"n": 1e4}, "`n` must be a whole number"),
        ({"n": 5}, "`n` must be at least 10 to certify anything at alpha = 0.001, got 5"),
        ({"mode": "fixed", "n": 9}, "`n` must be at least 10 to certify anything at alpha = 0.001, got 9"),
        ({"n": MAX_DRAWS}, "`n0` \\+ `n` must be at most 524,288, got 524,388"),
        ({"alpha": 0.0}, "`alpha` must be a failure probability"),
        ({"alpha": "0.001"}, "`alpha` must be a failure probability"),
    ],
)
def test_arguments_that_do_not_belong_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_rule(0.5, **options)


@pytest.mark.parametrize("mode", ["targets", "curve", "fixed"])
@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan])
def test_sigma_is_checked(mode, sigma):
    with pytest.raises(ValueError, match="`sigma` must be a positive noise standard deviation"):
        make_rule(sigma, mode=mode)


def test_default_targets():
    assert make_rule(0.5).targets == (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
    assert make_rule(0.12).targets == (0.0, 0.12, 0.24, 0.36)
    assert make_rule(1.0).targets == tuple(0.25 * k for k in range(13))
    curve = make_rule(0.5, mode="curve").targets
    assert len(curve) == 31 and curve[3] == 0.15 and curve[-1] == 1.5
    assert make_rule(0.5, n=12).targets == (0.0,)  # those beyond the ceiling are left out
    for sigma, n in itertools.product((0.1, 0.25, 0.3, 1.0, 4.0), (12, 100, 1000)):
        assert make_rule(sigma, n=n).targets[-1] < make_rule(sigma, n=n).ceiling


@pytest.mark.parametrize(
    ("n0", "label_aware", "stages"),
    [(None, False, 100), (0, False, 0), (25, False, 25), (None, True, 0), (0, True, 0)],
)
def test_selection_stages_and_level(n0, label_aware, stages):
    rule = make_rule(0.5, n0=n0, n=1000, label_aware=label_aware)
    assert rule.n0 == stages
    assert rule.level == (0.0005 if stages == 0 and not label_aware else 0.001)


def test_all_draws_agreeing_meet_the_ceiling():
    for rule in (SequentialRule(0.5, (0.0, 1.0), n0=5, n=1000), SequentialRule(0.5, (0.0, 1.0), n0=0, n=1000)):
        votes = Votes(0)
        for start, stop in itertools.pairwise((0, *rule.stage_ends)):
            votes.add(np.array([0, stop - start]), start, stop, opens_look=True)
        assert rule.decide(votes).radius == rule.ceiling


# --- Records


@pytest.mark.parametrize(
    "rule", [*RULES.values(), FixedRule(0.5), FixedRule(0.5, bound="runner-up")], ids=[*RULES, "fixed", "runner-up"]
)
def test_what_a_rule_records_is_json(rule):
    facts = rule.to_dict()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert facts["sigma"] == rule.sigma and facts["alpha"] == rule.alpha
    assert facts["rule"]["n0"] == rule.n0 and facts["rule"]["n"] == rule.n
    if isinstance(rule, FixedRule):
        assert facts["bound"] == rule.bound and facts["label_aware"] is False
    else:
        assert facts["label_aware"] is rule.label_aware and facts["bound"] == "one-sided"
        assert facts["rule"]["targets"] == list(rule.targets) and facts["rule"]["looks"] == list(rule.looks)


def test_different_rules_record_different_facts():
    rules = [
        make_rule(0.5), make_rule(0.5, spending=True), make_rule(0.5, mode="curve"), make_rule(0.5, mode="fixed"),
        make_rule(0.5, mode="fixed", bound="runner-up"), make_rule(0.5, n0=0), make_rule(0.5, label_aware=True),
        make_rule(0.5, n=10_000), make_rule(0.5, alpha=0.01), make_rule(0.25, targets=[0.0]),
    ]  # fmt: skip
    texts = [json.dumps(rule.to_dict(), sort_keys=True) for rule in rules]
    assert len(set(texts)) == len(texts)
