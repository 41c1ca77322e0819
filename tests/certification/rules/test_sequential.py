"""The sequential rule keeps its invariants on any draws, equals a slow twin, and hands its slack on."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hf_smoothing import certify, statistics
from hf_smoothing.certification import Draws, SequentialRule, Votes, count_votes, make_stream, procedures
from hf_smoothing.certification.execution import Execution
from hf_smoothing.certification.rules import rule_on
from hf_smoothing.noise import GridStream
from hf_smoothing.statistics import ABSTAIN
from tests.support.classifiers import Constant, Linear, Ranges, random_images
from tests.support.rules import RULES, walk


@st.composite
def paths(draw, num_labels: int = 3):
    """A classifier's answers: drawn from anything between a constant and a fair die, and sometimes changing on the way."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sharpness = draw(st.sampled_from([0.05, 0.3, 1.0, 10.0]))
    laws = rng.dirichlet(np.full(num_labels, sharpness), size=2)
    where = draw(st.sampled_from([0, 25, 60, 300, 2000]))
    return np.concatenate([rng.choice(num_labels, where, p=laws[0]), rng.choice(num_labels, 2000, p=laws[1])]), rng


def on_every_rule(test):
    """Test each rule on thirty paths."""
    return pytest.mark.parametrize("name", RULES)(settings(max_examples=30)(given(path=paths())(test)))


@on_every_rule
def test_invariants_of_a_certificate(name, path):
    rule, (classes, _) = RULES[name], path
    votes = walk(rule, classes, 3, label=1)
    certificate = rule.decide(votes)
    # Stops at looks, within n0 + n; the looks hold all draws.
    assert certificate.draws == votes.drawn in rule.stage_ends[1 if rule.n0 else 0 :]
    assert certificate.draws <= rule.n0 + rule.n == rule.stage_ends[-1]
    ends = np.cumsum([sum(look) for look in certificate.counts_by_look])
    assert tuple(ends) == rule.stage_ends[: len(ends)] and ends[-1] == certificate.draws
    # Claims.
    assert certificate.certified_targets == rule.targets[: len(certificate.certified_targets)]
    assert certificate.radius >= (certificate.certified_targets[-1] if certificate.certified_targets else 0.0)
    assert 0.0 <= certificate.radius < rule.ceiling * (1 + 1e-12)
    assert certificate.abstained == (not certificate.certified_targets and certificate.radius == 0.0)
    if not certificate.abstained:
        table = np.array(certificate.counts_by_look)
        chosen = table[0].argmax() if rule.n0 else 1 if rule.label_aware else table.sum(axis=0).argmax()
        assert certificate.prediction == chosen
    # p_lower carries the radius, and no target beyond it was reached.
    carried = float(statistics.l2_radius(certificate.p_lower, rule.sigma, rule.slack))
    assert certificate.radius == pytest.approx(carried, rel=1e-9, abs=1e-12)
    if not rule.spending:
        beyond = rule.targets[len(certificate.certified_targets) :]
        assert not beyond or certificate.radius < beyond[0] + 1e-12
    # Deciding is a pure function of the votes.
    before = ([look.copy() for look in votes.counts_by_look], votes.drawn)
    assert rule.decide(votes) == certificate and rule.wanted(votes) == votes.drawn
    assert votes.drawn == before[1] and all(
        np.array_equal(a, b) for a, b in zip(votes.counts_by_look, before[0], strict=True)
    )


@on_every_rule
def test_splitting_a_look_changes_nothing(name, path):
    rule, (classes, rng) = RULES[name], path
    whole = walk(rule, classes, 3, label=0)
    split = walk(rule, classes, 3, label=0, parts=lambda left: rng.integers(1, left + 1))
    assert rule.decide(split) == rule.decide(whole)
    assert split.drawn == whole.drawn


