"""Images rounded to the 8-bit grid stay in the ball, move as far as it allows, and distances are those of NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_smoothing.attacks import distance, round_to_grid
from tests.support.attacks import NORMS, SHAPE, exact_norms, levels, radii
from tests.support.classifiers import random_images


counts = st.lists(st.integers(0, 255), min_size=16, max_size=16)


def on_255(values):
    return torch.tensor(values, dtype=torch.float32).reshape(-1, *SHAPE) / 255


@given(st.lists(counts, min_size=1, max_size=3), st.data(), st.sampled_from(NORMS))
def test_rounded_images_are_on_the_grid_and_in_the_ball(rows, data, norm):
    clean = on_255(rows)
    epsilon = torch.tensor([data.draw(radii) for _ in rows], dtype=torch.float64)
    wish = torch.tensor([data.draw(st.lists(levels, min_size=16, max_size=16)) for _ in rows]).reshape(clean.shape)
    rounded = round_to_grid(wish, clean, epsilon, norm)
    whole = (rounded.double() * 255).round()
    assert torch.equal(rounded, whole.float() / 255)
    assert float(whole.min()) >= 0
    assert float(whole.max()) <= 255
    assert (exact_norms(whole, (clean.double() * 255).round(), norm) / 255 <= epsilon.numpy()).all()


@given(counts, st.lists(levels, min_size=16, max_size=16), st.sampled_from(NORMS), st.floats(0, 3))
def test_no_larger_factor_fits(row, wish, norm, epsilon):
    clean, wish = on_255(row), torch.tensor(wish, dtype=torch.float32).reshape(1, *SHAPE)
    origin = (clean.double() * 255).round()
    reached = float(exact_norms((round_to_grid(wish, clean, epsilon, norm).double() * 255).round(), origin, norm)[0])
    for factor in np.linspace(0, 1, 101):
        length = float(
            exact_norms((factor * (wish.double() * 255 - origin)).round(), torch.zeros_like(origin), norm)[0]
        )
        assert length / 255 > epsilon or length <= reached


@pytest.mark.parametrize("norm", NORMS)
def test_what_fits_is_only_rounded(norm):
    clean = on_255(list(range(16)))
    wish = clean + torch.linspace(0, 3.4, 16).reshape(1, *SHAPE) / 255
    rounded = round_to_grid(wish, clean, 1.0, norm)
    assert torch.equal((rounded * 255).round(), (wish * 255).round())
    assert torch.equal(round_to_grid((wish * 255).round().to(torch.uint8), clean, 1.0, norm), rounded)


def test_the_border_of_the_ball_belongs_to_it():
    clean = on_255([100] * 16)
    assert torch.equal(round_to_grid(clean + 8 / 255, clean, 8 / 255, "linf"), on_255([108] * 16))
    assert torch.equal(round_to_grid(clean + 8 / 255, clean, 7.99 / 255, "linf"), on_255([107] * 16))
    assert torch.equal(round_to_grid(clean + 1 / 255, clean, 4 / 255, "l2"), on_255([101] * 16))
    assert torch.equal(round_to_grid(clean + 1 / 255, clean, 3.99 / 255, "l2"), clean)


@pytest.mark.parametrize("norm", NORMS)
def test_distance_is_that_of_numpy(norm):
    a, b = random_images(5, (3, 8, 8), seed=1), random_images(5, (3, 8, 8), seed=2).double()
    measured = distance(a, b, norm)
    assert measured.dtype == torch.float64
    np.testing.assert_allclose(measured.numpy(), exact_norms(a, b, norm), rtol=1e-14)


def test_bad_input_of_round_to_grid():
    clean = on_255([100] * 16)
    with pytest.raises(
        ValueError, match=r"`clean` must hold multiples of 1/255.* 0\.4 of a step away from one\. Resize"
    ):
        round_to_grid(clean, clean + 0.4 / 255, 0.1, "l2")
    with pytest.raises(
        ValueError, match=r"`adversarial` and `clean` must have the same shape, got \(2, 1, 4, 4\) and"
    ):
        round_to_grid(clean.expand(2, -1, -1, -1), clean, 0.1, "l2")
    with pytest.raises(ValueError, match=r"`norm` must be 'l2' or 'linf', got 'L2'"):
        round_to_grid(clean, clean, 0.1, "L2")
    with pytest.raises(ValueError, match=r"`epsilon` must be finite and >= 0"):
        round_to_grid(clean, clean, math.nan, "l2")
    with pytest.raises(ValueError, match=r"`epsilon` must be one number"):
        round_to_grid(clean, clean, torch.ones(3), "l2")
    with pytest.raises(ValueError, match=r"`adversarial` must hold pixels in \[0, 1\]"):
        round_to_grid(clean + 1, clean, 0.1, "l2")


def test_bad_input_of_distance():
    image = on_255([100] * 16)
    with pytest.raises(ValueError, match=r"`norm` must be 'l2' or 'linf', got 2"):
        distance(image, image, 2)
    with pytest.raises(
        ValueError, match=r"`a` and `b` must have the same shape, got \(1, 1, 4, 4\) and \(2, 1, 4, 4\)"
    ):
        distance(image, image.expand(2, -1, -1, -1), "l2")
    with pytest.raises(TypeError, match=r"`b` must be floating point in \[0, 1\] units, got torch\.uint8\. Divide"):
        distance(image, image.to(torch.uint8), "l2")
