"""Numbers that can only be a slip of the unit are refused with the cure, at every entry that takes them."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hf_smoothing.attacks import ddn, pgd, smoothed_logits, universal_perturbation
from hf_smoothing.certification import FixedRule, SequentialRule, certify, certify_dataset, make_rule, predict
from hf_smoothing.noise import NoiseMixture
from hf_smoothing.statistics import (
    MOST_TARGETS,
    check_reach,
    interval,
    l2_radius,
    lower_bound,
    max_radius,
    min_draws,
    paired_difference,
    target_grid,
)
from hf_smoothing.units import (
    MAX_SIGMA,
    check_alpha,
    check_confidence,
    check_radius,
    check_seconds,
    check_share,
    check_sigma,
    check_whole,
    diameter,
)
from tests.support.classifiers import Constant


IMAGE = torch.full((1, 3, 8, 8), 100, dtype=torch.uint8)
DATASET = [{"pixel_values": IMAGE[0], "labels": 1}]
TRAINER = SimpleNamespace(model=SimpleNamespace(config=SimpleNamespace(id2label=None)))
GREY = r"`sigmas?` is in \[0, 1\] pixel units and must be at most 4, got 64.* 0..255 grey levels: divide them by 255 \(0.251\)"


@pytest.mark.parametrize(
    "call",
    [
        lambda: certify(Constant(), IMAGE, sigma=64),
        lambda: certify(Constant(), IMAGE, sigma=64, mode="fixed"),
        lambda: predict(Constant(), IMAGE, sigma=64),
        lambda: predict(Constant(), IMAGE, sigma=64, mode="fixed"),
        lambda: make_rule(64),
        lambda: FixedRule(64),
        lambda: SequentialRule(64, (0.0,)),
        lambda: smoothed_logits(Constant(), 64, 2, torch.Generator()),
        lambda: NoiseMixture((0.25, 64)),
        lambda: NoiseMixture.parse("64"),
        lambda: NoiseMixture.parse('{"sigmas": [0, 64], "distribution": "uniform"}'),
        lambda: l2_radius(0.9, 64),
        lambda: max_radius(100, 0.001, 64),
        lambda: check_reach([0.1], 64),
    ],
)
def test_sigma_in_grey_levels_is_refused_with_the_cure(call):
    with pytest.raises(ValueError, match=GREY):
        call()


def test_sigma_in_grey_levels_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match=GREY):
        certify_dataset(Constant(), DATASET, tmp_path / "run", sigma=64)
    assert not (tmp_path / "run").exists()


def test_the_largest_sigma_is_taken():
    assert make_rule(MAX_SIGMA).sigma == 4.0
    with pytest.raises(ValueError, match="must be at most 4"):
        make_rule(math.nextafter(MAX_SIGMA, 5.0))


@pytest.mark.parametrize(
    ("alpha", "cure"),
    [
        (0.999, "0.999 looks like the confidence: pass alpha=0.001"),
        (0.95, "pass alpha=0.05"),
        (95, "95 looks like a confidence in percent: pass alpha=0.05"),
        (99.9, "pass alpha=0.001"),
        (5, "5 looks like a percentage: pass alpha=0.05"),
        (0, "got 0. For certificates"),
        (math.nan, "got nan. For"),
        ("0.001", "got '0.001'. For"),
        (True, "got True. For"),
    ],
)
def test_alpha_that_is_a_confidence_is_refused_with_the_cure(alpha, cure):
    for call in (check_alpha, make_rule_at, lambda a: lower_bound(9, 10, a), lambda a: predict(Constant(), IMAGE, sigma=0.25, alpha=a)):  # fmt: skip
        with pytest.raises(ValueError, match=f"`alpha` must be a failure probability .*{re.escape(cure)}"):
            call(alpha)


@pytest.mark.parametrize("alpha", [9e-21, 1e-100, 1e-307, 5e-324])
def test_levels_that_nobody_can_keep_are_refused(alpha):
    for call in (check_alpha, make_rule_at, lambda a: predict(Constant(), IMAGE, sigma=0.25, alpha=a), min_draws):
        with pytest.raises(
            ValueError, match="`alpha` must be at least 1e-20, as bounds are tested down to there, got"
        ):
            call(alpha)


def make_rule_at(alpha):
    return make_rule(0.25, alpha=alpha)


@pytest.mark.parametrize(
    ("confidence", "cure"),
    [(0.05, "a failure probability: pass 0.95"), (95, "a percentage: pass 0.95"), (1, "0.95 for")],
)
def test_confidence_that_is_an_alpha_is_refused_with_the_cure(confidence, cure):
    for call in (
        check_confidence,
        lambda c: interval(3, 5, c),
        lambda c: paired_difference([1.0, 2.0], [2.0, 1.0], c),
    ):
        with pytest.raises(ValueError, match=f"`confidence` must be strictly between 0 and 1, got .*{cure}"):
            call(confidence)


def test_shares_and_counts():
    with pytest.raises(ValueError, match="`clean` must be a share in .* 25 looks like a percentage: pass 0.25"):
        NoiseMixture((0.25,), clean=25)
    with pytest.raises(ValueError, match="`n` must be a whole number, got 0.5. Pass a count, not a share."):
        make_rule(0.25, n=0.5)
    with pytest.raises(ValueError, match=r"`n` must be a whole number, got 1e\+05|got 100000.0. Write 100_000"):
        make_rule(0.25, n=1e5)
    with pytest.raises(ValueError, match="Pass a count, not a share"):
        max_radius(0.5, 0.001, 0.25)
    for given in ("3", None, True, np.True_):
        with pytest.raises(ValueError, match=r"whole number, got .*Pass the number itself, such as 100\."):
            check_whole(given, "n")
    assert check_share(1, "clean") == 1.0


STRANGE = {
    "two of torch": torch.tensor([100, 200]),
    "two of numpy": np.array([100, 200]),
    "two in a list": [100, 200],
    "complex of torch": torch.tensor(1j),
    "complex of numpy": np.complex128(1j),
    "complex": 1j,
    "without content": torch.empty((), device="meta"),
    "fractions": torch.tensor([0.5, 0.5]),
}


@pytest.mark.parametrize("value", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("alpha", check_alpha),
        ("confidence", check_confidence),
        ("sigma", check_sigma),
        ("radius", lambda value: check_radius(value, "l2", "radius")),
        ("share", lambda value: check_share(value, "share")),
        ("seconds", lambda value: check_seconds(value, "seconds")),
        ("n", lambda value: check_whole(value, "n")),
    ],
)
def test_what_is_no_number_is_refused_in_our_words(name, check, value):
    with pytest.raises(ValueError, match=f"^`{name}` must .*, got "):
        check(value)


@pytest.mark.parametrize("value", [torch.tensor([100, 200]), np.array([100, 200]), [100, 200], np.array([0.5])])
def test_several_counts_are_refused_with_the_cure(value):
    classifier = torch.nn.Flatten().eval()
    with pytest.raises(ValueError, match="`n` must be a whole number, got .*Pass one number"):
        certify(classifier, torch.zeros(1, 3, 2, 2), sigma=0.25, n=value)


@pytest.mark.parametrize("value", [np.array(1), torch.tensor(1), 1])
def test_a_single_index_is_refused_with_the_cure(value):
    classifier = torch.nn.Flatten().eval()
    with pytest.raises(TypeError, match=r"`indices` must be a list of numbers of images, got .*pass \[1\]"):
        certify(classifier, torch.zeros(1, 3, 2, 2), sigma=0.25, n=100, indices=value)


@pytest.mark.parametrize("wrong", [-1, math.nan, "5", None, True])
def test_seconds(wrong):
    assert check_seconds(0, "partial_seconds") == 0.0 and check_seconds(math.inf, "partial_seconds") == math.inf
    with pytest.raises(ValueError, match="`partial_seconds` must be a number of seconds, at least 0, got"):
        check_seconds(wrong, "partial_seconds")


@pytest.mark.parametrize(
    ("radius", "norm", "shape", "message"),
    [
        (8, "linf", None, r"at most 1 for linf, got 8, which looks like steps of 0..255. Divide it by 255 \(0.0314\)"),
        (56, "l2", (3, 32, 32), r"images of 3x32x32 are at most 55.43 apart in l2, got 56"),
        (-0.1, "l2", None, "must be finite and >= 0"),
        (math.nan, "l2", None, "must be finite and >= 0"),
        (math.inf, "linf", None, "must be finite and >= 0"),
    ],
)
def test_radii_that_no_two_images_are_apart_are_refused(radius, norm, shape, message):
    with pytest.raises(ValueError, match=message):
        check_radius(radius, norm, "epsilon", shape)


def linear(pixels):
    total = pixels.sum((1, 2, 3))
    return torch.stack([total, -total], 1)


@pytest.mark.parametrize(
    "attack",
    [
        lambda e: pgd(linear, IMAGE, torch.zeros(1, dtype=torch.long), epsilon=e),
        lambda e: ddn(linear, IMAGE, torch.zeros(1, dtype=torch.long), largest=e),
        lambda e: universal_perturbation(linear, IMAGE, epsilon=e, norm="l2"),
    ],
    ids=["pgd", "ddn", "universal"],
)
def test_attacks_refuse_l2_radii_above_the_diameter(attack):
    with pytest.raises(
        ValueError, match=r"images of 3x8x8 are at most 13.86 apart in l2, got 127.5.*divide it by 255 \(0.5\)"
    ):
        attack(127.5)
    attack(13.8)


# --- No radius above the diameter of the pixel cube


@pytest.mark.parametrize("mode", ["fixed", "targets", "curve"])
@pytest.mark.parametrize("noise", ["grid", "gaussian"])
def test_no_certificate_is_larger_than_the_pixel_cube(mode, noise):
    image = torch.zeros(1, 1, 1, 2, dtype=torch.uint8)
    (certificate,) = certify(Constant(), image, sigma=2.0, mode=mode, n=1000, noise_kind=noise, seed=0)
    assert certificate.radius <= diameter((1, 1, 2)) == math.sqrt(2)
    assert certificate.radius == math.sqrt(2) or mode == "targets"  # draws stop at its largest target, 1
    assert all(target <= math.sqrt(2) for target in certificate.certified_targets)
    assert FixedRule(2.0, n=1000, bound="runner-up").diameter == math.inf
    (other,) = certify(Constant(), image, sigma=0.25, mode=mode, n=1000, noise_kind=noise, seed=0)
    assert 0.5 < other.radius < 1.0


def test_a_chosen_target_beyond_the_cube_is_refused(tmp_path):
    image = torch.zeros(1, 1, 1, 2, dtype=torch.uint8)
    message = (
        r"Target radius 1.5 is above 1.414, the largest l2 distance .* divide grey levels of 0..255 by 255 \(0.00588\)"
    )
    with pytest.raises(ValueError, match=message):
        certify(Constant(), image, sigma=1.0, targets=[0.0, 1.5], n=1000)
    with pytest.raises(ValueError, match=message):
        certify_dataset(
            Constant(), [{"pixel_values": image[0]}], tmp_path / "run", sigma=1.0, targets=[0.0, 1.5], n=1000
        )
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=r"Target radius 64 is out of reach.*No n reaches it.*grey levels.*\(0.251\)"):
        make_rule(0.25, targets=[0.0, 64])


def test_rows_of_a_run_end_at_the_diameter(tmp_path):
    dataset = [{"pixel_values": torch.zeros(1, 1, 2, dtype=torch.uint8), "labels": 1}]
    run = certify_dataset(Constant(), dataset, tmp_path / "run", sigma=3.0, n=1000, progress=False)
    assert run.rows[0]["radius"] == math.sqrt(2)
    assert run.settings["rule"]["targets"] == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("sigma", [0.01, 0.12, 0.25, 0.5, 1.0, 1.5, 1.7, 2.0, 3.0, 4.0])
def test_default_targets_fit_a_table(sigma):
    targets = target_grid(sigma)
    assert len(targets) <= MOST_TARGETS and targets[0] == 0.0 and targets[-1] <= 3 * sigma * (1 + 1e-9)
    assert len(target_grid(sigma, curve=True)) == 31


def test_a_sigma_below_a_grey_level_is_warned_of():
    with pytest.warns(UserWarning, match=r"no radius reaches 1/255.*was it divided by 255 twice \(0.25\)"):
        certify(Constant(), IMAGE, sigma=0.25 / 255, n=100)
    certify(Constant(), IMAGE.float() / 255, sigma=0.25 / 255, n=100, noise_kind="gaussian")


@pytest.mark.parametrize("radius", [14, math.nan, -0.1])
def test_the_callback_refuses_radii_that_no_two_images_are_apart(radius):
    from hf_smoothing.training.callbacks import CertifiedAccuracyCallback

    with pytest.raises(ValueError, match="`thresholds`"):
        CertifiedAccuracyCallback(TRAINER, DATASET, thresholds=(0.0, radius))
    with pytest.raises(ValueError, match=GREY):
        CertifiedAccuracyCallback(TRAINER, DATASET, sigmas=(64,))


def test_slack_is_a_total_variation():
    for slack in (-0.1, 0.5, math.nan):
        with pytest.raises(ValueError, match=r"`slack` must be"):
            l2_radius(0.9, 0.25, slack)
        with pytest.raises(ValueError, match=r"`slack` must be"):
            FixedRule(0.25, slack=slack)
