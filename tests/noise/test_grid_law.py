"""Grid noise follows the discretised Gaussian law, whose tables are within the stated total variation of the exact one."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats

from hf_smoothing.noise import GridStream
from hf_smoothing.noise.grid_law import grid_law, tables, total_variation
from tests.support.grid_noise import SIGMAS, VERDICT, draws


# --- The law


def exact_law(sigma: float, values: np.ndarray) -> list[mpmath.mpf]:
    """P(k = i) to 50 digits, each tail taken from the side where it is small."""
    with mpmath.workdps(60):
        scale = 1 / (510 * mpmath.mpf(sigma) * mpmath.sqrt(2))

        def above(edge: int) -> mpmath.mpf:  # P(255 z > edge / 2) for edge >= 0
            return mpmath.erfc(edge * scale) / 2

        return [
            above(2 * abs(i) - 1) - above(2 * abs(i) + 1) if i else 1 - 2 * above(1) for i in (int(v) for v in values)
        ]


def distance(law: list[mpmath.mpf], exact: list[mpmath.mpf]) -> mpmath.mpf:
    """Total variation; what `exact` has beyond the values of `law` counts too."""
    with mpmath.workdps(60):
        inside = mpmath.fsum(abs(a - b) for a, b in zip(law, exact, strict=True))
        return (inside + (1 - mpmath.fsum(exact))) / 2


@pytest.mark.parametrize("sigma", [0.0005, 0.001, *SIGMAS])
def test_law_against_mpmath(sigma):
    values, law = grid_law(sigma)
    exact = exact_law(sigma, values)
    np.testing.assert_array_equal(values, -values[::-1])
    assert np.all(np.diff(values) == 1)
    # Relative to each probability, down to the far tail; the ends hold all that is beyond them.
    relative = [abs(float((mpmath.mpf(p) - e) / e)) for p, e in zip(law[1:-1], exact[1:-1], strict=True)]
    assert max(relative) < 1e-9
    assert float(distance([mpmath.mpf(p) for p in law], exact)) < total_variation(sigma, 1)
    assert 0 <= law[0] - float(exact[0]) < 1e-16


@pytest.mark.parametrize("sigma", [1e-6, 0.0002, 0.0003, 0.001, *SIGMAS])
def test_implied_law_of_the_tables_is_within_the_total_variation(sigma):
    values, law = grid_law(sigma)
    table, filled, thresholds = tables(sigma)
    assert filled <= 65536 and table.shape == (65536,)
    slots = np.array([np.count_nonzero(table[:filled] == v) for v in values])
    assert slots.sum() == filled
    assert np.all(np.diff(thresholds) >= 0) and thresholds[0] >= 0 and thresholds[-1] <= 1 << 62
    edges = [0, *(int(t) for t in thresholds), 1 << 62]
    with mpmath.workdps(60):
        rest = mpmath.mpf(65536 - filled) / 65536
        implied = [
            mpmath.mpf(int(slots[i])) / 65536 + rest * mpmath.mpf(edges[i + 1] - edges[i]) / (1 << 62)
            for i in range(len(values))
        ]
        assert mpmath.almosteq(mpmath.fsum(implied), 1, abs_eps=mpmath.mpf(10) ** -40)
        found = distance(implied, exact_law(sigma, values))
    assert float(found) <= total_variation(sigma, 1)
    assert float(found) > 0 or len(law) == 3  # a comparison of a thing with itself would give 0


def test_total_variation_adds_up_over_pixels():
    assert total_variation(0.5, 3072) == pytest.approx(3072 * total_variation(0.5, 1), rel=1e-12)
    assert total_variation(1.0, 3 * 224 * 224) < 2e-7
    stream = GridStream(0, (3, 8, 8), sigma=0.25)
    assert stream.total_variation == total_variation(0.25, 192)


# --- Draws follow the law


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    """The p-value, neighbouring cells joined until each expects 10 or more."""
    joined: list[list[float]] = [[0.0, 0.0]]
    for observed, wanted in zip(counts, expected, strict=True):
        if joined[-1][1] >= 10:
            joined.append([0.0, 0.0])
        joined[-1][0] += observed
        joined[-1][1] += wanted
    if joined[-1][1] < 10 and len(joined) > 1:
        last = joined.pop()
        joined[-1] = [joined[-1][0] + last[0], joined[-1][1] + last[1]]
    seen, wanted = np.array(joined).T
    assert len(seen) > 1
    return float(stats.chi2.sf(((seen - wanted) ** 2 / wanted).sum(), len(seen) - 1))


def tally(noise: torch.Tensor, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    values, law = grid_law(sigma)
    places = noise.long().numpy().ravel() - values[0]
    return np.bincount(places, minlength=len(values)), law * places.size


LARGE = (3, 32, 32)


@pytest.fixture(scope="module", params=[0.01, 0.25, 1.0])
def sample(request) -> tuple[float, torch.Tensor]:
    """(sigma, (800, 3, 32, 32) draws), two and a half million numbers."""
    return request.param, draws(GridStream(5, LARGE, sigma=request.param), 7, 100, 800)


def test_draws_are_whole_numbers(sample):
    sigma, noise = sample
    assert torch.equal(noise, noise.round())
    assert float(noise.abs().max()) <= grid_law(sigma)[0][-1]


def test_draws_follow_the_law(sample):
    sigma, noise = sample
    assert chi_square(*tally(noise, sigma)) > VERDICT


def test_draws_follow_the_law_beyond_four_sigma(sample):
    sigma, noise = sample
    counts, expected = tally(noise, sigma)
    values = grid_law(sigma)[0]
    for tail in (values > 4 * 255 * sigma, values < -4 * 255 * sigma):
        # All of these come out of the rest of the law, by thresholds.
        inside = np.array([counts[~tail].sum(), counts[tail].sum()])
        wanted = np.array([expected[~tail].sum(), expected[tail].sum()])
        assert wanted[1] > 40
        assert stats.binom.cdf(inside[1], inside.sum(), wanted[1] / wanted.sum()) > VERDICT
        assert stats.binom.sf(inside[1] - 1, inside.sum(), wanted[1] / wanted.sum()) > VERDICT
    far = np.abs(values) > 4 * 255 * sigma
    conditional = expected[far] * counts[far].sum() / expected[far].sum()
    if len(np.flatnonzero(conditional > 10)) > 1:
        assert chi_square(counts[far], conditional) > VERDICT


def test_each_lane_of_16_bits_follows_the_law(sample):
    sigma, noise = sample
    flat = noise.flatten(1)
    for lane in range(4):
        assert chi_square(*tally(flat[:, lane::4], sigma)) > VERDICT


def test_each_pixel_and_each_draw_follows_the_law(sample):
    sigma, noise = sample
    values, law = grid_law(sigma)
    spread = float((law * values**2).sum()) ** 0.5
    for dimension in (0, 1):
        means = noise.flatten(1).double().mean(dim=dimension) / spread
        count = noise.flatten(1).shape[dimension]
        # Means of `count` numbers are normal enough; their squares add up to a chi-square.
        assert VERDICT < stats.chi2.sf(float((means**2).sum() * count), len(means)) < 1 - VERDICT


def test_a_wrong_law_is_found(sample):
    # The same counts against a sigma two percent off.
    sigma, noise = sample
    counts, expected = tally(noise, sigma)
    values, law = grid_law(sigma * 1.02)
    off = dict(zip(values.tolist(), law, strict=True))
    wrong = np.array([off.get(int(v), 0.0) for v in grid_law(sigma)[0]]) * counts.sum()
    assert chi_square(counts, wrong + 1e-12) < 1e-9
    assert chi_square(counts, expected) > VERDICT


def correlation_verdict(first: torch.Tensor, second: torch.Tensor) -> float:
    """The smallest p-value of the correlations of values, sizes and signs; under independence each is normal."""
    pvalues = []
    for view in (lambda x: x, torch.abs, torch.sign, lambda x: x % 2):
        a, b = view(first.flatten().double()), view(second.flatten().double())
        score = float(torch.corrcoef(torch.stack([a, b]))[0, 1]) * len(a) ** 0.5
        pvalues.append(2 * stats.norm.sf(abs(score)))
    return min(pvalues)


def test_neighbouring_pixels_and_draws_are_independent(sample):
    _, noise = sample
    flat = noise[:200].flatten(1)
    for gap in (1, 2, 3, 4, 32, 1024):
        assert correlation_verdict(flat[:, :-gap], flat[:, gap:]) > VERDICT
    for gap in (1, 2, 64):
        assert correlation_verdict(flat[:-gap], flat[gap:]) > VERDICT


@pytest.mark.parametrize(("image", "start", "seed"), [(8, 100, 5), (7, 900, 5), (7, 100, 6), (7, 100, 5 + (1 << 32))])
def test_neighbouring_images_draws_and_seeds_are_independent(image, start, seed):
    first = draws(GridStream(5, LARGE, sigma=0.25), 7, 100, 200)
    second = draws(GridStream(seed, LARGE, sigma=0.25), image, start, 200)
    assert correlation_verdict(first, second) > VERDICT
    # Equal places are no more frequent than chance has it.
    law = grid_law(0.25)[1]
    chance, equal = float((law**2).sum()), int((first == second).sum())
    assert VERDICT < stats.binom.cdf(equal, first.numel(), chance) < 1 - VERDICT


def test_correlated_draws_are_found():
    noise = draws(GridStream(5, LARGE, sigma=0.25), 7, 100, 200).flatten(1)
    assert correlation_verdict(noise[:, 1:] + noise[:, :-1], noise[:, 1:] - 0.9 * noise[:, :-1]) < 1e-9


@pytest.mark.slow
def test_the_rest_of_the_law_is_exact_in_a_hundred_million_draws():
    sigma, shape = 0.12, (3, 64, 64)
    stream, total = GridStream(11, shape, sigma=sigma), None
    for image in range(16):
        counts, expected = tally(draws(stream, image, 0, 512), sigma)
        total = counts if total is None else total + counts
    assert chi_square(total, expected * 16) > VERDICT
