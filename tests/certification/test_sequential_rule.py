from __future__ import annotations

import functools
import inspect
import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hf_smoothing import SmoothedClassifier, certify, certify_dataset, predict, statistics
from hf_smoothing.certification import (
    Draws,
    FixedRule,
    SequentialRule,
    Votes,
    count_votes,
    make_rule,
    make_stream,
    procedures,
)
from hf_smoothing.certification.execution import Execution
from hf_smoothing.certification.rules import rule_on
from hf_smoothing.noise import MAX_DRAWS, GridStream
from hf_smoothing.statistics import ABSTAIN
from tests.support.classifiers import Constant, Linear, Ranges, coin, random_dataset, random_images


VERDICT = 1e-3


def too_many(false: int, trials: int, alpha: float) -> bool:
    """The exact binomial verdict: so many false certificates are not to be had at a failure probability of alpha."""
    return bool(stats.binom.sf(false - 1, trials, alpha) < VERDICT)


# --- Walking a rule along given draws


def walk(rule, classes: np.ndarray, num_labels: int, *, label: int | None = None, parts=None) -> Votes:
    """Draws `classes` one after another as long as the rule wants more; `parts` cuts a look's draws into several additions."""
    votes = Votes(0, label)
    while (wanted := rule.wanted(votes)) > votes.drawn:
        while votes.drawn < wanted:
            end = next(bound for bound in rule.stage_ends if bound > votes.drawn)
            start = votes.drawn
            stop = min(wanted, end if parts is None else min(end, start + int(parts(end - start))))
            counts = np.bincount(classes[start:stop], minlength=num_labels).astype(np.int64)
            votes.add(counts, start, stop, opens_look=start in (0, *rule.stage_ends))
            if rule.n0 < votes.drawn < end:
                assert rule.wanted(votes) == end  # an unfinished look is finished first
    return votes


RULES = {
    "union": SequentialRule(0.5, (0.0, 0.25, 0.5, 0.75), n0=20, n=500, alpha=0.05),
    "spending": SequentialRule(0.5, (0.0, 0.25, 0.5, 0.75), n0=20, n=500, alpha=0.05, spending=True),
    "one target": SequentialRule(0.25, (0.3,), n0=10, n=1000),
    "one target, spending": SequentialRule(0.25, (0.3,), n0=10, n=1000, spending=True),
    "no selection": SequentialRule(1.0, (0.0, 0.5, 1.0, 1.5), n0=0, n=300),
    "no selection, spending": SequentialRule(1.0, (0.0, 0.5, 1.0, 1.5), n0=0, n=300, spending=True),
    "predict": SequentialRule(1.0, (0.0,), n0=0, n=400, alpha=0.01),
    "one look": SequentialRule(1.0, (0.0, 0.3), n0=5, n=20),
    "slack": SequentialRule(1.0, (0.0, 0.5), n0=5, n=200, slack=1e-4),
    "curve": make_rule(0.5, mode="curve", n0=20, n=400, alpha=0.01),
    "label-aware": SequentialRule(0.5, (0.0, 0.25, 0.5), n0=0, n=500, label_aware=True),
}


