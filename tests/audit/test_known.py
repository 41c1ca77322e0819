"""Classifiers of known probability: what is claimed of them against counting and against the theorem."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from hf_smoothing.audit.known import Bands


def first_pixel(*thresholds: float) -> Bands:
    weights = torch.zeros(1, 2, 2)
    weights[0, 0, 0] = 1.0
    return Bands(weights, thresholds)


GREY = torch.full((1, 2, 2), 0.5)


def test_probabilities_are_the_shares_of_votes():
    weights = torch.randn((3, 2, 2), generator=torch.Generator().manual_seed(1))
    bands = Bands(weights, [-0.5, 0.25, 2.0])
    image = torch.rand((3, 2, 2), generator=torch.Generator().manual_seed(2))
    noise = torch.randn((200_000, 3, 2, 2), generator=torch.Generator().manual_seed(3))
    counts = bands(image + 0.5 * noise).sum(0).numpy()
    shares = bands.probabilities(image, 0.5)
    assert shares.sum() == pytest.approx(1.0, abs=1e-12) and shares.min() > 0.001
    assert stats.chisquare(counts, shares * len(noise)).pvalue > 1e-3


def test_probabilities_of_rare_bands_keep_their_digits():
    shares = first_pixel(2.5, 3.0).probabilities(GREY, 0.25)
    assert shares[1] == pytest.approx(stats.norm.sf(8.0) - stats.norm.sf(10.0), rel=1e-12)
    assert shares[2] == pytest.approx(stats.norm.sf(10.0), rel=1e-12)


def test_a_half_space_is_the_worst_case():
    for distance in (0.002, 0.3, 1.2):
        label, radius = first_pixel(0.5 - distance).answer(GREY, 0.5)
        p = first_pixel(0.5 - distance).probabilities(GREY, 0.5)[1]
        assert label == 1 and radius == pytest.approx(distance, rel=1e-12)
        assert 0.5 * stats.norm.ppf(p) == pytest.approx(distance, rel=1e-9)


def test_two_half_spaces_with_many_classes_between_meet_the_two_sided_bound():
    # (Phi^-1(p_A) - Phi^-1(p_B)) / 2 is reached where no class between them is larger.
    middle = np.linspace(-0.1, 0.4, 9) * 0.5 + 0.5
    bands = first_pixel(*middle)
    shares = bands.probabilities(GREY, 0.5)
    label, radius = bands.answer(GREY, 0.5)
    assert label == 0 and shares.argsort()[-2] == 9
    expected = 0.5 / 2 * (stats.norm.ppf(shares[0]) - stats.norm.ppf(shares[9]))
    assert radius == pytest.approx(expected, abs=1e-9)
    assert np.ptp(np.sort(bands.probabilities(GREY, 0.5, radius))[-2:]) < 1e-9


def test_classes_that_tie_have_no_radius():
    middle = 0.5 + 0.25 * stats.norm.ppf([1 / 3, 2 / 3])
    assert first_pixel(*middle).answer(GREY, 0.25).radius < 1e-6


def test_votes_do_not_depend_on_the_batch():
    bands = Bands(torch.randn((3, 8, 8), generator=torch.Generator().manual_seed(0)), [0.0, 1.0])
    pixels = torch.rand((50, 3, 8, 8), generator=torch.Generator().manual_seed(1))
    assert torch.equal(bands(pixels), torch.cat([bands(pixel[None]) for pixel in pixels]))


@pytest.mark.parametrize(
    ("weights", "thresholds", "message"),
    [
        (torch.ones(1, 1, 1), [], "`thresholds` must be one ascending number or more"),
        (torch.ones(1, 1, 1), [0.5, 0.5], r"got \[0.5, 0.5\]"),
        (torch.zeros(1, 1, 1), [0.5], "`weights` must have an entry other than zero"),
    ],
)
def test_bad_bands_are_refused(weights, thresholds, message):
    with pytest.raises(ValueError, match=message):
        Bands(weights, thresholds)
