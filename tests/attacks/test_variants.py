"""Momentum, input diversity, features, one perturbation for all: in the ball and the range, and doing what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_smoothing.attacks import (
    ATTACKS,
    ascend,
    bim,
    di_fgsm,
    distance,
    diverse_inputs,
    feature_pgd,
    fgsm,
    fooled,
    mi_fgsm,
    pgd,
    universal_perturbation,
)  # fmt: skip


WEIGHT = torch.randn(48, 4, generator=torch.Generator().manual_seed(5))
ROUNDING = 1 + 1e-6


def waves(pixels):
    """Smooth, not monotone, with four classes and gradients everywhere."""
    return torch.sin(2 * pixels.flatten(1) @ WEIGHT.to(pixels.dtype))


def pictures(count, seed=0):
    return torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_black_and_white_pixels_are_moved(end):
    # From torch 2.14 on, the gradient of `clamp` is 0 at its ends: such pixels would stay as they are.
    clean, labels = torch.full((2, 3, 4, 4), end), torch.tensor([0, 3])
    for name, attack in ATTACKS.items():
        generator = torch.Generator().manual_seed(0)
        moved = attack(waves, clean, labels, epsilon=0.1, norm="linf", steps=2, generator=generator)
        assert float((moved != clean).float().mean()) > 0.1, name
    for norm in ("linf", "l2"):
        found = universal_perturbation(waves, clean, labels, epsilon=0.1, norm=norm, epochs=1)
        assert bool((found != 0.0).all()), norm
    moved = feature_pgd(waves, clean, epsilon=0.1, generator=torch.Generator().manual_seed(0))
    assert float((moved != clean).float().mean()) > 0.1


@pytest.mark.parametrize("name", ATTACKS)
@given(
    seed=st.integers(0, 1000),
    epsilon=st.one_of(st.sampled_from([0.0, 1e-9, 8 / 255]), st.floats(0, 3)),
    norm=st.sampled_from(["l2", "linf"]),
    steps=st.integers(1, 3),
)
def test_all_outputs_are_in_the_ball_and_in_the_range(name, seed, epsilon, norm, steps):
    epsilon = min(epsilon, 1.0) if norm == "linf" else epsilon
    clean = pictures(2, seed).round(decimals=seed % 3)  # with pixels on the border
    generator = torch.Generator().manual_seed(seed)
    moved = ATTACKS[name](
        waves, clean, torch.tensor([0, 3]), epsilon=epsilon, norm=norm, steps=steps, generator=generator
    )
    assert float(distance(moved, clean, norm).max()) <= epsilon
    assert float(moved.min()) >= 0.0
    assert float(moved.max()) <= 1.0


def test_fgsm_is_one_step_along_the_sign():
    clean, labels = pictures(3) * 0.8 + 0.1, torch.tensor([0, 1, 2])
    pixels = clean.clone().requires_grad_()
    torch.nn.functional.cross_entropy(waves(pixels), labels, reduction="sum").backward()
    expected = clean + 0.02 * pixels.grad.sign()
    torch.testing.assert_close(fgsm(waves, clean, labels, epsilon=0.02), expected, rtol=0, atol=1e-6)


def test_momentum_equals_a_plain_loop():
    clean, labels, mu, steps, epsilon = pictures(2) * 0.5 + 0.25, torch.tensor([1, 2]), 0.7, 5, 0.1
    point, past = clean.clone(), torch.zeros_like(clean)
    for _ in range(steps):
        pixels = point.clone().requires_grad_()
        torch.nn.functional.cross_entropy(waves(pixels).double(), labels, reduction="sum").backward()
        past = mu * past + pixels.grad / pixels.grad.abs().sum((1, 2, 3), keepdim=True)
        point = (point + 0.03 * past.sign()).clamp(clean - epsilon, clean + epsilon).clamp(0, 1)
    moved = pgd(
        waves, clean, labels, epsilon=epsilon, norm="linf", steps=steps, step_size=0.03, random_start=False, momentum=mu, keep="last",
    )  # fmt: skip
    torch.testing.assert_close(moved, point, rtol=0, atol=1e-6)
    assert not torch.equal(mi_fgsm(waves, clean, labels, epsilon=0.5), bim(waves, clean, labels, epsilon=0.5))


def test_diverse_inputs_shrink_and_pad_some_of_the_time():
    seen = []

    def classify(x):
        seen.append(x.clone())
        return x.flatten(1)[:, :2]

    diverse = diverse_inputs(classify, 0.5, torch.Generator().manual_seed(0), smallest=0.5)
    ones = torch.ones(1, 1, 10, 10)
    for _ in range(400):
        diverse(ones)
    whole = [bool((x == 1).all()) for x in seen]
    assert 0.35 < np.mean(whole) < 0.6  # some resizings keep all 10 rows
    assert all(x.shape == ones.shape for x in seen)
    for x in seen:  # a rectangle of ones in black
        inside = x[0, 0] > 0
        rows, columns = inside.any(1).sum(), inside.any(0).sum()
        assert inside.sum() == rows * columns
        assert rows >= 5
    assert len({tuple(x.flatten().tolist()) for x in seen}) > 20


def test_features_are_driven_apart_further_than_by_noise():
    clean = pictures(6)
    moved = feature_pgd(torch.sin, clean, epsilon=0.05, norm="linf", generator=torch.Generator().manual_seed(0))
    noise = 0.05 * (2 * torch.rand(clean.shape, generator=torch.Generator().manual_seed(1)) - 1)
    shift = [(torch.sin(x) - torch.sin(clean)).square().mean() for x in (moved, (clean + noise).clamp(0, 1))]
    assert float(shift[0]) > 2 * float(shift[1])
    assert float(distance(moved, clean, "linf").max()) <= 0.05


def test_feature_attack_equals_a_plain_loop():
    clean, epsilon = pictures(2) * 0.5 + 0.25, 0.1
    generator = torch.Generator().manual_seed(3)
    start = 0.0005 * torch.randn(clean.shape, generator=generator, dtype=torch.float64).float()
    point = clean + start
    for _ in range(4):
        pixels = point.clone().requires_grad_()
        torch.nn.functional.mse_loss(waves(pixels), waves(clean)).backward()
        point = (point + 1.25 * epsilon / 4 * pixels.grad.sign()).clamp(clean - epsilon, clean + epsilon).clamp(0, 1)
    moved = feature_pgd(waves, clean, epsilon=epsilon, steps=4, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(moved, point, rtol=0, atol=1e-5)


def test_features_of_uint8_images_are_those_of_their_pixels():
    images = (pictures(2) * 255).round().to(torch.uint8)
    moved = [
        feature_pgd(waves, x, epsilon=0.05, generator=torch.Generator().manual_seed(0))
        for x in (images, images.float() / 255)
    ]
    assert torch.equal(*moved)


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.1), ("l2", 0.6)])
@pytest.mark.parametrize("known", [True, False])
def test_one_perturbation_fools_most_images_and_stays_in_its_ball(norm, epsilon, known):
    images = pictures(200)
    labels = waves(images).argmax(1) if known else None
    found = universal_perturbation(
        waves, images, labels, epsilon=epsilon, norm=norm, batch_size=50, generator=torch.Generator().manual_seed(0)
    )
    assert found.shape == images.shape[1:]
    size = float(found.double().abs().max() if norm == "linf" else found.double().norm())
    assert 0.5 * epsilon < size <= epsilon
    noise = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    noise = epsilon * (noise.sign() if norm == "linf" else noise / noise.norm())
    assert fooled(waves, images, found).sum() > 1.2 * fooled(waves, images, noise).sum()
    assert not fooled(waves, images, torch.zeros_like(found)).any()
    beside = images.clone()
    beside[:, 0, 0, 0] = -5e-4  # within the tolerance of pixels, and moved to 0 with the perturbation

    def edge(x):
        return torch.stack([x[:, 0, 0, 0], torch.zeros(len(x))], 1)

    assert not fooled(edge, beside, torch.zeros_like(found)).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: feature_pgd(lambda x: x * torch.nan, pictures(1), epsilon=0.1), "a loss that is nan"),
        (lambda: pgd(waves, pictures(1), torch.tensor([0]), epsilon=0.1, diversity=0.5, restarts=2), "works with a single ascent, got restarts=2"),
        (lambda: ascend(lambda x: x.sum((1, 2, 3)), pictures(1), epsilon=0.1, norm="l2", steps=1, start="zero"), "`start` must be 'uniform', 'clean'"),
        (lambda: diverse_inputs(waves, 1.5), "`diversity` must be a probability"),
        (lambda: diverse_inputs(waves, 0.5, smallest=0.0), "`smallest` a factor in"),
        (lambda: pgd(waves, pictures(1), torch.tensor([0]), epsilon=0.1, momentum=-1.0), "`momentum` must be >= 0, got -1"),
        (lambda: universal_perturbation(waves, pictures(2), epsilon=-1.0), "`epsilon` must be finite and >= 0"),
        (lambda: universal_perturbation(waves, pictures(2), epsilon=0.1, epochs=0), "`epochs` must be at least 1"),
        (lambda: universal_perturbation(lambda x: waves(x.sqrt() - x.sqrt()), torch.zeros(1, 3, 4, 4), epsilon=0.1), "finite gradients"),
        (lambda: ascend(lambda x: x.sum((1, 2, 3)).detach(), pictures(1), epsilon=0.1, norm="l2", steps=1), "logits without a gradient"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_gradient_of_zero_everywhere_is_reported():

    def rounded(x):
        return waves((x * 255).round() / 255)

    with pytest.warns(UserWarning, match="exactly 0 for every pixel of every image"):
        bim(rounded, pictures(3), torch.tensor([0, 1, 2]), epsilon=0.02)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 300.0, 1e30])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_attack_does_not_depend_on_the_scale_of_the_logits(norm, scale):
    """A sure classifier has no cross-entropy left to climb, but it is no more robust for that."""
    clean = pictures(8)

    def network(x):  # of two classes: among more the scale decides which of the others an attack goes for
        return waves(x)[:, :2]

    arguments = {"epsilon": 0.05 if norm == "linf" else 0.3, "norm": norm, "steps": 5}
    answers = network(clean).argmax(1)
    plain = bim(network, clean, answers, **arguments)
    scaled = bim(lambda x: scale * network(x), clean, answers, **arguments)
    torch.testing.assert_close(network(scaled), network(plain), rtol=0, atol=1e-3)
    assert int((network(scaled).argmax(1) != answers).sum()) == int((network(plain).argmax(1) != answers).sum()) > 0


@pytest.mark.parametrize("attack", [pgd, bim, fgsm, mi_fgsm, di_fgsm])
@pytest.mark.parametrize("epsilon", [8, torch.tensor([0.1, 255.0])])
def test_radii_in_steps_of_255_are_refused(attack, epsilon):
    with pytest.raises(ValueError, match="looks like steps of 0..255. Divide it by 255"):
        attack(waves, pictures(2), torch.tensor([0, 1]), epsilon=epsilon, norm="linf")
    with pytest.raises(ValueError, match="Divide it by 255"):
        feature_pgd(waves, pictures(2), epsilon=8)
    with pytest.raises(ValueError, match="Divide it by 255"):
        universal_perturbation(waves, pictures(2), epsilon=8)
