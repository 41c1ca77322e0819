"""Pixels in memory have one label each, and are read one at a time."""

import numpy as np
import pytest
import torch

from hf_smoothing import PixelDataset
from hf_smoothing.data import DecodedPixels
from tests.support.tiny import SIZE, data, image_dataset, pixels


LABELS = torch.arange(4) % 3
KINDS = {"decoded": lambda: data(4), "dataset": lambda: PixelDataset(image_dataset(4), SIZE)}


@pytest.mark.parametrize(
    ("labels", "error", "match"),
    [
        (torch.arange(5), ValueError, r"shape \(4,\), got torch.int64 of shape \(5,\)\. Pass one for each image"),
        (torch.arange(3), ValueError, r"got torch.int64 of shape \(3,\)\. Pass one for each image"),
        (torch.arange(0), ValueError, r"of shape \(0,\)"),
        (torch.tensor(1), ValueError, r"of shape \(\)"),
        (LABELS[:, None], ValueError, r"labels\.flatten\(\)"),
        (LABELS.float(), ValueError, r"labels\.long\(\)"),
        (torch.eye(4), ValueError, r"labels\.argmax\(dim=1\)"),
        (LABELS.tolist(), TypeError, r"got list\. Make one: torch\.as_tensor\(labels\)"),
        (LABELS.numpy(), TypeError, r"got ndarray\. Make one: torch\.as_tensor"),
    ],
)
def test_there_is_one_label_for_each_image(labels, error, match):
    with pytest.raises(error, match=match):
        DecodedPixels(pixels(4), labels)


@pytest.mark.parametrize(
    ("images", "error", "match"),
    [
        (pixels(4).numpy(), TypeError, "torch.from_numpy"),
        (list(pixels(4)), TypeError, "torch.stack"),
        (pixels(4)[0], ValueError, r"image\[None\]"),
        (pixels(4).permute(0, 2, 3, 1), ValueError, r"permute\(0, 3, 1, 2\)"),
        (torch.tensor(1), ValueError, "must have shape"),
        (None, TypeError, "got NoneType"),
    ],
)
def test_the_pixels_are_one_tensor(images, error, match):
    with pytest.raises(error, match=match):
        DecodedPixels(images, LABELS)


@pytest.mark.parametrize("images", [pixels(4), pixels(4) / 255, pixels(4)[:, :1], pixels(4)[:0]])
def test_what_is_whole_is_taken(images):
    assert (
        len(DecodedPixels(images)) == len(DecodedPixels(images, LABELS[: len(images)].to(torch.uint8))) == len(images)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("index", [slice(0, 2), [0, 1], "pixel_values", 1.7, 1.0, None, True, torch.tensor([0, 1])])
def test_images_are_read_one_at_a_time(kind, index):
    with pytest.raises(TypeError, match="one at a time, by a whole number, got "):
        KINDS[kind]()[index]


@pytest.mark.parametrize("kind", KINDS)
def test_any_whole_number_is_an_index(kind):
    made = KINDS[kind]()
    for index in (2, np.int64(2), torch.tensor(2), -2):
        assert torch.equal(made[index]["pixel_values"], made[2]["pixel_values"]) and made[index]["labels"] == 2
    with pytest.raises(IndexError):
        made[4]
