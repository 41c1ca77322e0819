"""PREDICT and CERTIFY of randomized smoothing with a fixed number of draws, for many images at once.

Source: Cohen, Rosenfeld & Kolter (2019), arXiv 1902.02918, section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from hf_smoothing import statistics
from hf_smoothing.certification.rounds import check_batch_size, vote_in_rounds
from hf_smoothing.certification.rules import Certificate, FixedRule, Votes
from hf_smoothing.certification.sampling import (
    Draws,
    classifier_device,
    count_votes,
)
from hf_smoothing.noise import MAX_DRAWS, GaussianStream, fresh_seed
from hf_smoothing.pixels import to_unit_pixels
from hf_smoothing.statistics import ABSTAIN


@dataclass(frozen=True)
class Prediction:
    """The smoothed classifier's answer without a radius; wrong with probability at most `alpha`.

    Attributes:
        prediction: class, or `ABSTAIN` (-1).
        p_value: of the test that the top two classes are equally likely.
        counts: votes of each class.
        alpha: failure probability.
    """

    prediction: int
    p_value: float
    counts: tuple[int, ...]
    alpha: float


def certify(
    classifier: Any,
    images: Tensor,
    *,
    sigma: float,
    n0: int = 100,
    n: int = 100_000,
    alpha: float = 0.001,
    batch_size: int | None = None,
    seed: int | None = None,
    indices: Sequence[int] | None = None,
    dtype: str = "float32",
) -> list[Certificate]:
    """Certify each image: with probability at least 1 - alpha its certificate is true.

    Args:
        classifier: callable (batch, channels, height, width) -> (batch, num_labels), or an object with `classify`.
        images: (batch, channels, height, width), uint8 or float in [0, 1], at the certified resolution.
        sigma, n0, n, alpha: as in `FixedRule`.
        batch_size: noisy copies a forward pass; copies of several images share a batch. Never changes the result.
        seed: for reproducible measurements. Without one, fresh entropy is used, as a deployed service should.
        indices: of the images within a run, which with the seed decide the noise; 0, 1, ... by default.
        dtype: in which the network runs; the certificate holds for the network at that dtype.

    Raises:
        ValueError, TypeError: on pixels that are not in [0, 1], a model in train mode, too few draws, nan logits.

    Source: arXiv 1902.02918, CERTIFY.
    """
    rule = FixedRule(sigma=sigma, n0=n0, n=n, alpha=alpha)
    pixels = to_unit_pixels(images)
    numbers = _check_indices(indices, len(pixels))
    pending = ((Votes(index), image) for index, image in zip(numbers, pixels, strict=True))
    finished: dict[int, Certificate] = {}
    for touched in vote_in_rounds(
        classifier, pending, rule, seed=fresh_seed(seed), batch_size=batch_size, dtype=dtype
    ):
        finished |= {votes.index: rule.decide(votes) for votes in touched if not rule.segments(votes.drawn)}
    return [finished[index] for index in numbers]


def predict(
    classifier: Any,
    images: Tensor,
    *,
    sigma: float,
    n: int = 1_000,
    alpha: float = 0.001,
    batch_size: int | None = None,
    seed: int | None = None,
    indices: Sequence[int] | None = None,
    dtype: str = "float32",
) -> list[Prediction]:
    """Answer with the smoothed classifier, or abstain; an answer is wrong with probability at most alpha.

    Args:
        classifier, images, sigma, alpha, batch_size, seed, indices, dtype: as in `certify`.
        n: draws an image.

    Raises:
        ValueError, TypeError: as `certify`.

    Source: arXiv 1902.02918, PREDICT and Proposition 1.
    """
    sigma, n = statistics.check_sigma(sigma), statistics.check_whole(n, "n")
    enough = statistics.min_draws(alpha, two_sided=True)
    if n < enough or n > MAX_DRAWS:
        raise ValueError(
            f"`n` must be between {enough} (fewer draws decide nothing at alpha = {alpha}) and {MAX_DRAWS:,}, got {n}."
        )
    device = classifier_device(classifier)
    pixels = to_unit_pixels(images).to(device)
    counts = count_votes(
        classifier,
        pixels,
        [Draws(slot, index, 0, n) for slot, index in enumerate(_check_indices(indices, len(pixels)))],
        sigma=sigma,
        stream=GaussianStream(fresh_seed(seed), tuple(pixels.shape[1:]), device),
        batch_size=check_batch_size(batch_size, device),
        dtype=dtype,
    )
    answers = []
    for votes in counts:
        second, first = np.argsort(votes, kind="stable")[-2:]
        p_value = float(statistics.two_sided_pvalue(votes[first], votes[second]))
        answers.append(
            Prediction(int(first) if p_value <= alpha else ABSTAIN, p_value, tuple(int(v) for v in votes), alpha)
        )
    return answers


def _check_indices(indices: Sequence[int] | None, count: int) -> list[int]:
    numbers = (
        list(range(count)) if indices is None else [statistics.check_whole(index, "indices") for index in indices]
    )
    if len(numbers) != count or len(set(numbers)) != count:
        raise ValueError(
            f"`indices` must be {count} different numbers, one an image, got {len(numbers)}: {numbers[:5]}..."
        )
    return numbers