def test_a_target_is_claimed_only_with_all_smaller_ones():
    # Boundaries of exact spending need not be nested. Here the counts cross those of the second and third target only.
    rule = SequentialRule(1.0, (0.0, 0.2, 0.4), n0=5, n=20, spending=True)
    rule.__dict__["_boundaries"] = np.array([[19], [17], [17]])
    votes = Votes(0, None, [np.array([5, 0]), np.array([18, 2])], 25)
    assert rule.decide(votes).abstained and rule.decide(votes).certified_targets == ()
    rule.__dict__["_boundaries"] = np.array([[17], [19], [17]])
    assert rule.decide(votes).certified_targets == (0.0,)
    assert (rule.decide(votes).prediction, rule.decide(votes).radius) == (0, 0.0)


# --- A slow twin, from statistics.md (A, C, D, E)


@functools.cache
def smallest_final(q: float, n: int, alpha: float) -> int:
    """b_K, by trying all counts."""
    return next(b for b in range(n + 1) if statistics.lower_bound(b, n, alpha) > q)


def twin(rule: SequentialRule, classes: np.ndarray, num_labels: int, label: int | None = None):
    """(draws, class or ABSTAIN, targets, largest L_k), one draw and one target at a time."""
    looks = statistics.geometric_looks(rule.n)
    weights = [1.0] if len(looks) == 1 else [0.5 / (len(looks) - 1)] * (len(looks) - 1) + [0.5]
    alpha = rule.alpha if rule.n0 or rule.label_aware else rule.alpha / 2
    needed = [float(stats.norm.cdf(r / rule.sigma)) for r in rule.targets]
    finals = [smallest_final(q, rule.n, alpha * weights[-1]) for q in needed]
    tallies = [np.bincount(classes[: rule.n0 + n], minlength=num_labels) for n in looks]
    selected = np.bincount(classes[: rule.n0], minlength=num_labels)
    for k, n in enumerate(looks):
        top = label if label is not None else int((selected if rule.n0 else tallies[k]).argmax())
        successes = [int(tally[top] - selected[top]) for tally in tallies[: k + 1]]
        best = max(
            float(statistics.lower_bound(s, m, alpha * w)) for s, m, w in zip(successes, looks, weights, strict=False)
        )
        targets = tuple(r for r, q in zip(rule.targets, needed, strict=True) if best > q)
        given_up = []
        for r, b in zip(rule.targets, finals, strict=True):
            s = successes[-1]
            m = (s + 0.5) / (n + 1)
            spread = stats.norm.ppf(0.97) * math.sqrt(m * (1 - m) * (rule.n - n) / (rule.n * n))
            out_of_reach = s + (rule.n - n) < b
            unlikely = (s + (rule.n - n) * m) / rule.n + spread < (b - 0.5) / rule.n
            given_up.append(r not in targets and (out_of_reach or unlikely))
        if n == rule.n or all(r in targets or dead for r, dead in zip(rule.targets, given_up, strict=True)):
            return rule.n0 + n, top if best > 0.5 else ABSTAIN, targets, best
    raise AssertionError("the last look always ends it")


@pytest.mark.parametrize("name", ["union", "one target", "no selection", "predict", "one look", "label-aware"])
@settings(max_examples=30)
@given(path=paths())
def test_rule_against_a_slow_twin(name, path):
    rule, (classes, _) = RULES[name], path
    certificate = rule.decide(walk(rule, classes, 3, label=2))
    draws, prediction, targets, best = twin(rule, classes, 3, 2 if rule.label_aware else None)
    assert (certificate.draws, certificate.prediction, certificate.certified_targets) == (draws, prediction, targets)
    assert certificate.p_lower == best
    assert certificate.radius == pytest.approx(max(0.0, rule.sigma * stats.norm.ppf(best)), rel=1e-12)


# --- The same draws


