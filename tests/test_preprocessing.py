"""Preprocessing resizes as PIL does, then normalises each channel, and clamps no noise."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hf_smoothing.preprocessing import Preprocessing, parse_size, resize


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def random_pixels(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def pil_resize(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The same filter by PIL, one float channel at a time."""
    planes = [Image.fromarray(plane.numpy()) for plane in pixels.flatten(0, 1)]
    resized = [np.asarray(plane.resize((size[1], size[0]), Image.Resampling.BILINEAR)) for plane in planes]
    return torch.from_numpy(np.stack(resized)).unflatten(0, pixels.shape[:2])


# Results of one column are left out: torch 2.13's antialiasing repeats their first row (no backbone takes them).
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 24), st.integers(2, 24))
def test_resize_is_that_of_pil(height, width, new_height, new_width):
    pixels = random_pixels(1, 1, height, width)
    torch.testing.assert_close(
        resize(pixels, (new_height, new_width)), pil_resize(pixels, (new_height, new_width)), atol=2e-6, rtol=0
    )


@pytest.mark.parametrize("size", [(3, 3), (3, 18), (18, 3)])
def test_shrinking_is_antialiased(size):
    # A chess board at a third of its size: picking every third square would leave black and white ones.
    board = (torch.arange(9)[:, None] + torch.arange(9)[None, :]).remainder(2).float()[None, None]
    assert (resize(board, size) - 0.5).abs().max() < 0.2


def test_size_that_is_there_already_changes_nothing():
    pixels = random_pixels(2, 3, 5, 7)
    identity = Preprocessing((0.0,) * 3, (1.0,) * 3, model_size=(5, 7))
    assert torch.equal(identity(pixels), pixels)
    assert torch.equal(Preprocessing((0.0,) * 3, (1.0,) * 3)(pixels), pixels)


def test_resize_comes_before_normalisation_and_channels_keep_their_numbers():
    pixels = random_pixels(2, 3, 6, 8)
    result = Preprocessing(MEAN, STD, model_size=(9, 5))(pixels)
    small = pil_resize(pixels, (9, 5))
    for channel in range(3):
        expected = (small[:, channel] - MEAN[channel]) / STD[channel]
        torch.testing.assert_close(result[:, channel], expected, atol=2e-5, rtol=0)


def test_pixels_are_not_changed_in_place():
    pixels = random_pixels(1, 3, 4, 4)
    before = pixels.clone()
    Preprocessing(MEAN, STD)(pixels)
    assert torch.equal(pixels, before)


def test_noisy_pixels_beyond_the_unit_interval_are_not_clamped():
    pixels = torch.tensor([-3.0, 4.0]).reshape(1, 1, 1, 2)
    assert Preprocessing(0.5, 0.5)(pixels).flatten().tolist() == [-7.0, 7.0]


def test_one_number_serves_all_channels():
    pixels = random_pixels(1, 3, 4, 4)
    assert torch.equal(Preprocessing(0.5, 0.25)(pixels), Preprocessing((0.5,) * 3, (0.25,) * 3)(pixels))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_is_kept(dtype):
    assert Preprocessing(MEAN, STD, model_size=3)(random_pixels(1, 3, 4, 4).to(dtype)).dtype == dtype


def test_gradient_flows_to_the_pixels():
    pixels = random_pixels(1, 1, 4, 4).requires_grad_()
    Preprocessing(0.0, 0.5)(pixels).sum().backward()
    assert torch.equal(pixels.grad, torch.full_like(pixels, 2.0))


@given(st.sampled_from([None, 8, (8, 9), [8, 9], {"height": 8, "width": 9}]))
def test_dictionary_round_trip(model_size):
    steps = Preprocessing(MEAN, STD, model_size)
    assert Preprocessing(**json.loads(json.dumps(steps.to_dict()))) == steps


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (None, None),
        (32, (32, 32)),
        ((24, 32), (24, 32)),
        ([24, 32], (24, 32)),
        (torch.Size([24, 32]), (24, 32)),
        ({"height": 24, "width": 32}, (24, 32)),
        ({"shortest_edge": 24}, (24, 24)),
        (np.int64(32), (32, 32)),
    ],
)
def test_sizes(size, expected):
    assert parse_size(size) == expected


@pytest.mark.parametrize(
    "size",
    [0, -1, True, 32.0, "32", (32,), (32, 0), (32, 32, 3), (32.0, 32), {}, {"height": 32}, {"longest_edge": 32}],
)
def test_what_is_no_size_is_refused(size):
    with pytest.raises(
        ValueError, match=r"`model_size` must be a (positive )?number of pixels or \(height, width\), got"
    ):
        parse_size(size, "model_size")


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (MEAN, STD[:2], "need one number per channel each"),
        ((), (), "need one number per channel each"),
        (MEAN, (0.2, 0.0, 0.2), "`image_std` must be positive"),
        (0.5, -0.5, "`image_std` must be positive"),
        (0.5, float("nan"), "`image_std` must be positive"),
        (
            (123.7, 116.3, 103.5),
            (58.4, 57.1, 57.4),
            r"in \[0, 1\] pixel units, got .* Divide figures in 0..255 units by 255",
        ),
        (MEAN, (58.4, 57.1, 57.4), r"in \[0, 1\] pixel units"),
        (float("inf"), 0.5, "`image_mean` and `image_std` must be"),
        (float("nan"), 0.5, "`image_mean`"),
    ],
)
def test_statistics_that_make_no_sense_are_refused(mean, std, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(mean, std)


def test_wrong_number_of_channels_is_refused():
    with pytest.raises(
        ValueError, match=r"Pixels have 1 channel\(s\) but `image_mean` has 3. Convert grey images to RGB"
    ):
        Preprocessing(MEAN, STD)(random_pixels(1, 1, 4, 4))


def test_shape_is_checked():
    with pytest.raises(ValueError, match=r"`pixels` must have shape .*image\[None\]"):
        Preprocessing(MEAN, STD)(random_pixels(3, 4, 4))


def test_bytes_are_refused_instead_of_divided_by_zero():
    with pytest.raises((TypeError, ValueError), match="uint8"):
        Preprocessing(MEAN, STD)(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
