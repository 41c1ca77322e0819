"""PREDICT and CERTIFY of randomized smoothing, for many images at once.

Source: Cohen, Rosenfeld & Kolter (2019), arXiv 1902.02918, section 3.2; sequential rules as in `SequentialRule`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np
from torch import Tensor

from hf_smoothing import statistics
from hf_smoothing.certification.certificates import Certificate, Votes
from hf_smoothing.certification.classifiers import classifier_device, resolve_classifier
from hf_smoothing.certification.execution import Execution
from hf_smoothing.certification.noise_kinds import THREAT_MODELS, NoiseStream, choose_noise, make_stream, off_grid
from hf_smoothing.certification.options import (
    CertifyOptions,
    ExecutionOptions,
    PredictOptions,
    RuleOptions,
    documented,
    filled,
    part,
)
from hf_smoothing.certification.rounds import vote_in_rounds
from hf_smoothing.certification.rules import FixedRule, Rule, SequentialRule, make_rule, rule_on
from hf_smoothing.certification.sampling import count_votes
from hf_smoothing.noise import MAX_DRAWS, Draws, fresh_seed
from hf_smoothing.pixels import to_unit_pixels
from hf_smoothing.statistics import ABSTAIN


@dataclass(frozen=True)
class Prediction:
    """The smoothed classifier's answer without a radius; wrong with probability at most `alpha`.

    Attributes:
        prediction: class, or `ABSTAIN` (-1).
        draws: number of noisy copies classified.
        counts: votes of each class.
        alpha: failure probability.
        noise_kind, threat_model: as in `Certificate`.
        p_value: of the test that the top two classes are equally likely, after a fixed number of draws; None after a sequential one.
    """

    prediction: int
    draws: int
    counts: tuple[int, ...]
    alpha: float
    noise_kind: str
    threat_model: str
    p_value: float | None = None


@documented(CertifyOptions)
def certify(
    classifier: Any,
    images: Tensor,
    *,
    sigma: float,
    seed: int | None = None,
    indices: Sequence[int] | None = None,
    **options: Unpack[CertifyOptions],
) -> list[Certificate]:
    """Certify each image: with probability at least 1 - alpha its certificate is true.

    Args:
        classifier: callable (batch, channels, height, width) -> (batch, num_labels), or an object with `classify`.
        images: (batch, channels, height, width), uint8 or float in [0, 1], at the certified resolution.
        sigma: Noise standard deviation in [0, 1] pixel units.
        seed: Seed of the noise, for reproducible measurements. Without one, fresh entropy is used, as a deployed service should.
        indices: Numbers of the images within a run, which with the seed decide the noise; 0, 1, ... by default.
        {options}

    Raises:
        ValueError, TypeError: on pixels that are not in [0, 1], a model in train mode, too few draws, nan logits.

    Source: arXiv 1902.02918, CERTIFY.
    """
    asked = filled(CertifyOptions, options)
    rule = make_rule(sigma, **part(RuleOptions, asked))
    execution = Execution(**part(ExecutionOptions, asked))
    chosen = asked["radii"] is not None
    finished = _finished(classifier, images, rule, asked["noise"], seed, indices, execution, chosen=chosen)
    return [
        replace(used.decide(votes), noise_kind=kind, threat_model=THREAT_MODELS[kind])
        for used, votes, kind in finished
    ]


@documented(PredictOptions)
def predict(
    classifier: Any,
    images: Tensor,
    *,
    sigma: float,
    seed: int | None = None,
    indices: Sequence[int] | None = None,
    **options: Unpack[PredictOptions],
) -> list[Prediction]:
    """Answer with the smoothed classifier, or abstain; an answer is wrong with probability at most alpha.

    Args:
        classifier, images, sigma, seed, indices: as in `certify`.
        {options}

    Raises:
        ValueError, TypeError: as `certify`.

    Source: `SequentialRule` with target 0 and no selection; or arXiv 1902.02918, PREDICT and Proposition 1.
    """
    asked = filled(PredictOptions, options)
    if asked["mode"] not in ("sequential", "fixed"):
        raise ValueError(f"`mode` must be 'sequential' or 'fixed', got {asked['mode']!r}.")
    execution = Execution(**part(ExecutionOptions, asked))
    how = {"noise": asked["noise"], "seed": seed, "indices": indices, "execution": execution}
    if asked["mode"] == "fixed":
        return _predict_fixed(classifier, images, sigma, asked["n"], asked["alpha"], **how)
    rule = SequentialRule(sigma, (0.0,), n0=0, n=asked["n"], alpha=asked["alpha"])
    answers = []
    for used, votes, kind in _finished(classifier, images, rule, **how, chosen=True):
        counts = tuple(int(count) for count in np.sum(votes.looks, axis=0))
        answer = used.decide(votes).prediction
        answers.append(Prediction(answer, votes.drawn, counts, rule.alpha, kind, THREAT_MODELS[kind]))
    return answers


def _finished(
    classifier: Any,
    images: Tensor,
    rule: FixedRule | SequentialRule,
    noise: str,
    seed: int | None,
    indices: Sequence[int] | None,
    execution: Execution,
    *,
    chosen: bool,
) -> Iterator[tuple[Rule, Votes, str]]:
    """The votes of each image, in order, when the rule wants no more; with the rule as images and noise make it, and the kind of noise."""
    resolve_classifier(classifier)
    pixels = to_unit_pixels(images)
    numbers = _check_indices(indices, len(pixels))
    pixels = pixels.to(classifier_device(classifier))
    stream = _stream_for(pixels, noise, rule.sigma, seed)
    sound = rule_on(rule, stream, chosen=chosen)
    pending = ((Votes(index), image) for index, image in zip(numbers, pixels, strict=True))
    finished: dict[int, Votes] = {}
    for touched in vote_in_rounds(classifier, pending, sound, stream, execution=execution):
        finished |= {votes.index: votes for votes in touched if sound.wanted(votes) == votes.drawn}
    for index in numbers:
        yield sound, finished[index], stream.kind


def _predict_fixed(
    classifier: Any,
    images: Tensor,
    sigma: float,
    n: int,
    alpha: float,
    *,
    noise: str,
    seed: int | None,
    indices: Sequence[int] | None,
    execution: Execution,
) -> list[Prediction]:
    sigma, n = statistics.check_sigma(sigma), statistics.check_whole(n, "n")
    enough = statistics.min_draws(alpha, two_sided=True)
    if n < enough or n > MAX_DRAWS:
        raise ValueError(
            f"`n` must be between {enough} (fewer draws decide nothing at alpha = {alpha}) and {MAX_DRAWS:,}, got {n}."
        )
    pixels = to_unit_pixels(images).to(classifier_device(classifier))
    requests = [Draws(slot, index, 0, n) for slot, index in enumerate(_check_indices(indices, len(pixels)))]
    stream = _stream_for(pixels, noise, sigma, seed)
    with execution.prepare(classifier) as classify:
        counts = count_votes(classify, pixels, requests, stream=stream, execution=execution)
    answers = []
    for votes in counts:
        second, first = np.argsort(votes, kind="stable")[-2:]
        p_value = float(statistics.two_sided_pvalue(votes[first], votes[second]))
        answer = int(first) if p_value <= alpha else ABSTAIN
        counted = tuple(int(v) for v in votes)
        answers.append(Prediction(answer, n, counted, alpha, stream.kind, THREAT_MODELS[stream.kind], p_value))
    return answers


def _stream_for(pixels: Tensor, noise: str, sigma: float, seed: int | None) -> NoiseStream:
    kind = choose_noise(noise, off_grid(pixels))
    return make_stream(kind, seed=fresh_seed(seed), shape=tuple(pixels.shape[1:]), device=pixels.device, sigma=sigma)


def _check_indices(indices: Sequence[int] | None, count: int) -> list[int]:
    numbers = (
        list(range(count)) if indices is None else [statistics.check_whole(index, "indices") for index in indices]
    )
    if len(numbers) != count or len(set(numbers)) != count:
        raise ValueError(
            f"`indices` must be {count} different numbers, one an image, got {len(numbers)}: {numbers[:5]}..."
        )
    return numbers
