"""The audit acquits sound certifiers and finds careless ones, with the error rates that it states."""

from __future__ import annotations

import math
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from hf_smoothing import certify
from hf_smoothing.audit import CaseCounts, audit_certifier, critical_count, make_cases, power_of_hunt
from hf_smoothing.audit.answers import read_answers
from hf_smoothing.audit.verdict import power, smallest_rate
from tests.support.careless import LOOKS, at_every_look, clopper_pearson, false_rates, plain_certify, share


ALPHA, SIGMA, N = 0.05, 0.5, 500
QUICK = {"sigma": SIGMA, "alpha": ALPHA, "radii": [0.25], "explore": 200, "confirm": 2_000}
CRITICAL = critical_count(QUICK["confirm"], ALPHA, 0.001)

CARELESS = {
    "selection and estimation on the same draws": (partial(plain_certify, n0=0, n=N), clopper_pearson, (N,)),
    "no correction over looks": (at_every_look, clopper_pearson, LOOKS),
    "the share of votes for a bound": (partial(plain_certify, n0=0, n=N, bound=share), share, (N,)),
}  # fmt: skip


@pytest.mark.parametrize(("certifier", "bound", "looks"), CARELESS.values(), ids=CARELESS)
def test_a_careless_rule_is_found(certifier, bound, looks):
    rates = false_rates(make_cases(SIGMA, QUICK["radii"]), SIGMA, ALPHA, bound, looks)
    chance = power_of_hunt(rates, QUICK["explore"], QUICK["confirm"], CRITICAL)
    print(f"false with {max(rates):.3f} where {ALPHA} is claimed; found with probability {chance:.4f}")
    assert max(rates) > 1.2 * ALPHA and chance > 0.9
    found = audit_certifier(certifier, **QUICK)
    assert found.violated and found.p_value <= found.false_alarm
    assert found.confirmed.trials == QUICK["confirm"] and found.critical == CRITICAL


def test_the_plain_rule_is_acquitted():
    found = audit_certifier(partial(plain_certify, n0=20, n=N), **QUICK)
    assert not found.violated and not found.vacuous
    assert found.confirmed.false > 0.3 * ALPHA * QUICK["confirm"]  # near its level, so the question is sharp


OURS = {
    "fixed": {"mode": "fixed"},
    "runner-up": {"mode": "fixed", "bound": "runner-up"},
    "targets": {},
    "targets, spending": {"spending": True},
    "targets, no selection": {"n0": 0},
    "curve": {"mode": "curve"},
}
RADII = [(steps + 0.51) / 255 for steps in (0, 63, 127)]
"""Just above the exact radii, so that a claim of them is false, by as little as possible."""


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["grid", "gaussian"])
@pytest.mark.parametrize("options", OURS.values(), ids=OURS)
def test_our_certifiers_are_acquitted(options, noise):
    targets = {} if "mode" in options else {"targets": RADII}
    certifier = partial(
        certify, **{"n0": 20, "n": 1_000, "noise_kind": noise, "copies_per_batch": 2_048, **targets, **options}
    )
    found = audit_certifier(certifier, sigma=SIGMA, alpha=ALPHA, radii=RADII[1:], images_per_call=100)
    print(found.confirmed, found.critical, found.p_value)
    assert not found.violated and not found.vacuous


def test_our_certifier_is_acquitted():
    found = audit_certifier(
        partial(certify, mode="fixed", n0=10, n=200, copies_per_batch=2_048), **{**QUICK, "confirm": 500}
    )
    assert not found.violated and not found.vacuous


# --- The questions


def test_cases_have_the_radii_that_they_state():
    for case in make_cases(SIGMA):
        steps = 255 * case.image
        assert (
            torch.equal(steps.round(), torch.full_like(steps, 128))
            and float((steps - steps.round()).abs().max()) < 1e-4
        )
        shares = case.classifier.probabilities(case.image, SIGMA)
        assert shares.argmax() == case.label and shares.sum() == pytest.approx(1)
        for move in (-case.radius, case.radius):
            moved = case.classifier.probabilities(case.image, SIGMA, move * 0.999)
            assert moved.argmax() == case.label
        assert np.allclose(255 * case.classifier.thresholds.numpy() % 1, 0.5, atol=1e-9)