@pytest.mark.parametrize("noise", ["grid", "gaussian"])
def test_looks_are_prefixes_of_the_draws_of_the_fixed_rule(noise):
    images = (random_images(3) * 255).to(torch.uint8)
    stream = make_stream(noise, seed=9, shape=(1, 4, 4), device=torch.device("cpu"), sigma=0.5)
    certificates = certify(Ranges(), images, sigma=0.5, targets=[0.0, 0.2], n0=30, n=600, noise_kind=noise, seed=9)
    fixed = certify(Ranges(), images, sigma=0.5, mode="fixed", n0=30, n=600, noise_kind=noise, seed=9)
    assert [c.counts_by_look[0] for c in fixed] == [c.counts_by_look[0] for c in certificates]
    for slot, certificate in enumerate(certificates):
        ends = np.cumsum([0, *map(sum, certificate.counts_by_look)])
        assert len(ends) > 2
        requests = [Draws(slot, slot, int(a), int(b)) for a, b in itertools.pairwise(ends)]
        pixels = images.float() / 255
        again = count_votes(Ranges(), pixels, requests, stream=stream, execution=Execution(copies_per_batch=7))
        assert again.tolist() == [list(look) for look in certificate.counts_by_look]
        total = count_votes(Ranges(), pixels, [Draws(slot, slot, 30, 630)], stream=stream)
        assert total[0].tolist() == list(fixed[slot].counts_by_look[1])


@pytest.mark.parametrize("noise", ["grid", "gaussian"])
def test_neither_batch_nor_company_changes_a_certificate(noise):
    images = (random_images(5) * 255).to(torch.uint8)
    options = {"sigma": 0.25, "n": 500, "noise_kind": noise, "seed": 2}

    def known(certificates):
        return {c.index: replace(c, seconds=0.0) for c in certificates}

    whole = known(certify(Linear(), images, **options))
    small = known(certify(Linear(), images, copies_per_batch=3, **options))
    alone = known(c for i in (4, 2) for c in certify(Linear(), images[[i]], indices=[i], **options))
    assert small == whole
    assert alone == {i: whole[i] for i in (2, 4)}


# --- Slack reaches the rule


def test_slack_of_grid_noise_reaches_the_rule(monkeypatch):
    images = torch.full((1, 1, 4, 4), 100, dtype=torch.uint8)
    slack = GridStream(0, (1, 4, 4), sigma=0.5).total_variation
    used = []
    monkeypatch.setattr(
        procedures, "rule_on", lambda *rule, chosen: used.append(rule_on(*rule, chosen=chosen)) or used[-1]
    )
    for kind, expected in (("grid", slack), ("gaussian", 0.0)):
        (certificate,) = certify(Constant(), images, sigma=0.5, n=100, noise_kind=kind, seed=0)
        assert (used[-1].slack, certificate.noise_kind) == (expected, kind)
    assert slack > 0


def test_slack_costs_radius_but_no_validity():
    big = SequentialRule(1.0, (0.0, 0.5), n0=5, n=200, slack=0.01)
    classes = np.zeros(300, dtype=int)
    with_slack, without = (rule.decide(walk(rule, classes, 2)) for rule in (big, replace(big, slack=0.0)))
    assert with_slack.radius < without.radius
    assert with_slack.radius == pytest.approx(
        stats.norm.ppf(with_slack.p_lower - 0.01) - stats.norm.ppf(0.51), rel=1e-12
    )


def test_default_targets_survive_the_slack_of_grid_noise():
    # An alpha at which unanimous votes certify 0.25, the second default target, by a hair: less than grid noise costs.
    n, sigma = 12, 1.0
    alpha = float(stats.norm.cdf(0.25 + 1e-10)) ** n
    assert 0.0 < SequentialRule(sigma, (0.0, 0.25), 5, n, alpha).ceiling - 0.25 < 1e-9
    images = torch.full((1, 1, 4, 4), 100, dtype=torch.uint8)
    (certificate,) = certify(Constant(), images, sigma=sigma, n0=5, n=n, alpha=alpha, noise_kind="grid", seed=0)
    assert certificate.prediction == 1 and certificate.radius > 0.2499
