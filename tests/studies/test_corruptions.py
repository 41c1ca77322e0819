"""Each corruption does what its name says, and nothing at strength 0."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from examples.studies.corruptions import CORRUPTIONS, corrupted


PIXELS = torch.randint(0, 256, (3, 3, 8, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_shape_dtype_and_nothing_at_strength_zero(kind):
    nothing = 1 if kind == "pixelate" else 0
    assert torch.equal(corrupted(PIXELS, kind, nothing), PIXELS)
    changed = corrupted(PIXELS, kind, 2 if kind == "pixelate" else 0.5)
    assert changed.dtype == torch.uint8
    assert changed.shape == PIXELS.shape
    assert not torch.equal(changed, PIXELS)


def test_noise_has_its_deviation_and_its_seed():
    grey = torch.full((64, 1, 32, 32), 128, dtype=torch.uint8)
    noisy = corrupted(grey, "gaussian-noise", 0.1, seed=3)
    assert float((noisy.float() / 255 - 128 / 255).std()) == pytest.approx(0.1, rel=0.02)
    assert torch.equal(noisy, corrupted(grey, "gaussian-noise", 0.1, seed=3))
    assert not torch.equal(noisy, corrupted(grey, "gaussian-noise", 0.1, seed=4))


def test_blur_is_that_of_scipy():
    expected = np.stack(
        [
            [gaussian_filter(channel.numpy() / 255, 1.0, mode="nearest", truncate=3.0) for channel in image]
            for image in PIXELS
        ]
    )
    assert np.abs(corrupted(PIXELS, "gaussian-blur", 1.0).numpy() - 255 * expected).max() < 0.51


def test_contrast_keeps_the_mean_and_pixelate_its_squares():
    flat = corrupted(PIXELS, "contrast", 1.0)
    assert all(len(image.unique()) == 1 for image in flat)
    squares = corrupted(PIXELS, "pixelate", 4)
    assert torch.equal(squares[:, :, :4, :4], squares[:, :, :1, :1].expand(-1, -1, 4, 4))


@pytest.mark.parametrize(("kind", "strength"), [("fog", 1), ("contrast", 1.5), ("gaussian-blur", -1), ("pixelate", 5)])
def test_what_makes_no_sense(kind, strength):
    with pytest.raises(ValueError, match=r"corruption must be one of|must be >= 0|must divide the image"):
        corrupted(PIXELS, kind, strength)
