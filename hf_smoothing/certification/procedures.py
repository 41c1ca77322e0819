"""PREDICT and CERTIFY of randomized smoothing, for many images at once.

Source: Cohen, Rosenfeld & Kolter (2019), arXiv 1902.02918, section 3.2; sequential rules as in `SequentialRule`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np
from torch import Tensor

from hf_smoothing import statistics
from hf_smoothing.certification.behaviour import check_one_image
from hf_smoothing.certification.certificates import Certificate, Pending, Votes
from hf_smoothing.certification.classifiers import ResolvedClassifier, resolve_classifier
from hf_smoothing.certification.execution import Execution
from hf_smoothing.certification.images import whole_numbers
from hf_smoothing.certification.noise_kinds import THREAT_MODELS, NoiseStream, choose_noise, make_stream, off_grid
from hf_smoothing.certification.options import (
    CertifyOptions,
    ExecutionOptions,
    PredictOptions,
    RuleOptions,
    documented,
    filled,
    options_in,
)
from hf_smoothing.certification.rounds import vote_in_rounds
from hf_smoothing.certification.rules import Rule, SequentialRule, make_rule, rule_on
from hf_smoothing.certification.sampling import count_votes
from hf_smoothing.keywords import SIGMA, needs
from hf_smoothing.noise import MAX_DRAWS, Draws, fresh_seed
from hf_smoothing.pixels import is_faint, to_unit_pixels, warn_faint
from hf_smoothing.statistics import ABSTAIN
from hf_smoothing.types import Classifier


@dataclass(frozen=True)
class Prediction:
    """The smoothed classifier's answer without a radius; wrong with probability at most `alpha`.

    Attributes:
        prediction: Class, or `ABSTAIN` (-1).
        draws: Number of noisy copies classified.
        counts: Number of votes of each class.
        alpha: Failure probability.
        noise_kind, threat_model: As in `Certificate`.
        p_value: P-value of the test that the top two classes are equally likely, after a fixed number of draws; None
            after a sequential one.
    """

    prediction: int
    draws: int
    counts: tuple[int, ...]
    alpha: float
    noise_kind: str
    threat_model: str
    p_value: float | None = None


@needs(sigma=SIGMA)
@documented(CertifyOptions)
def certify(
    classifier: Classifier,
    images: Tensor,
    *,
    sigma: float,
    seed: int | None = None,
    indices: Sequence[int] | None = None,
    **options: Unpack[CertifyOptions],
) -> list[Certificate]:
    """Certify each image: with probability at least 1 - alpha its certificate is true.

    Args:
        classifier: A callable (batch, channels, height, width) -> (batch, num_labels), or an object with `classify`.
        images: Images (batch, channels, height, width), uint8 or float in [0, 1], at the certified resolution.
        sigma: Noise standard deviation in [0, 1] pixel units.
        seed: Seed of the noise, for reproducible measurements. Without one, fresh entropy is used, as a deployed service should.
        indices: Numbers of the images within a run, which with the seed decide the noise; 0, 1, ... by default.
        {options}

    Raises:
        ValueError, TypeError: On pixels that are not in [0, 1], a model in train mode, too few draws, nan logits.

    Source: arXiv 1902.02918, CERTIFY.
    """
    complete = filled(CertifyOptions, options)
    rule = make_rule(sigma, **options_in(RuleOptions, complete))
    batch = _prepared(classifier, images, rule.sigma, seed, indices, complete)
    sound = rule_on(rule, batch.stream, chosen=complete["targets"] is not None)
    kind = batch.stream.kind
    return [
        replace(sound.decide(votes), noise_kind=kind, threat_model=THREAT_MODELS[kind])
        for votes in _finished(batch, sound)
    ]


@needs(sigma=SIGMA)
@documented(PredictOptions)
def predict(
    classifier: Classifier,
    images: Tensor,
    *,
    sigma: float,
    seed: int | None = None,
    indices: Sequence[int] | None = None,
    **options: Unpack[PredictOptions],
) -> list[Prediction]:
    """Answer with the smoothed classifier, or abstain; an answer is wrong with probability at most alpha.

    Args:
        classifier, images, sigma, seed, indices: As in `certify`.
        {options}

    Raises:
        ValueError, TypeError: As `certify`.

    Source: `SequentialRule` with target 0 and no selection; or arXiv 1902.02918, PREDICT and Proposition 1.
    """
    complete = filled(PredictOptions, options)
    if complete["mode"] == "fixed":
        n = _check_draws(complete["n"], complete["alpha"])
        batch = _prepared(classifier, images, statistics.check_sigma(sigma), seed, indices, complete)
        return _predict_fixed(batch, n, complete["alpha"])
    rule = SequentialRule(sigma, (0.0,), n0=0, n=complete["n"], alpha=complete["alpha"])
    batch = _prepared(classifier, images, rule.sigma, seed, indices, complete)
    return _predict_sequential(batch, rule_on(rule, batch.stream, chosen=True))


@dataclass(frozen=True)
class _Batch:
    """Images of a call on the device of the classifier, with their numbers, the noise, and how the network is run."""

    classifier: ResolvedClassifier
    pixels: Tensor
    numbers: list[int]
    stream: NoiseStream
    execution: Execution


def _prepared(
    classifier: Classifier,
    images: Tensor,
    sigma: float,
    seed: int | None,
    indices: Sequence[int] | None,
    complete: Mapping[str, Any],
) -> _Batch:
    execution = Execution(**options_in(ExecutionOptions, complete))
    resolved = resolve_classifier(classifier)
    pixels = to_unit_pixels(images)
    if is_faint(pixels):
        warn_faint("images", stacklevel=4)
    numbers = _check_indices(indices, len(pixels))
    check_one_image(resolved, tuple(pixels.shape[1:]), execution)
    pixels = pixels.to(resolved.device)
    kind = choose_noise(complete["noise_kind"], off_grid(pixels))
    stream = make_stream(kind, seed=fresh_seed(seed), shape=tuple(pixels.shape[1:]), device=pixels.device, sigma=sigma)
    return _Batch(resolved, pixels, numbers, stream, execution)


def _finished(batch: _Batch, rule: Rule) -> Iterator[Votes]:
    """The votes of each image, in order, when the rule needs no more."""
    pending = (Pending(Votes(index), image) for index, image in zip(batch.numbers, batch.pixels, strict=True))
    finished: dict[int, Votes] = {}
    for touched in vote_in_rounds(batch.classifier, pending, rule, batch.stream, execution=batch.execution):
        finished |= {votes.index: votes for votes in touched if rule.wanted(votes) == votes.drawn}
    return (finished[index] for index in batch.numbers)


def _predict_sequential(batch: _Batch, rule: Rule) -> list[Prediction]:
    kind = batch.stream.kind
    answers = []
    for votes in _finished(batch, rule):
        counts = tuple(int(count) for count in np.sum(votes.counts_by_look, axis=0))
        answer = rule.decide(votes).prediction
        answers.append(Prediction(answer, votes.drawn, counts, rule.alpha, kind, THREAT_MODELS[kind]))
    return answers


def _check_draws(n: Any, alpha: float) -> int:
    """The number of draws of a prediction by a fixed number.

    Raises:
        ValueError: If they can decide nothing, or are too many.
    """
    draws, enough = statistics.check_whole(n, "n"), statistics.min_draws(alpha, two_sided=True)
    if draws < enough or draws > MAX_DRAWS:
        raise ValueError(
            f"`n` must be between {enough} (fewer draws decide nothing at alpha = {alpha}) and {MAX_DRAWS:,}, got {draws}."
        )
    return draws


def _predict_fixed(batch: _Batch, n: int, alpha: float) -> list[Prediction]:
    kind = batch.stream.kind
    requests = [Draws(slot, index, 0, n) for slot, index in enumerate(batch.numbers)]
    with batch.execution.prepare(batch.classifier) as classify:
        counts = count_votes(classify, batch.pixels, requests, stream=batch.stream, execution=batch.execution)
    answers = []
    for votes in counts:
        second, first = np.argsort(votes, kind="stable")[-2:]
        p_value = float(statistics.two_sided_pvalue(votes[first], votes[second]))
        answer = int(first) if p_value <= alpha else ABSTAIN
        answers.append(Prediction(answer, n, tuple(int(v) for v in votes), alpha, kind, THREAT_MODELS[kind], p_value))
    return answers


def _check_indices(indices: Sequence[int] | None, count: int) -> list[int]:
    numbers = list(range(count)) if indices is None else whole_numbers(indices)
    if len(numbers) != count or len(set(numbers)) != count:
        shown = f"{numbers[:5]}, ..." if len(numbers) > 5 else numbers
        raise ValueError(f"`indices` must be {count} different numbers, one per image, got {len(numbers)}: {shown}.")
    return numbers
