"""Votes that grow, and the certificate that settles: the library's own certification, one round at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hf_smoothing.certification import (
    Certificate,
    Draws,
    Execution,
    Pending,
    Votes,
    make_rule,
    make_stream,
    vote_in_rounds,
)
from hf_smoothing.certification.noise_kinds import THREAT_MODELS
from hf_smoothing.certification.rules import rule_on
from hf_smoothing.pixels import to_unit_pixels
from hf_smoothing.types import Classifier, classify_of


@dataclass(frozen=True)
class Standing:
    """What is known of one image and one classifier after some draws.

    Attributes:
        counts: Votes of each class so far, those of the selection included.
        drawn: Number of noisy copies classified.
        most: Number of draws after which certification ends in any case.
        certificate: What the sequential rule certifies at the last look that is complete; None before the first. The rule's bounds hold at all
            looks together, so this one is as true as the last: it can only be smaller.
        finished: Whether the rule needs no more draws.
    """

    counts: tuple[int, ...]
    drawn: int
    most: int
    certificate: Certificate | None
    finished: bool


def standings(
    classifier: Classifier, image: Tensor, *, sigma: float, n: int, seed: int, alpha: float = 0.001, seconds: float = 0.3
) -> Iterator[Standing]:  # fmt: skip
    """Certify one 8-bit image as `hf_smoothing.certify` does with the same seed, and say after each round what is known.

    Args:
        classifier: Classifier to certify.
        image: Pixels, uint8 (channels, height, width).
        sigma, n, alpha: As in `certify`.
        seed: Seed of the noise; it must not be known to whoever chooses the image.
        seconds: Length of a round.

    Raises:
        ValueError, TypeError: As `certify`.
    """
    pixels = to_unit_pixels(image[None])[0]
    stream = make_stream("grid", seed=seed, shape=tuple(pixels.shape), device=torch.device("cpu"), sigma=sigma)
    rule = rule_on(make_rule(sigma, n=n, alpha=alpha), stream, chosen=False)
    votes, certificate = Votes(0), None
    rounds = vote_in_rounds(
        classifier, [Pending(votes, pixels)], rule, stream,
        # In small batches, so that the first votes are there at once.
        execution=Execution(channels_last=True, copies_per_batch=32), window=1, round_seconds=seconds,
    )  # fmt: skip
    for _ in rounds:
        # The first stage only chooses the class; in the middle of a later one nothing may be claimed anew.
        if votes.drawn in rule.stage_ends[1:]:
            certificate = replace(rule.decide(votes), noise_kind=stream.kind, threat_model=THREAT_MODELS[stream.kind])
        counts = tuple(int(count) for count in np.sum(votes.counts_by_look, axis=0))
        finished = rule.wanted(votes) == votes.drawn
        yield Standing(counts, votes.drawn, rule.stage_ends[-1], certificate, finished)


def side_by_side(runs: Sequence[Iterator[Standing]]) -> Iterator[tuple[Standing | None, ...]]:
    """Run several certifications in turn; yields the latest of each whenever one has changed."""
    latest: list[Standing | None] = [None] * len(runs)
    waiting = dict(enumerate(runs))
    while waiting:
        for place, run in list(waiting.items()):
            standing = next(run, None)
            if standing is None:
                del waiting[place]
                continue
            latest[place] = standing
            yield tuple(latest)


def first_copies(image: Tensor, *, sigma: float, seed: int, count: int) -> Tensor:
    """The first noisy copies that `standings` classifies with this seed, float32 (count, channels, height, width), not clamped.

    Args:
        image, sigma, seed: As there.
        count: Number of copies.
    """
    pixels = to_unit_pixels(image[None])
    stream = make_stream("grid", seed=seed, shape=tuple(image.shape), device=torch.device("cpu"), sigma=sigma)
    copies = torch.empty(count, *image.shape)
    stream.noisy_copies(copies, pixels, [Draws(0, 0, 0, count)])
    return copies


@torch.inference_mode()
def answers(classifier: Classifier, pixels: Tensor) -> list[int]:
    """The class of each image for the base classifier alone.

    Args:
        classifier: Classifier to ask.
        pixels: Pixels, float32 (batch, channels, height, width).
    """
    return [int(label) for label in classify_of(classifier)(pixels).argmax(dim=1)]
