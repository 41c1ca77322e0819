"""Pixels become float32 in [0, 1] or are refused, and gradients pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_smoothing import certify
from hf_smoothing.certification.survey import survey
from hf_smoothing.pixels import RANGE_TOLERANCE, check_image_batch, is_faint, to_unit_pixels, without_tolerance
from hf_smoothing.training.collator import PixelCollator
from tests.support.classifiers import Constant


def test_all_byte_values_become_their_share_of_255():
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    pixels = to_unit_pixels(images)
    assert pixels.dtype == torch.float32
    assert pixels.flatten().tolist() == torch.tensor([i / 255 for i in range(256)]).tolist()
    assert images.dtype == torch.uint8
    assert torch.equal((pixels * 255).round().to(torch.uint8), images)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 4, 5)])
def test_floats_in_the_unit_interval_pass_as_float32(dtype, shape):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    pixels = to_unit_pixels(images)
    assert pixels.dtype == torch.float32
    assert torch.equal(pixels, images.to(torch.float32))


def test_both_ends_and_rounding_beyond_them_pass():
    images = torch.tensor([0.0, 1.0, -RANGE_TOLERANCE / 2, 1 + RANGE_TOLERANCE / 2]).reshape(1, 1, 2, 2)
    assert torch.equal(to_unit_pixels(images), images)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_tolerance_is_taken_off_and_nothing_else(dtype):
    near = [0.25, -RANGE_TOLERANCE / 2, 1 + 0.9 * RANGE_TOLERANCE, 1.0]
    far = [-0.1, 1.1, float("nan"), float("inf")]
    found = without_tolerance(torch.tensor([near, far], dtype=dtype))
    wanted = torch.tensor([[0.25, 0.0, 1.0, 1.0], far], dtype=dtype)
    assert torch.equal(found.nan_to_num(7.0), wanted.nan_to_num(7.0)) and found.dtype is dtype


def test_pixels_with_a_gradient_keep_it():
    images = torch.full((1, 1, 2, 2), 0.5, requires_grad=True)
    to_unit_pixels(images).sum().backward()
    assert torch.equal(images.grad, torch.ones_like(images))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([-2.12, 2.64], r"pixels in \[0, 1\] before noise, got values from -2.12 to 2.64.*do_normalize=False"),
        ([0.0, 255.0], r"got values from 0 to 255. It looks like 0..255 as floats: divide by 255, or pass uint8"),
        ([-1.0, 1.0], "It looks already normalised"),
        ([-0.42, 2.8], "It looks already normalised"),
        ([0.0, 1.01], r"got values from 0 to 1.01. That is a little beyond, .*: pass pixels.clamp\(0, 1\)"),
        ([-0.01, 1.0], r"got values from -0.01 to 1. That is a little beyond"),
        ([0.0, float("nan")], "finite pixels in .* got nan or infinite values"),
        ([0.0, float("inf")], "finite pixels in .* got nan or infinite values"),
        ([float("-inf"), 0.0], "finite pixels in .* got nan or infinite values"),
    ],
)
def test_values_that_are_no_pixels_are_refused(values, message):
    with pytest.raises(ValueError, match=f"`photo` must hold .*{message}"):
        to_unit_pixels(torch.tensor(values).reshape(1, 1, 1, 2), name="photo")


def test_sharp_edges_that_were_resized_are_not_called_normalised():
    edges = torch.ones(1, 1, 32, 32)
    edges[..., 8:] = 0.0
    beyond = torch.nn.functional.interpolate(edges, 48, mode="bicubic")
    with pytest.raises(ValueError, match=r"values from -0.\d+ to 1.\d+. That is a little beyond"):
        to_unit_pixels(beyond)
    assert to_unit_pixels(beyond.clamp(0, 1)).max() == 1


FIXED = {"sigma": 0.25, "mode": "fixed", "n0": 10, "n": 100, "noise_kind": "gaussian"}


def test_pixels_that_were_divided_twice_are_warned_of_and_dark_ones_are_not():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    for twice in (levels / 255 / 255, levels.double() / 65025, levels[..., :8] / 65025):
        assert is_faint(twice)
        with pytest.warns(UserWarning, match="`images` should hold pixels up to 1, .* divided by 255 twice"):
            certify(Constant(), twice.float(), **FIXED)
        with pytest.warns(UserWarning, match="`pixel_values` should hold pixels up to 1"):
            PixelCollator(2)([{"pixel_values": twice[0], "labels": 0}])
        dark = [{"pixel_values": image} for image in (torch.zeros(1, 16, 8), *twice[..., :8].float())]
        with pytest.warns(UserWarning, match="`dataset` should hold pixels up to 1"):
            survey(dark, [0, 1])
        survey([*dark, {"pixel_values": torch.rand(1, 16, 8)}], [0, 1, 2])
    black = torch.zeros(1, 1, 16, 16)
    once, lossy = levels / 255, black + (levels % 3 == 0) / 255  # as a lossy format leaves black
    for fine in (black, black + 1e-3, once, lossy, torch.cat([black, once]), levels, levels % 2):
        assert not is_faint(fine)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool, torch.complex64])
def test_dtypes_that_hold_no_pixels_are_refused(dtype):
    with pytest.raises(TypeError, match=f"must be uint8 in 0..255 or floating point in .*, got {dtype}"):
        to_unit_pixels(torch.zeros(1, 3, 2, 2, dtype=dtype))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 4, 4), r"got \(3, 4, 4\). For a single image add the batch dimension: image\[None\]"),
        ((1, 1, 3, 4, 4), r"must have shape \(batch, channels, height, width\), got \(1, 1, 3, 4, 4\)"),
        ((0, 3, 4, 4), "at least one image, got an empty batch"),
        ((1, 4, 4, 3), r"1 or 3 channels in dimension 1, got shape \(1, 4, 4, 3\).*permute\(0, 3, 1, 2\)"),
        ((4, 4), r"Of one grey image make a batch: image\[None, None\]"),
        ((1, 4, 4), r"got \(1, 4, 4\). For a single image add the batch dimension"),
        ((5, 4, 4), r"grey images without the dimension of their channel: images\[:, None\]"),
        ((4, 4, 3), r"one image with its channels last: image.permute\(2, 0, 1\)\[None\]"),
        ((1, 4, 4, 1), "The channels are last: move them"),
        ((2, 8, 8, 4), r"images\[..., :3\].permute\(0, 3, 1, 2\)"),
        ((1, 4, 8, 8), r"such as RGBA, with image.convert\('RGB'\)"),
        ((1, 3, 0, 4), r"got shape \(1, 3, 0, 4\)"),
    ],
)
@pytest.mark.parametrize("check", [check_image_batch, to_unit_pixels])
def test_shapes_that_are_no_image_batch_are_refused(check, shape, message):
    with pytest.raises(ValueError, match=message):
        check(torch.zeros(shape))


@pytest.mark.parametrize("check", [check_image_batch, to_unit_pixels])
def test_lists_and_other_objects_are_refused(check):
    several = (
        r"list of tensors of shapes \[\(3, 4, 4\), \(3, 5, 5\)\]. Make it of the images themselves. .*image_processor"
    )
    with pytest.raises(TypeError, match=several):
        check([torch.zeros(3, 5, 5), torch.zeros(3, 4, 4)])
    with pytest.raises(TypeError, match=r"of shapes \[\(3, 4, 4\)\]. torch.stack makes one"):
        check([torch.zeros(3, 4, 4), torch.zeros(3, 4, 4)])
    for images, kind in (("cat.png", "str"), (np.zeros((4, 4, 3)), "ndarray"), ([np.zeros((4, 4, 3))], "list")):
        with pytest.raises(
            TypeError, match=rf"got {kind}. For a SmoothedClassifier `model`, model.image_processor\(\)"
        ):
            check(images)
    with pytest.raises(TypeError, match="got ndarray. It has that shape: torch.from_numpy"):
        check(torch.zeros(1, 3, 4, 4).numpy())
    with pytest.raises(TypeError, match="got list"):
        check([])


def test_batch_is_returned_as_it_is():
    images = torch.zeros(2, 3, 4, 4)
    assert check_image_batch(images) is images


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_that_were_eight_bit_are_again(dtype):
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    exact = images / 255
    assert not torch.equal(exact.to(dtype).float(), exact)
    assert torch.equal(to_unit_pixels(exact.to(dtype)), exact)
    other = exact.to(dtype)
    other[0, 0, 3, 3] = 0.1234  # one pixel off the grid: the image is taken as it is, and that beside it is not
    both = torch.cat([other, exact.to(dtype)])
    assert torch.equal(to_unit_pixels(both)[0], other[0].float()) and torch.equal(to_unit_pixels(both)[1], exact[0])


def test_a_gradient_passes_through_half_precision():
    images = (torch.arange(4.0).reshape(1, 1, 2, 2) / 255).half().requires_grad_()
    to_unit_pixels(images).sum().backward()
    assert torch.equal(images.grad, torch.ones_like(images))