def test_half_spaces_lie_just_inside_the_radii():
    distances = [case.radius for case in make_cases(SIGMA, [0.25, 63.5 / 255, 0.3]) if case.name == "half-space"]
    assert np.allclose(np.array(distances) * 255, [0.5, 63.5, 62.5, 75.5], rtol=1e-4)


@pytest.mark.parametrize("sigma", [1e-3, 0.004, 0.25, 1.0, 1.01, 1.5, 2.0, 4.0])
def test_the_usual_radii_are_those_that_pixels_can_be_apart(sigma):
    radii = [case.radius for case in make_cases(sigma) if case.name == "half-space"]
    assert radii == sorted(radii) and radii[-1] <= 2.0
    audit_certifier(lambda f, x, **_: ([-1] * len(x), [0.0] * len(x)), sigma=sigma, explore=1, confirm=20)


@pytest.mark.parametrize(
    ("radii", "message"),
    [
        ([0.001], "above 1/510"),
        ([-1.0], "finite and >= 0"),
        ([3.0], "apart in l2"),
        (0.25, r"must be a list of radii, got 0.25. Pass \[0.25\]"),
        (torch.tensor(0.25), r"must be a list of radii, .* Pass \[0.25\]"),
        (float("nan"), "must be a list of radii, got nan. Leave it out"),
        (True, "must be a list of radii, got True. Leave it out"),
        (object(), "must be a list of radii, got <object"),
    ],
)
def test_radii_out_of_range_are_refused(radii, message):
    with pytest.raises(ValueError, match=message):
        audit_certifier(plain_certify, radii=radii)


# --- The verdict


def test_the_critical_count_has_the_stated_false_alarm():
    for trials, alpha, level in ((2_000, 0.05, 1e-3), (100, 0.3, 0.01), (50, 0.001, 1e-6)):
        critical = critical_count(trials, alpha, level)
        assert stats.binom.sf(critical - 1, trials, alpha) <= level < stats.binom.sf(critical - 2, trials, alpha)
        assert power(smallest_rate(trials, critical), trials, critical) == pytest.approx(0.99, abs=1e-6)
    assert critical_count(2, 0.05, 1e-3) == 3  # no count is a verdict
    assert smallest_rate(2, 3) == 1.0


def test_the_power_of_a_hunt_is_that_of_simulated_hunts():
    rates, explore, confirm, critical = [0.05, 0.09, 0.0, 0.07], 40, 300, 25
    rng = np.random.default_rng(0)
    worst = np.stack([rng.binomial(explore, rate, 200_000) for rate in rates]).argmax(axis=0)
    found = (rng.binomial(confirm, np.array(rates)[worst]) >= critical).mean()
    assert power_of_hunt(rates, explore, confirm, critical) == pytest.approx(found, abs=0.005)


def faulty(rate):
    """A certifier whose certificates are false with this probability in every case; otherwise it abstains."""

    def certifier(classifier, images, *, sigma, alpha, seed):
        false = np.random.default_rng(seed).random(len(images)) < rate
        return np.where(false, 0, -1), np.where(false, 5.0, 0.0)

    return certifier


def test_the_false_alarm_is_what_is_stated():
    # At a level of 0.1, so that some of 100 audits are wrong, and not too many.
    found = [
        audit_certifier(faulty(ALPHA), explore=5, confirm=200, false_alarm=0.1, seed=seed, radii=[0.25])
        for seed in range(100)
    ]
    wrong = sum(one.violated for one in found)
    assert wrong > 0 and stats.binom.sf(wrong - 1, 100, 0.1) > 1e-3


