"""The noise: the draws that every machine must make, and their law."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special

from hf_smoothing.noise import Draws, GaussianStream, GridStream
from hf_smoothing.selftest.lines import CheckError


GOLDEN_SEED, GOLDEN_SHAPE = 2**70 + 1, (3, 5, 7)
GOLDEN_PAIRS = ((0, 0), (3, 40), (262_143, 524_287), (131_072, 12_345))
"""Images and draws from both ends of what a run can have."""

GOLDEN_GRID = {
    0.25: "fd87c39734d3fd03940b038eacd1e533030b1c9c05e7fb1b6040b6aadb3a1c6a",
    1.0: "27b858920a5329dc6bfe4440d1b1c65f3412cabbbf3c43e1252866af058694e9",
}
"""SHA-256 of the draws at each sigma, as little-endian int16; `tests/selftest/test_draws.py` makes them with Python's integers."""

GOLDEN_GAUSSIAN = (0.5541202, -0.9055046, -0.6525778, -1.2111534)
"""Draws 31 and 32 of image 7 under seed 0, on either side of a block's end, as torch 2.13.0 draws them on an x86 CPU with AVX2."""

GAUSSIAN_TOLERANCE = 1e-5
"""Vector units of CPUs round the logarithm of a normal draw otherwise; a wrong draw is off by about 1."""

WORST = 1e-6
"""A p-value below this is a verdict against the noise. Grid noise is the same everywhere, and float32 noise the same on one kind of device: a seed
that passes always passes."""

LAW_SHAPE, LAW_DRAWS = (3, 32, 32), 400


def golden_grid(device: str) -> str:
    """Grid noise is that of every other machine, bit for bit, also when it is asked for in another order."""
    for sigma, expected in GOLDEN_GRID.items():
        stream = GridStream(GOLDEN_SEED, GOLDEN_SHAPE, device, sigma=sigma)
        for order, pairs in (("in order", GOLDEN_PAIRS), ("in reverse", GOLDEN_PAIRS[::-1])):
            found = {pair: _grid_draw(stream, *pair) for pair in pairs}
            digest = digest_of([found[pair] for pair in GOLDEN_PAIRS])
            if digest != expected:
                raise CheckError(
                    f"draws of seed {GOLDEN_SEED} at sigma {sigma}, asked for {order}, must have SHA-256 {expected[:12]}..., got {digest[:12]}..."
                )
    count = len(GOLDEN_GRID) * len(GOLDEN_PAIRS) * int(np.prod(GOLDEN_SHAPE))
    return f"{count} grid draws bit for bit"


def digest_of(draws: list[NDArray[np.int16]]) -> str:
    """SHA-256 of whole steps, as little-endian int16."""
    return hashlib.sha256(np.concatenate(draws).astype("<i2").tobytes()).hexdigest()


def _grid_draw(stream: GridStream, image: int, draw: int) -> NDArray[np.int16]:
    out = torch.empty((1, *stream.shape), device=stream.device)
    stream.draw(out, image, draw)
    return out.flatten().cpu().numpy().astype(np.int16)


def golden_gaussian(device: str) -> str:
    """Float32 noise on the CPU is that of every other machine, to rounding; on any device it does not depend on how it is asked for."""
    first = _gaussian_draws("cpu", 31, 2).flatten().tolist()
    apart = max(abs(a - b) for a, b in zip(first, GOLDEN_GAUSSIAN, strict=True))
    if not apart < GAUSSIAN_TOLERANCE:
        raise CheckError(f"draws 31 and 32 of seed 0 must be {GOLDEN_GAUSSIAN} to {GAUSSIAN_TOLERANCE:g}, got {first}")
    whole = _gaussian_draws(device, 0, 100)
    pieces = torch.cat([_gaussian_draws(device, start, 25) for start in range(0, 100, 25)])
    if not torch.equal(whole, pieces):
        raise CheckError(f"100 draws in pieces must be those in one call, got {int((whole != pieces).sum())} others")
    return f"within {apart:.0e}; in pieces as in one call"


def _gaussian_draws(device: str, start: int, count: int) -> torch.Tensor:
    out = torch.empty((count, 1, 1, 2), device=device)
    GaussianStream(0, (1, 1, 2), device, sigma=1.0).draw(out, 7, start)
    return out.cpu()


def law_of_grid(device: str) -> str:
    """Noisy copies are the image and whole steps that follow the discretised Gaussian law."""
    return _law(device, GridStream, "grid", _grid_p_value)


def law_of_gaussian(device: str) -> str:
    """Noisy copies are the image and normal draws of the stated standard deviation."""
    return _law(device, GaussianStream, "float32", _normal_p_value)


def _law(
    device: str,
    stream: type[GridStream] | type[GaussianStream],
    name: str,
    p_value: Callable[[NDArray[np.float64], float], float],
) -> str:
    found = {}
    for image, sigma in enumerate((0.25, 1.0)):
        noise = _noise_of_copies(stream(5, LAW_SHAPE, device, sigma=sigma), image)
        found[sigma] = p_value(noise, sigma)
        if not found[sigma] >= WORST:
            spread = float(noise.std())
            raise CheckError(
                f"{name} noise at sigma {sigma} does not follow its law: p-value {found[sigma]:.1e}, standard deviation {spread:.4f}"
            )
    numbers = len(found) * LAW_DRAWS * int(np.prod(LAW_SHAPE))
    return f"{numbers:,} numbers, p-values " + ", ".join(f"{p:.2f}" for p in found.values())


def _noise_of_copies(stream: GridStream | GaussianStream, number: int) -> NDArray[np.float64]:
    """Copies less image, in [0, 1] pixel units, for the image of this number."""
    image = (torch.arange(int(np.prod(LAW_SHAPE)), device=stream.device) % 256).view(1, *LAW_SHAPE) / 255
    out = torch.empty((LAW_DRAWS, *LAW_SHAPE), device=stream.device)
    stream.noisy_copies(out, image, [Draws(0, number, 100, 100 + LAW_DRAWS)])
    return (out.double() - image.double()).flatten().cpu().numpy()


def _grid_p_value(noise: NDArray[np.float64], sigma: float) -> float:
    steps = noise * 255
    if float(np.abs(steps - np.round(steps)).max()) > 1e-3:
        raise CheckError(f"grid noise at sigma {sigma} must be whole steps of 1/255")
    reach = int(4 * 255 * sigma)
    # An end holds all that is beyond it.
    upper = (2 * np.arange(-reach, reach) + 1) / (510 * sigma)
    expected = np.diff(special.ndtr(np.concatenate([[-np.inf], upper, [np.inf]])))
    counts = np.bincount(np.clip(np.round(steps), -reach, reach).astype(np.int64) + reach, minlength=2 * reach + 1)
    return chi_square(counts, expected)


def _normal_p_value(noise: NDArray[np.float64], sigma: float) -> float:
    cells = np.minimum((special.ndtr(noise / sigma) * 200).astype(np.int64), 199)
    return chi_square(np.bincount(cells, minlength=200), np.full(200, 1 / 200))


def chi_square(counts: NDArray[np.int64], law: NDArray[np.float64]) -> float:
    """P-value of Pearson's test that counts follow a law; each cell should expect 10 or more."""
    expected = law * counts.sum()
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return float(special.chdtrc(len(law) - 1, statistic))