@st.composite
def paths(draw, num_labels: int = 3):
    """A classifier's answers: drawn from anything between a constant and a fair die, and sometimes changing on the way."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sharpness = draw(st.sampled_from([0.05, 0.3, 1.0, 10.0]))
    laws = rng.dirichlet(np.full(num_labels, sharpness), size=2)
    where = draw(st.sampled_from([0, 25, 60, 300, 2000]))
    return np.concatenate([rng.choice(num_labels, where, p=laws[0]), rng.choice(num_labels, 2000, p=laws[1])]), rng


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=30)
@given(path=paths())
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


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=30)
@given(path=paths())
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


# --- Coverage through `certify`, with an image as near to a false certificate as it can be


ALPHA, IMAGES = 0.05, 200
TARGET, SIGMA = 0.3, 0.5
OPTIONS = {
    "sigma": SIGMA,
    "n0": 10,
    "n": 200,
    "alpha": ALPHA,
    "targets": [0.0, TARGET],
    "noise_kind": "gaussian",
    "copies_per_batch": 2048,
}


def false_certificates(distance: float, seed: int = 0, **options) -> int:
    """Among IMAGES images at this distance from the boundary: certificates of the wrong class, or of more than the distance."""
    linear = Linear()
    images = linear.image_at(distance).clamp(0, 1)[None].expand(IMAGES, -1, -1, -1)
    exact, label = linear.exact_radius(images[0]), linear.label(images[0])
    assert exact == pytest.approx(distance, abs=1e-6)
    certificates = certify(linear, images, seed=seed, **{**OPTIONS, **options})
    return sum(c.radius > exact or c.prediction not in (label, ABSTAIN) for c in certificates)


COVERED = {
    "union": {},
    "spending": {"spending": True},
    "n0=0": {"n0": 0},
    "n0=0, spending": {"n0": 0, "spending": True},
    "curve": {"mode": "curve", "targets": None},
    "one-sided fixed": {"mode": "fixed", "targets": None},
    "runner-up": {"mode": "fixed", "targets": None, "bound": "runner-up"},
}
# Just below a target, where claiming it is false, and on the boundary, where any answer is.
JUST_BELOW, ON_BOUNDARY = TARGET - 1e-3, 1e-5


@pytest.mark.parametrize("options", COVERED.values(), ids=COVERED)
def test_certificates_are_false_at_most_alpha_of_the_time(options):
    # Without a selection stage the boundary, where both classes can be claimed, is worst; with it the target.
    distance = ON_BOUNDARY if options.get("n0") == 0 else JUST_BELOW
    assert not too_many(false_certificates(distance, **options), IMAGES, ALPHA)


def naive_boundaries(q: float, looks: tuple[int, ...], alpha: float) -> tuple[int, ...]:
    """What a careless rule does: the bound for a fixed n, at every look."""
    return tuple(next(b for b in range(n + 2) if b > n or statistics.lower_bound(b, n, alpha) > q) for n in looks)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("union_boundaries", {}), ("spending_boundaries", {"spending": True}), ("union_boundaries", {"n0": 0})],
)
def test_the_coverage_count_finds_a_careless_rule(monkeypatch, kind, options):
    monkeypatch.setattr(statistics.claims, kind, naive_boundaries)
    distance = ON_BOUNDARY if options.get("n0") == 0 else JUST_BELOW
    # Without selection both classes can be claimed, and the level is alpha/2: a rule that forgets this is caught too.
    broken = {**options, "alpha": 2 * ALPHA} if "n0" in options else options
    assert too_many(false_certificates(distance, **broken), IMAGES, ALPHA)


def test_a_radius_from_a_fixed_bound_at_the_stopped_count_is_found(monkeypatch):
    def careless(successes, looks, alpha):
        return np.array([float(statistics.lower_bound(s, n, alpha)) for s, n in zip(successes, looks, strict=False)])

    monkeypatch.setattr(statistics.claims, "sequential_lower_bound", careless)
    assert too_many(false_certificates(JUST_BELOW), IMAGES, ALPHA)


@pytest.mark.slow
@pytest.mark.parametrize("distance", [JUST_BELOW, ON_BOUNDARY], ids=["at a target", "on the boundary"])
@pytest.mark.parametrize("options", COVERED.values(), ids=COVERED)
def test_certificates_are_false_at_most_alpha_of_the_time_in_many(options, distance):
    false = sum(false_certificates(distance, seed=seed, **options) for seed in range(20))
    assert not too_many(false, 20 * IMAGES, ALPHA)


def three_way(pixels: torch.Tensor) -> torch.Tensor:
    """Three classes with probability 1/3 each for an image whose first pixel is 1/2, at sigma 1/4."""
    z = (pixels[:, 0, 0, 0].double() - 0.5) / 0.25
    labels = (z > -0.43072729929545756).long() + (z > 0.43072729929545756).long()  # Phi^-1(1/3), Phi^-1(2/3)
    return torch.nn.functional.one_hot(labels, 3).double()


@pytest.mark.parametrize("classifier", [coin, three_way], ids=["coin", "three fair classes"])
@pytest.mark.parametrize("mode", ["sequential", "fixed"])
def test_predict_answers_what_is_open_at_most_alpha_of_the_time(classifier, mode):
    images = torch.full((IMAGES, 1, 1, 1), 0.5)
    answers = predict(
        classifier,
        images,
        sigma=0.25,
        mode=mode,
        n=200,
        alpha=ALPHA,
        noise_kind="gaussian",
        seed=3,
        copies_per_batch=2048,
    )
    assert not too_many(sum(a.prediction != ABSTAIN for a in answers), IMAGES, ALPHA)
    assert all(sum(a.counts) == a.draws <= 200 for a in answers)


def test_predict_answers_the_clear_after_the_first_look():
    answers = predict(Constant(2), random_images(4), sigma=0.25, noise_kind="gaussian", seed=0)
    assert [(a.prediction, a.draws, a.counts, a.p_value) for a in answers] == [(2, 20, (0, 0, 20), None)] * 4


def test_predict_with_too_few_draws_is_refused():
    with pytest.raises(ValueError, match="`n` must be at least"):
        predict(Constant(2), random_images(1), sigma=0.25, n=10)


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
    alpha = float(stats.norm.cdf(0.25 + 1e-13)) ** n
    assert SequentialRule(sigma, (0.0, 0.25), 5, n, alpha).ceiling - 0.25 < 1e-12
    images = torch.full((1, 1, 4, 4), 100, dtype=torch.uint8)
    (certificate,) = certify(Constant(), images, sigma=sigma, n0=5, n=n, alpha=alpha, noise_kind="grid", seed=0)
    assert certificate.prediction == 1 and certificate.radius > 0.2499


# --- Label-aware evaluation


def measured(tmp_path, classifier, dataset, **options):
    return certify_dataset(
        classifier, dataset, tmp_path / "run", sigma=0.25, n=200, progress=False, copies_per_batch=64, label_aware=True, **options
    )  # fmt: skip


def test_label_aware_is_recorded_and_never_returns_another_class(tmp_path):
    dataset = random_dataset(9)  # labels 0, 1, 2 in turn
    run = measured(tmp_path, Constant(1), dataset)
    assert run.settings["label_aware"] is True
    assert run.settings["rule"]["n0"] == 0
    for index, row in run.rows.items():
        assert row["label"] == index % 3
        assert row["prediction"] == (1 if row["label"] == 1 else ABSTAIN)
        # A wrong image is given up at the first look.
        assert row["label"] == 1 or (row["draws"], row["radius"], row["certified_targets"]) == (20, 0.0, [])
    assert {row["prediction"] for row in run.rows.values()} == {1, ABSTAIN}


def test_label_aware_measures_what_it_should_of_mixed_votes(tmp_path):
    run = measured(tmp_path, Linear(), [{**item, "labels": item["labels"] % 2} for item in random_dataset(12)])
    assert all(row["prediction"] in (row["label"], ABSTAIN) for row in run.rows.values())
    assert any(row["prediction"] != ABSTAIN for row in run.rows.values())


def test_other_runs_say_that_they_do_not_know_the_label(tmp_path):
    run = certify_dataset(
        Constant(1), random_dataset(3), tmp_path, sigma=0.25, n=100, progress=False, copies_per_batch=64
    )
    assert run.settings["label_aware"] is False
    assert {row["prediction"] for row in run.rows.values()} == {1}


@pytest.mark.parametrize("label", [None, 7, -1])
def test_label_aware_needs_labels(tmp_path, label):
    items = random_dataset(2)
    dataset = [
        {"pixel_values": item["pixel_values"], **({} if label is None else {"labels": label})} for item in items
    ]
    with pytest.raises(ValueError, match="[Ll]abel"):
        measured(tmp_path, Constant(1), dataset)


def test_label_aware_selects_nothing(tmp_path):
    with pytest.raises(ValueError, match="no selection draws, got n0 = 100. Leave n0 out"):
        measured(tmp_path, Constant(1), random_dataset(1), n0=100)
    with pytest.raises(ValueError, match="0 when measuring label-aware"):
        SequentialRule(0.5, (0.0,), n0=10, label_aware=True)


@pytest.mark.parametrize("function", [certify, predict, SmoothedClassifier.certify, SmoothedClassifier.predict])
def test_nothing_for_deployment_knows_labels(function):
    assert not [name for name in inspect.signature(function).parameters if "label" in name]


def test_nothing_for_deployment_takes_labels():
    for function in (certify, predict):
        with pytest.raises(TypeError, match="label_aware"):
            function(Constant(), random_images(1), sigma=0.5, label_aware=True)


# --- make_rule


@pytest.mark.parametrize(
    ("radii", "message"),
    [
        ([0.5, 0.25], "`targets` must ascend without repetition"),
        ([0.25, 0.25], "`targets` must ascend without repetition"),
        ([-0.1, 0.5], "`targets` must be a non-empty list of target radii >= 0"),
        ([0.0, math.nan], "`targets` must be a non-empty list of target radii >= 0"),
        ([math.inf], "`targets` must be a non-empty list of target radii >= 0"),
        ([], "`targets` must be a non-empty list of target radii >= 0"),
        (["a"], "`targets` must be a list of target radii"),
        (0.5, "`targets` must be a list of target radii"),
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