def test_the_power_is_what_is_stated():
    found = audit_certifier(faulty(2 * ALPHA), **QUICK)
    assert found.violated and found.power > 0.9 and 0.06 < found.found_rate < 0.08
    assert found.power <= power(2 * ALPHA, QUICK["confirm"], CRITICAL)


# --- Certifiers that answer something else


def test_every_call_has_a_seed_of_its_own_and_the_images_asked_for():
    seen = []

    def certifier(classifier, images, *, sigma, alpha, seed):
        seen.append((len(images), seed))
        assert (sigma, alpha) == (0.25, 0.1) and images.dtype == torch.float32 and not classifier.training
        return [-1] * len(images), [0.0] * len(images)

    tallies: list[CaseCounts] = []
    found = audit_certifier(
        certifier,
        sigma=0.25,
        alpha=0.1,
        radii=[0.2],
        explore=30,
        confirm=70,
        images_per_call=20,
        progress=tallies.append,
    )
    assert [count for count, _ in seen] == [20, 10] * 4 + [20, 20, 20, 10]
    assert len({seed for _, seed in seen}) == len(seen)
    assert found.vacuous and not found.violated and tuple(tallies) == (*found.searched, found.confirmed)
    again = [seed for _, seed in seen]
    seen.clear()
    audit_certifier(certifier, sigma=0.25, alpha=0.1, radii=[0.2], explore=30, confirm=70, images_per_call=20)
    assert [seed for _, seed in seen] == again


def zero(module):
    module.weights.zero_()


