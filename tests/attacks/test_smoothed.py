"""Logits of a smoothed classifier are those of a plain loop over copies, with gradients that attacks can follow."""

from __future__ import annotations

import pytest
import torch

from hf_smoothing.attacks import pgd, smoothed_logits
from tests.support.attacks import SHAPE, generator, loss, waves
from tests.support.classifiers import Linear, Watched, random_images


@pytest.mark.parametrize("batch_size", [None, 4, 100])
def test_smoothed_logits_are_those_of_a_plain_loop(batch_size):
    images, sigma, copies = random_images(3), 0.4, 5
    fast = smoothed_logits(waves, sigma, copies, generator(7), batch_size=batch_size)(images)
    noise = torch.randn((3, copies, *SHAPE), generator=generator(7))
    for i in range(3):
        mean = torch.zeros(4, dtype=torch.float64)
        for j in range(copies):
            mean += torch.softmax(waves((images[i] + sigma * noise[i, j])[None])[0], dim=0) / copies
        torch.testing.assert_close(fast[i], mean.log(), atol=1e-6, rtol=1e-6)


def test_every_call_draws_fresh_float32_noise():
    seen = Watched(waves)
    soft = smoothed_logits(seen, 0.4, 2, generator(7))
    image = random_images(1).half()
    assert not torch.equal(soft(image), soft(image))
    assert {batch.dtype for batch in seen.batches} == {torch.float32}


def test_passes_hold_at_most_batch_size_copies():
    seen = Watched(waves)
    smoothed_logits(seen, 0.4, 5, generator(), batch_size=6)(random_images(3))
    assert seen.sizes == [6, 6, 3]


def test_the_gradient_does_not_depend_on_the_batch_size():
    images, labels = random_images(3), torch.tensor([0, 1, 2])

    def gradient(batch_size):
        point = images.clone().requires_grad_()
        soft = smoothed_logits(waves, 0.3, 4, generator(), batch_size=batch_size)
        return torch.autograd.grad(loss(soft, point, labels).sum(), point)[0]

    torch.testing.assert_close(gradient(5), gradient(None))


def test_the_gradient_is_that_of_finite_differences():
    # Multiples of 1/256, so that the steps are exact in float32.
    image = (random_images(1) * 128).round() / 256 + 0.25
    label, step = torch.tensor([2]), 1 / 256

    def objective(pixels):
        # A gentle classifier: the third derivative limits what central differences reach.
        return loss(smoothed_logits(lambda x: waves(x / 3), 0.25, 8, generator(3)), pixels, label)

    point = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(point).sum(), point)
    unit = torch.eye(16).reshape(16, 1, *SHAPE) * step
    differences = torch.stack([(objective(image + e) - objective(image - e)) / (2 * step) for e in unit])
    assert float(gradient.abs().max()) > 0.1
    torch.testing.assert_close(gradient.flatten().double(), differences.flatten(), atol=1e-4, rtol=0)


def test_smoothed_logits_of_confident_copies_are_finite():
    soft = smoothed_logits(lambda x: 1e4 * waves(x).float(), 0.1, 4, generator())
    point = random_images(2).requires_grad_()
    logits = soft(point)
    assert bool(torch.isfinite(logits).all())
    assert float(logits.detach().min()) < -200
    assert bool(torch.isfinite(torch.autograd.grad(logits.sum(), point)[0]).all())


def test_half_precision_logits_are_averaged_in_float32():
    assert smoothed_logits(lambda x: waves(x).half(), 0.1, 4, generator())(random_images(2)).dtype == torch.float32


def test_the_smoothed_linear_classifier_is_attacked_at_its_radius():
    linear = Linear(SHAPE)
    clean = torch.stack([linear.image_at(0.15)] * 2)
    soft = smoothed_logits(linear, 0.25, 64, generator(), batch_size=32)
    epsilon = torch.tensor([1.05, 0.99]) * 0.15
    # The best of fresh draws may be the luckiest one.
    moved = pgd(soft, clean, torch.tensor([1, 1]), epsilon=epsilon, generator=generator(), keep="last")
    assert linear(moved).argmax(1).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigma": 0.0}, r"`sigma` must be a positive noise standard deviation"),
        ({"copies": 0}, r"`copies` must be at least 1, got 0"),
        ({"copies": 2.0}, r"`copies` must be a whole number"),
        ({"batch_size": 0}, r"`batch_size` must be at least 1, got 0"),
    ],
)
def test_bad_input_of_smoothed_logits(changes, message):
    arguments = {"sigma": 0.25, "copies": 2, "generator": generator()} | changes
    with pytest.raises(ValueError, match=message):
        smoothed_logits(waves, **arguments)


def test_smoothed_logits_refuse_what_is_no_image_and_no_logits():
    with pytest.raises(ValueError, match=r"`pixels` must hold pixels in \[0, 1\] before noise"):
        smoothed_logits(waves, 0.25, 2, generator())(torch.full((1, *SHAPE), -2.0))
    with pytest.raises(ValueError, match=r"logits of shape \(batch, num_labels\) = \(4, \.\.\.\), got \(2, 4\)"):
        smoothed_logits(lambda x: waves(x)[:2], 0.25, 2, generator())(random_images(2))
