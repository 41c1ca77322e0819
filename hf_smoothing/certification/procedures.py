"""PREDICT and CERTIFY of randomized smoothing with a fixed number of draws, for many images at once.

Source: Cohen, Rosenfeld & Kolter (2019), arXiv 1902.02918, section 3.2.
"""

from __future__ import annotations

import itertools
import operator
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_smoothing import statistics
from hf_smoothing.certification.sampling import (
    Draws,
    classifier_device,
    count_votes,
    default_batch_size,
    resolve_classifier,
)
from hf_smoothing.noise import MAX_DRAWS, GaussianStream, fresh_seed
from hf_smoothing.pixels import to_unit_pixels
from hf_smoothing.statistics import ABSTAIN


Counts = NDArray[np.int64]


@dataclass(frozen=True)
class FixedRule:
    """CERTIFY with `n0` selection and `n` estimation draws, fixed before the first one.

    Guarantee: the certificate of an image is wrong with probability at most `alpha` over its draws, whatever the classifier.

    Args:
        sigma: noise standard deviation in [0, 1] pixel units.
        n0: draws that choose the class.
        n: fresh draws that estimate its probability.
        alpha: failure probability of one certificate.

    Raises:
        ValueError: if `n` draws can decide nothing at `alpha`, or any argument is out of its range.

    Source: arXiv 1902.02918, CERTIFY, Theorem 1 and Proposition 2; one-sided bound.
    """

    sigma: float
    n0: int = 100
    n: int = 100_000
    alpha: float = 0.001

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", statistics.check_sigma(self.sigma))
        object.__setattr__(self, "alpha", statistics.check_alpha(self.alpha))
        object.__setattr__(self, "n", check_whole(self.n, "n"))
        object.__setattr__(self, "n0", check_whole(self.n0, "n0"))
        enough = statistics.min_draws(self.alpha)
        if self.n < enough:
            raise ValueError(
                f"`n` must be at least {enough} to certify anything at alpha = {self.alpha}, got {self.n}: even unanimous "
                "votes would abstain."
            )
        if self.n0 < 1:
            raise ValueError(f"`n0` must be at least 1 to choose a class, got {self.n0}.")
        if self.n0 + self.n > MAX_DRAWS:
            raise ValueError(f"`n0` + `n` must be at most {MAX_DRAWS:,}, got {self.n0 + self.n:,}.")

    def segments(self, drawn: int) -> list[tuple[int, int]]:
        """The draws still to make after the first `drawn`, cut at the looks."""
        bounds = [0, self.n0, self.n0 + self.n]
        return [(max(a, drawn), b) for a, b in itertools.pairwise(bounds) if b > drawn]

    def decide(self, votes: Votes) -> Certificate:
        """The certificate from a complete set of votes."""
        selection, estimation = votes.looks
        top = int(selection.argmax())
        p_lower = float(statistics.lower_bound(estimation[top], self.n, self.alpha))
        certified = p_lower > 0.5
        return Certificate(
            index=votes.index,
            prediction=top if certified else ABSTAIN,
            radius=float(statistics.l2_radius(p_lower, self.sigma)) if certified else 0.0,
            p_lower=p_lower,
            sigma=self.sigma,
            alpha=self.alpha,
            draws=votes.drawn,
            looks=tuple(tuple(int(x) for x in look) for look in votes.looks),
            label=votes.label,
            seconds=votes.seconds,
        )

    def to_dict(self) -> dict[str, Any]:
        """The settings that decide a run's result."""
        return {"rule": {"name": "fixed-n", "n0": self.n0, "n": self.n}, "sigma": self.sigma, "alpha": self.alpha}


@dataclass
class Votes:
    """The votes of one image so far.

    Attributes:
        index: of the image within the run.
        label: true class if known; it never influences a certificate.
        looks: counts of each look, int64 (num_labels,) each: selection and estimation.
        drawn: number of draws made.
        seconds: spent on them.
    """

    index: int
    label: int | None = None
    looks: list[Counts] = field(default_factory=list)
    drawn: int = 0
    seconds: float = 0.0

    def add(self, counts: Counts, start: int, stop: int, first_of_look: bool) -> None:
        """Add the counts of draws `start` to `stop` - 1, which must continue those made so far."""
        if start != self.drawn:
            raise ValueError(f"Draws of image {self.index} must continue at {self.drawn}, got draws from {start}.")
        if first_of_look:
            self.looks.append(counts.copy())
        else:
            self.looks[-1] += counts
        self.drawn = stop