CHANGES = {
    "weights": zero, "mode": torch.nn.Module.train, "dtype": torch.nn.Module.half,
    "hook": lambda module: module.register_forward_hook(lambda *_: 1 / 0),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_certifier_does_to_its_classifier_is_not_held_against_its_next_answer(change):
    def certifier(classifier, images, **options):
        answers = plain_certify(classifier, images, **options)
        CHANGES[change](classifier)
        return answers

    options = {"sigma": 0.25, "radii": [0.2], "explore": 5, "confirm": 10, "alpha": 0.01}
    assert audit_certifier(certifier, **options) == audit_certifier(plain_certify, **options)


RETURNED = {
    "nothing": (None, TypeError, "got NoneType"),
    "numbers": ([0.5, 0.5], TypeError, "must return objects with the attributes prediction and radius, one per image, or a tuple"),
    "a complex number of Python": ([SimpleNamespace(prediction=0, radius=1j)] * 2, TypeError, "complex numbers"),
    "a complex number of numpy": ([SimpleNamespace(prediction=0, radius=np.complex64(1))] * 2, TypeError, "complex numbers"),
    "a complex number of torch": ([SimpleNamespace(prediction=0, radius=torch.tensor(1j))] * 2, TypeError, "complex numbers"),
    "complex": (([0, 0], torch.zeros(2, dtype=torch.complex64)), TypeError, "a tuple that holds Tensor"),
    "text": (("a", "b"), TypeError, "a tuple that holds str"),
    "too few": (([0], [0.5]), ValueError, r"one prediction per image, shape \(2,\), got predictions of shape \(1,\)"),
    "a column": (([[0], [0]], [0.5, 0.5]), ValueError, r"got predictions of shape \(2, 1\)"),
    "endless": (([0, math.inf], [0.5, 0.5]), ValueError, "must be numbers of classes"),
    "no class": (([0, 1e300], [0.5, 0.5]), ValueError, "must be numbers of classes"),
    "shares": (([0.3, 1.0], [0.5, 0.5]), ValueError, r"numbers of classes, -1 for an abstention, got \[0.3 1. \]"),
    "nan": (([0, 1], [0.5, math.nan]), ValueError, "at least 0 and not nan"),
    "negative": (([0, 1], [0.5, -1.0]), ValueError, "at least 0 and not nan, 0 for an abstention, got -1.0"),
}  # fmt: skip


@pytest.mark.parametrize(("returned", "error", "message"), RETURNED.values(), ids=RETURNED)
def test_other_answers_are_refused(returned, error, message):
    with pytest.raises(error, match=message):
        audit_certifier(lambda classifier, images, **asked: returned, explore=2, images_per_call=2)


def test_tensors_and_unlimited_radii_are_answers():
    def certifier(classifier, images, **asked):
        return torch.zeros(len(images)), torch.full((len(images),), math.inf)

    assert audit_certifier(certifier, explore=5, confirm=50).violated


@pytest.mark.parametrize(
    "kind", [torch.tensor, np.array, np.float32, float], ids=["torch", "array", "float32", "float"]
)
def test_arguments_may_be_numbers_of_numpy_and_torch(kind):
    whole = (lambda value: kind(value)) if kind in (torch.tensor, np.array) else np.int64
    found = audit_certifier(
        plain_certify, sigma=kind(0.5), alpha=kind(0.05), false_alarm=kind(0.001), radii=[kind(0.5)],
        explore=whole(2), confirm=whole(10), images_per_call=whole(5), seed=whole(3),
    )  # fmt: skip
    assert found.false_alarm == pytest.approx(0.001)
    assert found.confirmed.trials == 10


HALVES = {
    "a tuple": lambda count, dtype: (torch.zeros(count, dtype=torch.int64), torch.full((count,), 0.5, dtype=dtype)),
    "gradients": lambda count, dtype: (torch.zeros(count), torch.full((count,), 0.5, dtype=dtype, requires_grad=True)),
    "lists": lambda count, dtype: ([torch.tensor(0)] * count, [torch.tensor(0.5, dtype=dtype)] * count),
    "objects": lambda count, dtype: [SimpleNamespace(prediction=0, radius=torch.tensor(0.5, dtype=dtype))] * count,
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("returned", HALVES.values(), ids=HALVES)
def test_answers_may_be_in_any_precision(returned, dtype):
    answers = read_answers(returned(2, dtype), 2)
    assert answers.predictions.tolist() == [0, 0] and answers.radii.tolist() == [0.5, 0.5]


def test_what_a_certifier_raises_is_explained_with_the_call():
    with pytest.raises(
        ValueError,
        match=r"and by name sigma, alpha and seed. Called with 50 images of shape \(1, 2, 2\), this one raised TypeError",
    ):
        audit_certifier(lambda images: images)
    with pytest.raises(ValueError, match=r"this one raised in test_audit.py, line \d+ KeyError: 'p'"):
        audit_certifier(lambda classifier, images, **asked: asked["p"])
    with pytest.raises(ValueError, match="SystemExit: 0"):  # an exit with status 0 would pass for an acquittal
        audit_certifier(lambda classifier, images, **asked: sys.exit(0))
    with pytest.raises(TypeError, match="`certifier` must be callable as .*, got str"):
        audit_certifier("certify")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"alpha": 0.95}, "looks like the confidence"),
        ({"sigma": 0.0}, "`sigma` must be a positive"),
        ({"confirm": 2}, "`confirm` must be at least 3 for a verdict at alpha = 0.05 and false_alarm = 0.001, got 2"),
        ({"seed": -1}, "`seed` must be at least 0, got -1"),
        ({"radii": 0.5}, r"`radii` must be a list of radii, got 0.5. Pass \[0.5\]"),
        ({"explore": 0}, "`explore` must be at least 1, got 0"),
        ({"confirm": 1e3}, "Write 100_000, not 1e5"),
        ({"radii": np.float32(0.5)}, r"must be a list of radii, got .*0.5.*Pass \[0.5\]"),
        ({"radii": torch.tensor(0.5)}, r"must be a list of radii, got .*0.5.*Pass \[0.5\]"),
        ({"false_alarm": torch.tensor([0.1, 0.2])}, "`false_alarm` must be a probability"),
        ({"false_alarm": True}, "`false_alarm` must be a probability"),
        ({"false_alarm": 1.5}, "`false_alarm` must be a probability"),
    ],
)
def test_bad_arguments_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        audit_certifier(plain_certify, **words)
