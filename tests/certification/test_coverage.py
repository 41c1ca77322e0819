"""Certificates and answers are false at most alpha of the time, and a careless rule is found out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_smoothing import certify, predict, statistics
from hf_smoothing.statistics import ABSTAIN
from tests.support.classifiers import Constant, Linear, coin, random_images
from tests.support.rules import naive_boundaries, too_many


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
