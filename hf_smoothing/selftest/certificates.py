"""Votes and certificates of classifiers whose answers are known."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import torch
from scipy import special

from hf_smoothing.audit.known import Bands
from hf_smoothing.certification import Certificate, Execution, certify, count_votes, make_stream
from hf_smoothing.noise import Draws
from hf_smoothing.selftest.lines import CheckError


SIGMA = 0.5
GREY = 128 / 255

VOTES = (251, 512, 653, 270, 314)
"""Votes of 2,000 copies for five bands under seed 0, from the draws that the slow twin of the sampler makes
(`tests/selftest/test_certificates.py`)."""

VOTE_DRAWS = 2_000

DISTANCE, IMAGES, ALPHA = 0.3, 200, 0.05

WORST = 1e-6
"""So many false certificates occur with this probability at most where the rule keeps its level."""


def five_bands() -> Bands:
    """Five classes by the first pixel, with ends halfway between grid steps around grey, so that every machine votes alike."""
    first = torch.zeros(1, 2, 2)
    first[0, 0, 0] = 1.0
    return Bands(first, [GREY + (steps + 0.5) / 255 for steps in (-150, -40, 60, 120)])


def votes(device: str) -> str:
    """The votes of a known classifier are the golden ones, whatever the batch size."""
    image = torch.full((1, 1, 2, 2), GREY, device=device)
    for size in (7, 128, 2_000):
        stream = make_stream("grid", seed=0, shape=(1, 2, 2), device=torch.device(device), sigma=SIGMA)
        counts = count_votes(
            five_bands().to(device), image, [Draws(0, 0, 0, VOTE_DRAWS)], stream=stream, execution=Execution(copies_per_batch=size)
        )  # fmt: skip
        if tuple(counts[0].tolist()) != VOTES:
            raise CheckError(f"votes in batches of {size} must be {VOTES}, got {tuple(counts[0].tolist())}")
    return f"{VOTE_DRAWS:,} votes for five classes, in batches of 7, 128 and 2,000"


def linear_classifier(device: str) -> str:
    """Certificates of a linear classifier are false at most alpha of the time, say sigma Phi^-1(p_lower), and are not vacuous."""
    weights = torch.randn((1, 4, 4), generator=torch.Generator().manual_seed(0))
    classifier = Bands(weights, [0.5 * float(weights.double().sum())]).to(device)
    image = 0.5 + DISTANCE * weights / weights.norm()
    label, exact = classifier.answer(image, SIGMA)
    images, found = image[None].expand(IMAGES, -1, -1, -1), []
    for mode in ("fixed", "targets"):
        certificates = certify(
            classifier, images, sigma=SIGMA, seed=0, mode=mode, n0=10, n=500, alpha=ALPHA, noise_kind="gaussian", copies_per_batch=2_000,
            targets=[0.0, DISTANCE + 1e-4] if mode == "targets" else None,
        )  # fmt: skip
        found.append(_check_certificates(certificates, mode, label, exact))
    return (
        f"radius {exact:.3f}; alpha {ALPHA:g}, of {IMAGES} certificates each "
        + ", ".join(found)
        + f" (up to {allowed()} are no sign of a fault)"
    )


def _check_certificates(certificates: list[Certificate], mode: str, label: int, exact: float) -> str:
    radii = np.array([one.radius for one in certificates])
    for one in certificates:
        formula = SIGMA * NormalDist().inv_cdf(one.p_lower) if one.p_lower > 0.5 else 0.0
        if mode == "fixed" and abs(one.radius - formula) > 1e-9:
            raise CheckError(
                f"a p_lower of {one.p_lower} must certify {formula:.9f} at sigma {SIGMA}, got {one.radius:.9f}"
            )
    false = sum(one.prediction not in (label, -1) or one.radius > exact for one in certificates)
    probability = _of_so_many(false)
    if probability < WORST:
        raise CheckError(
            f"mode {mode}: {false} of {IMAGES} certificates exceed the exact radius {exact:.4f}, at alpha = {ALPHA} (probability {probability:.0e})"
        )
    median = float(np.median(radii))
    if mode == "fixed" and not median > exact / 2:
        raise CheckError(f"mode {mode}: the median radius must be above half of {exact:.3f}, got {median:.3f}")
    return f"{false} false by {mode!r}"


def _of_so_many(false: int) -> float:
    """P(Binomial(IMAGES, ALPHA) >= false)."""
    return float(special.bdtrc(false - 1, IMAGES, ALPHA)) if false else 1.0


def allowed() -> int:
    """The largest number of false certificates that is no verdict against a rule.

    >>> allowed()
    27
    """
    return max(false for false in range(IMAGES + 1) if _of_so_many(false) >= WORST)
