"""Crops and mirrors are evenly drawn from the image and its black border."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from hf_smoothing.training.augmentation import random_crop, random_flip


def numbered(batch=6, height=5, width=7):
    """Every value occurs once and none is 0, so that each can be traced to where it came from."""
    return torch.arange(1.0, 1 + batch * 3 * height * width).reshape(batch, 3, height, width)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def slow_crops(image, padding):
    """All crops of one image, by their offset."""
    _, height, width = image.shape
    padded = F.pad(image, (padding,) * 4)
    offsets = range(2 * padding + 1)
    return {(top, left): padded[:, top : top + height, left : left + width] for top in offsets for left in offsets}


@given(st.integers(0, 3), st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))
def test_each_image_is_one_of_its_own_crops(padding, seed, batch, height, width):
    pixels = numbered(batch, height, width)
    cropped = random_crop(pixels, padding, seeded(seed))
    assert cropped.shape == pixels.shape
    for image, result in zip(pixels, cropped, strict=True):
        assert any(torch.equal(result, crop) for crop in slow_crops(image, padding).values())


@given(st.integers(0, 2**31), st.integers(1, 6))
def test_each_image_is_itself_or_its_mirror(seed, batch):
    pixels = numbered(batch)
    flipped = random_flip(pixels, seeded(seed))
    for image, result in zip(pixels, flipped, strict=True):
        assert torch.equal(result, image) or torch.equal(
            result, torch.stack([row[:, list(range(6, -1, -1))] for row in image])
        )


def test_every_crop_occurs_about_equally_often():
    image = numbered(1)
    count = 9 * 400
    cropped = random_crop(image.expand(count, -1, -1, -1), 1, seeded())
    found = [int((cropped == crop).flatten(1).all(dim=1).sum()) for crop in slow_crops(image[0], 1).values()]
    assert sum(found) == count
    # Binomial(3600, 1/9) has mean 400 and standard deviation 18.9.
    assert all(abs(number - 400) < 5 * 18.9 for number in found)


def test_half_of_the_images_are_mirrored():
    flipped = random_flip(numbered(1).expand(1000, -1, -1, -1), seeded())
    number = int((flipped == numbered(1)).flatten(1).all(dim=1).sum())
    assert abs(number - 500) < 5 * 15.8


def test_nothing_to_crop():
    pixels = numbered()
    assert random_crop(pixels, 0, seeded()) is pixels


def test_the_border_is_black():
    cropped = random_crop(torch.ones(200, 3, 4, 4), 2, seeded())
    assert set(cropped.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("function", [lambda x, g: random_crop(x, 2, g), random_flip], ids=["crop", "flip"])
def test_the_generator_decides(function):
    pixels = numbered(32)
    state = torch.get_rng_state()
    first, again, other = function(pixels, seeded(1)), function(pixels, seeded(1)), function(pixels, seeded(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(pixels, numbered(32))
