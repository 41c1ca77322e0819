"""Accuracy under attack, and what networks hear of low and high frequencies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_smoothing.attacks import ATTACKS
from hf_smoothing.robustness_transfer import (
    area_of_each,
    area_under_curve,
    attack_curve,
    decline_ratio,
    frequency_curve,
    matched,
    radial_filter,
)
from hf_smoothing.robustness_transfer.analysis import Analysis
from hf_smoothing.robustness_transfer.records import bits
from hf_smoothing.robustness_transfer.settings import ROLES, AnalysisSettings
from tests.support.tiny import smoothed


WEIGHT = torch.randn(48, 2, generator=torch.Generator().manual_seed(0))


def linear(x):
    return x.flatten(1) @ WEIGHT.to(x.dtype)


def pictures(count=40, side=4):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1)) * 0.6 + 0.2


@pytest.mark.parametrize(("norm", "order"), [("linf", 1), ("l2", 2)])
@pytest.mark.parametrize("attack", ["fgsm", "bim", "pgd", "mi-fgsm"])
def test_a_linear_classifier_falls_exactly_at_its_distance_to_the_boundary(norm, order, attack):
    pixels = pictures()
    logits = linear(pixels)
    labels = logits.argmax(1)
    labels[:5] = 1 - labels[:5]  # wrong already without an attack
    gap = (WEIGHT[:, 1] - WEIGHT[:, 0]).norm(p=order)
    reach = (logits[:, 0] - logits[:, 1]).abs() / gap
    epsilons = [0.0, 0.005, 0.02, 0.08]
    right = attack_curve(linear, pixels, labels, attack=attack, norm=norm, epsilons=epsilons, batch_size=16)
    assert not right[:, :5].any()
    for row, epsilon in enumerate(epsilons):
        clear = (reach - epsilon).abs() > 0.02 * epsilon + 1e-6
        expected = (reach > epsilon).numpy()
        expected[:5] = False
        if attack != "pgd" or row == 0:  # pgd has few steps to come back from its random start
            assert (right[row] == expected)[clear.numpy()].all()
        assert right[row, expected].all()  # never succeeds where it cannot


def test_the_curve_falls_and_does_not_depend_on_gradients_being_off():
    pixels, labels = pictures(), linear(pictures()).argmax(1)
    with torch.no_grad():
        right = attack_curve(linear, pixels, labels, epsilons=[0.0, 0.01, 0.05])
    assert (right[:-1] >= right[1:]).all()
    assert right[0].all()


def test_success_outside_the_ball_does_not_count(monkeypatch):
    from hf_smoothing.robustness_transfer import robustness

    cheat = {"pgd": lambda classify, pixels, labels, epsilon, **how: 1.0 - pixels}
    monkeypatch.setattr(robustness, "ATTACKS", cheat)
    pixels, labels = pictures(), linear(pictures()).argmax(1)
    assert attack_curve(linear, pixels, labels, epsilons=[0.0, 0.01]).all()


def test_ratio_matching_and_area():
    assert decline_ratio(0.8, 0.2) == pytest.approx(0.75)
    assert np.isnan(decline_ratio(0.0, 0.0))
    a = np.array([[True, True, False, True], [True, False, False, False]])
    b = np.array([[True, False, True, True], [False, False, True, True]])
    first, second = matched([a, b])
    assert first.tolist() == [[True, True], [True, False]]
    assert second.tolist() == [[True, True], [False, True]]
    assert area_under_curve([0.0, 0.1, 0.3], [1.0, 0.5, 0.5]) == pytest.approx((0.075 + 0.1) / 0.3)


@pytest.mark.parametrize("area", [area_under_curve, area_of_each])
@pytest.mark.parametrize("radii", [[], [0.0], [0.0, 0.1], [0.0, 0.2, 0.1], [0.1] * 3, [0.0, 0.1, float("nan")]])
def test_an_area_needs_growing_radii_and_an_accuracy_at_each(area, radii):
    curve = np.ones((1 if len(radii) == 1 else 3, 2), dtype=bool)
    with pytest.raises(ValueError, match="at least two radii that grow and an accuracy at each"):
        area(radii, curve if area is area_of_each else curve[:, 0])


def test_areas_of_images_have_the_area_of_all_as_their_mean():
    curve, radii = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 1]], dtype=bool), np.array([0.0, 0.1, 0.3])
    assert area_of_each(radii, curve) == pytest.approx([(0.1 + 0.1) / 0.3, 0.05 / 0.3, 1.0])
    assert area_of_each(radii, curve).mean() == pytest.approx(area_under_curve(radii, curve.mean(1)))


@given(st.integers(0, 100), st.floats(0, 12), st.sampled_from([(8, 8), (7, 10)]))
def test_low_and_high_add_up(seed, radius, shape):
    pixels = 0.5 + 0.05 * torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(seed)).clamp(-2, 2)
    low, high = radial_filter(pixels, radius, "low"), radial_filter(pixels, radius, "high")
    mean = pixels.mean((2, 3), keepdim=True)
    torch.testing.assert_close(low + high, pixels + mean, rtol=0, atol=1e-5)


def test_a_wave_passes_or_not():
    rows = torch.arange(16) / 16
    wave = (0.5 + 0.3 * torch.cos(2 * torch.pi * 3 * rows))[None, None, :, None].expand(1, 1, 16, 16)
    flat = torch.full_like(wave, 0.5)
    for radius, low in ((2.9, flat), (3.1, wave)):
        torch.testing.assert_close(radial_filter(wave, radius, "low"), low, rtol=0, atol=1e-5)
    torch.testing.assert_close(radial_filter(wave, 2.9, "high"), wave, rtol=0, atol=1e-5)


def test_frequency_curve_counts():
    pixels = pictures(30, 4)
    labels = linear(pixels).argmax(1)
    found = frequency_curve(linear, pixels, labels, [0.0, 9.0], batch_size=7)
    assert found["low"][1]["right"] == "1" * 30
    assert found["low"][1]["confidence"] == pytest.approx(float(linear(pixels).softmax(1).amax(1).mean()), abs=1e-4)
    assert found["high"][0]["right"] == "1" * 30
    flat = linear(pixels.mean((2, 3), keepdim=True).expand(-1, -1, 4, 4)).argmax(1)
    assert found["low"][0]["right"].count("1") == int((flat == labels).sum())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: attack_curve(linear, pictures(1), torch.tensor([0]), attack="cw", epsilons=[0.0]), "`attack` must be one of fgsm"),
        (lambda: attack_curve(linear, pictures(1), torch.tensor([0]), epsilons=[0.0, 0.5, 2, 8]), r"look like steps of 0..255. Divide them by 255"),
        (lambda: attack_curve(linear, pictures(1), torch.tensor([0]), epsilons=[0.1, 0.1]), "Radii must be finite and grow"),
        (lambda: attack_curve(linear, pictures(1), torch.tensor([0]), epsilons=[]), "Radii must be finite and grow"),
        (lambda: attack_curve(linear, pictures(1), torch.tensor([0]), norm="l2", epsilons=[0.0, 128]), "l2 radii are in .* Divide them by 255"),
        (lambda: attack_curve(linear, pictures(1), torch.tensor([100]), epsilons=[0.0]), "`labels` must be below the number of classes"),
        (lambda: attack_curve(linear, pictures(1), torch.tensor([-1]), epsilons=[0.0]), "`labels` must be classes >= 0"),
        (lambda: attack_curve(linear, pictures(2), torch.tensor([0]), epsilons=[0.0]), r"`labels` must have shape"),
        (lambda: attack_curve(lambda x: linear(x) * torch.nan, pictures(1), torch.tensor([0]), epsilons=[0.0]), "logits that are no nan"),
        (lambda: attack_curve(linear, pictures(0), torch.tensor([]).long(), epsilons=[0.0]), "at least one image"),
        (lambda: attack_curve(linear, pictures(1), torch.tensor([0]), epsilons=[0.0], batch_size=0), "`batch_size` must be at least 1"),
        (lambda: frequency_curve(lambda x: linear(x) * torch.nan, pictures(1), torch.tensor([0]), [1.0]), "logits that are no nan"),
        (lambda: frequency_curve(linear, pictures(1), torch.tensor([0]), [1.0], batch_size=0), "`batch_size` must be at least 1"),
        (lambda: frequency_curve(linear, pictures(0), torch.tensor([]).long(), [1.0]), "at least one image"),
        (lambda: radial_filter(pictures(1), -1.0, "low"), "`radius` must be >= 0"),
        (lambda: matched([np.ones((2, 3), bool), np.ones((2, 1), bool)]), r"same images, got \[1, 3\]"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


KINDS = {
    torch.uint8: pictures(side=8).mul(255).byte(),
    torch.float64: pictures(side=8).mul(255).byte().double() / 255,
    torch.float16: (pictures(side=8).mul(255).byte().float() / 255).half(),
    torch.bfloat16: (pictures(side=8).mul(255).byte().float() / 255).bfloat16(),
}
"""The same 8-bit images in each dtype that holds them."""


@pytest.mark.parametrize("dtype", KINDS, ids=str)
@pytest.mark.parametrize(("attack", "norm"), [("pgd", "linf"), ("fgsm", "linf"), ("pgd", "l2")])
def test_curves_do_not_depend_on_the_dtype_of_the_pixels(attack, norm, dtype):
    weight = torch.randn(192, 2, generator=torch.Generator().manual_seed(0))

    def classify(x):
        return x.flatten(1) @ weight

    exact = KINDS[torch.uint8].float() / 255
    labels = classify(exact).argmax(1)
    options = {"attack": attack, "norm": norm, "epsilons": (0.0, 0.001, 0.003, 0.01, 0.03)}
    expected = attack_curve(classify, exact, labels, **options)
    assert 0 < expected.sum() < expected.size
    assert np.array_equal(attack_curve(classify, KINDS[dtype], labels, **options), expected)


@pytest.mark.parametrize("dtype", KINDS, ids=str)
def test_frequencies_do_not_depend_on_the_dtype_of_the_pixels(dtype):
    exact = KINDS[torch.uint8].float() / 255
    assert torch.equal(radial_filter(KINDS[dtype], 2.0, "low"), radial_filter(exact, 2.0, "low"))
    labels = torch.zeros(len(exact), dtype=torch.int64)

    def classify(x):
        return torch.stack([x.mean((1, 2, 3)), torch.full((len(x),), 0.5)], 1)

    assert frequency_curve(classify, KINDS[dtype], labels, [2.0]) == frequency_curve(classify, exact, labels, [2.0])


def test_pixels_out_of_range_are_refused_by_every_measure():
    wrong, labels = pictures() * 255, torch.zeros(40, dtype=torch.int64)
    for measure in (
        lambda: attack_curve(linear, wrong, labels, epsilons=[0.0, 0.1]),
        lambda: radial_filter(wrong, 1.0, "low"),
        lambda: frequency_curve(linear, wrong, labels, [1.0]),
    ):
        with pytest.raises(ValueError, match=r"`pixels` must hold pixels in \[0, 1\]"):
            measure()


def analysed(pixels, labels, folder):
    networks = {role: smoothed("resnet", seed, size=8).eval() for seed, role in enumerate(ROLES)}
    return Analysis(networks, pixels, labels, folder / "out", AnalysisSettings(batch_size=4))


MEASURES = {
    "attack": lambda pixels, labels, folder: attack_curve(wide, pixels, labels, epsilons=[0.0, 0.01]),
    "frequency": lambda pixels, labels, folder: frequency_curve(wide, pixels, labels, [1.0]),
    "analysis": analysed,
}
"""Every entry that takes labels."""
RIGHT = torch.arange(12) % 3
WRONG = {
    "a column": (RIGHT[:, None], ValueError, r"`labels` must have shape \(batch,\) = \(12,\), got \(12, 1\)"),
    "one": (RIGHT[:1], ValueError, r"`labels` must have shape"),
    "fewer": (RIGHT[:9], ValueError, r"`labels` must have shape"),
    "more": (torch.arange(20) % 3, ValueError, r"`labels` must have shape"),
    "negative": (RIGHT - 1, ValueError, "`labels` must be classes >= 0, got -1"),
    "beyond": (RIGHT + 1, ValueError, "`labels` must be below the number of classes, 3, got 3"),
    "fractions": (RIGHT + 0.4, TypeError, "`labels` must be a tensor of whole numbers, got torch.float32"),
    "a list": (RIGHT.tolist(), TypeError, "`labels` must be a tensor of whole numbers, got list"),
}


def wide(x):
    return x.flatten(1)[:, :3]


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("measure", MEASURES)
def test_labels_that_are_not_one_class_for_each_image_are_refused_by_every_measure(measure, wrong, tmp_path):
    labels, error, message = WRONG[wrong]
    with pytest.raises(error, match=message):
        MEASURES[measure](pictures(12, 8), labels, tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
@pytest.mark.parametrize("measure", MEASURES)
def test_labels_of_every_whole_type_are_taken(measure, dtype, tmp_path):
    MEASURES[measure](pictures(12, 8), RIGHT.to(dtype), tmp_path)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pixels_beyond_the_ends_by_the_tolerance_are_those_of_the_ends(norm, attack):
    pixels, options = pictures(12, 8), {"attack": attack, "norm": norm, "steps": 2}
    pixels[:, 0, 0, :2] = torch.tensor([-5e-4, 1.0005])
    for epsilons in ([0.0], [0.0, 0.01], [0.02]):
        found = attack_curve(wide, pixels, RIGHT, epsilons=epsilons, **options)
        expected = attack_curve(wide, pixels.clamp(0, 1), RIGHT, epsilons=epsilons, **options)
        assert np.array_equal(found, expected) and not found.all()


def test_an_analysis_takes_pixels_beyond_the_ends_by_the_tolerance_for_those_of_the_ends(tmp_path):
    pixels = pictures(12, 8)
    pixels[:, 0, 0, :2] = torch.tensor([-5e-4, 1.0005])
    found, expected = (analysed(x, RIGHT, tmp_path / name) for name, x in (("a", pixels), ("b", pixels.clamp(0, 1))))
    assert torch.equal(found.pixels, expected.pixels)
    assert found.attack("finetuned", "pgd", "linf") == expected.attack("finetuned", "pgd", "linf")


def test_flags_of_a_record_are_flat_truth_values():
    flags = torch.tensor([True, False, True])
    assert bits(flags) == bits(flags.numpy()) == bits(flags.tolist()) == "101"
    assert bits([]) == ""
    for wrong in (flags[:, None], flags[:, None].tolist(), np.ones((2, 3), bool), flags[0], [0.4, 1.0], ["0", "1"]):
        with pytest.raises(ValueError, match="one truth value for each image"):
            bits(wrong)


@pytest.mark.parametrize("kind", [np.array, torch.tensor, list, lambda x: [np.float64(one) for one in x]])
def test_radii_and_cutoffs_may_be_of_numpy_and_torch(kind):
    pixels = pictures(12, 8)
    found = attack_curve(wide, pixels, RIGHT, epsilons=kind([0.0, 0.25]))
    assert np.array_equal(found, attack_curve(wide, pixels, RIGHT, epsilons=[0.0, 0.25]))
    assert frequency_curve(wide, pixels, RIGHT, kind([1.0])) == frequency_curve(wide, pixels, RIGHT, [1.0])