@dataclass(frozen=True)
class Certificate:
    """What is guaranteed about one image: within `radius` in l2, the smoothed classifier answers `prediction`.

    Attributes:
        index: of the image within its run.
        prediction: class, or `ABSTAIN` (-1).
        radius: l2 radius in [0, 1] pixel units, 0.0 on abstention.
        p_lower: lower confidence bound of the predicted class's probability under noise.
        sigma, alpha: noise level and failure probability.
        draws: number of noisy copies classified.
        looks: votes of each class at each look: selection, then estimation.
        label: true class if known.
        seconds: spent on this image.
    """

    index: int
    prediction: int
    radius: float
    p_lower: float
    sigma: float
    alpha: float
    draws: int
    looks: tuple[tuple[int, ...], ...]
    label: int | None = None
    seconds: float = 0.0

    @property
    def abstained(self) -> bool:
        """True if nothing is claimed."""
        return self.prediction == ABSTAIN


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
    dtype: str = "float32",
) -> list[Prediction]:
    """Answer with the smoothed classifier, or abstain; an answer is wrong with probability at most alpha.

    Args:
        classifier, images, sigma, alpha, batch_size, seed, dtype: as in `certify`.
        n: draws an image.

    Raises:
        ValueError, TypeError: as `certify`.

    Source: arXiv 1902.02918, PREDICT and Proposition 1.
    """
    sigma, n = statistics.check_sigma(sigma), check_whole(n, "n")
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
        [Draws(slot, slot, 0, n) for slot in range(len(pixels))],
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


def vote_in_rounds(
    classifier: Any,
    pending: Iterable[tuple[Votes, Tensor]],
    rule: FixedRule,
    *,
    seed: int,
    batch_size: int | None = None,
    dtype: str = "float32",
    window: int = 64,
    round_seconds: float = 1.0,
) -> Iterator[list[Votes]]:
    """Draw for a sliding window of images in rounds of full batches, until the rule has all it wants of each.

    A round's length adapts to `round_seconds`, since that is what a kill may lose. It does not change any vote.

    Args:
        classifier, rule, seed, batch_size, dtype: as in `certify`.
        pending: (votes so far, float32 image (channels, height, width) in [0, 1]); read only as far as needed.
        window: images at hand at once.
        round_seconds: the time aimed at for one round.

    Yields:
        after each round, the votes that it changed; complete when `rule.segments(votes.drawn)` is empty.
    """
    resolve_classifier(classifier)
    device = classifier_device(classifier)
    size = check_batch_size(batch_size, device)
    source = iter(pending)
    work: list[tuple[Votes, Tensor]] = []
    stream: GaussianStream | None = None
    batches = 1
    while True:
        for item in itertools.islice(source, window - len(work)):
            work.append((item[0], item[1].to(device)))
        if not work:
            return
        shapes = {tuple(image.shape) for _, image in work} | ({stream.shape} if stream else set())
        if len(shapes) > 1:
            raise ValueError(
                f"All images must have one size and channel count, got {sorted(shapes)}. Resize them first."
            )
        votes = [item[0] for item in work]
        images = torch.stack([item[1] for item in work])
        stream = stream or GaussianStream(seed, tuple(images.shape[1:]), device)
        requests, firsts = _plan(votes, rule, budget=batches * size)
        began = time.perf_counter()
        counts = count_votes(
            classifier, images, requests, sigma=rule.sigma, stream=stream, batch_size=size, dtype=dtype
        )
        seconds = time.perf_counter() - began
        drawn = sum(request.stop - request.start for request in requests)
        for request, first, row in zip(requests, firsts, counts, strict=True):
            votes[request.slot].add(row, request.start, request.stop, first)
            votes[request.slot].seconds += seconds * (request.stop - request.start) / drawn
        yield [votes[slot] for slot in sorted({request.slot for request in requests})]
        work = [item for item in work if rule.segments(item[0].drawn)]
        if seconds < round_seconds / 2:
            batches *= 2
        elif seconds > round_seconds * 2 and batches > 1:
            batches //= 2


def _plan(votes: Sequence[Votes], rule: FixedRule, budget: int) -> tuple[list[Draws], list[bool]]:
    """Requests worth `budget` draws, the first images first, and whether each opens a look."""
    starts = {start for start, _ in rule.segments(0)}
    requests: list[Draws] = []
    firsts: list[bool] = []
    for slot, item in enumerate(votes):
        for start, stop in rule.segments(item.drawn):
            if budget == 0:
                return requests, firsts
            take = min(stop - start, budget)
            budget -= take
            requests.append(Draws(slot, item.index, start, start + take))
            firsts.append(start in starts)
            if take < stop - start:
                break
    return requests, firsts


def check_whole(value: Any, name: str) -> int:
    """Return `value` as an int if it is a whole number of a whole type: counts must not be rounded silently.

    Raises:
        ValueError: otherwise.
    """
    try:
        return operator.index(value)
    except TypeError as error:
        raise ValueError(f"`{name}` must be a whole number, got {value!r}. Write 100_000, not 1e5.") from error


def _check_indices(indices: Sequence[int] | None, count: int) -> list[int]:
    numbers = list(range(count)) if indices is None else [check_whole(index, "indices") for index in indices]
    if len(numbers) != count or len(set(numbers)) != count:
        raise ValueError(
            f"`indices` must be {count} different numbers, one an image, got {len(numbers)}: {numbers[:5]}..."
        )
    return numbers


def check_batch_size(batch_size: int | None, device: torch.device) -> int:
    """The batch size to use: the one given, if it is positive, or the device's default."""
    if batch_size is None:
        return default_batch_size(device)
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
    return int(batch_size)
