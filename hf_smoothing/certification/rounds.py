"""Drawing for many images in rounds of full batches, on one rank or many."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hf_smoothing.certification.alike import other_images
from hf_smoothing.certification.certificates import Counts, Pending, Votes
from hf_smoothing.certification.classes import check_class
from hf_smoothing.certification.classifiers import resolve_classifier
from hf_smoothing.certification.execution import Execution
from hf_smoothing.certification.images import Seen
from hf_smoothing.certification.noise_kinds import NoiseStream
from hf_smoothing.certification.ranks import Ranks, share_of
from hf_smoothing.certification.rules import Rule
from hf_smoothing.certification.sampling import count_votes
from hf_smoothing.noise import Draws
from hf_smoothing.types import Classifier


def vote_in_rounds(
    classifier: Classifier,
    pending: Iterable[Pending],
    rule: Rule,
    stream: NoiseStream,
    *,
    execution: Execution | None = None,
    ranks: Ranks | None = None,
    classes: int | None = None,
    trouble: Callable[[], str] = str,
    window: int = 64,
    round_seconds: float = 1.0,
) -> Generator[list[Votes], None, None]:
    """Draw for a sliding window of images in rounds of full batches, until the rule has all it needs of each.

    The window holds as many images as it takes to fill a round's batches; only at the end of the images may a batch be short. A
    round's length adapts to `round_seconds`, since that is what a kill may lose. None of this changes any vote.

    Args:
        classifier, execution: As in `count_votes`.
        pending: The images; read only as far as needed.
        rule: Rule of the run.
        stream: Stream of the noise, on the classifier's device.
        classes: Number of classes of the classifier, with which labels are compared; None where it is not known.
        ranks: The processes that share the work; each must be given the same images.
        trouble: As in `other_images`: asked where the images of the ranks differ.
        window: Smallest number of images in work, while there are any; at most eight times as many.
        round_seconds: The time aimed at for one round.

    Raises:
        ValueError: Before any draw for an image of another size, or with a label beyond the classes.

    Yields:
        After each round, the votes that it changed; complete when `rule.wanted(votes)` is `votes.drawn`.
    """
    resolved = resolve_classifier(classifier)
    execution, ranks = execution or Execution(), ranks or Ranks()
    full = execution.size_on(resolved.device) * ranks.count
    work = _Window(iter(pending), rule, stream.shape, resolved.device, window, classes)
    batches = 1
    with execution.prepare(resolved) as prepared:
        while True:
            for votes in work.fill(batches * full):
                yield [votes]
            if not work.images and ranks.count == 1:
                return
            budget = min(batches * full, max(full, work.wanted() // full * full))
            requests = requests_of_round(work.images, rule.stage_ends, budget)
            drawn = draw_round(prepared, work.images, requests, stream, execution, ranks, trouble)
            if not requests:  # on any rank
                return
            yield _add_votes(work.images, requests, drawn, rule.stage_ends)
            work.let_go(requests)
            batches = _next_batches(
                batches, drawn.seconds, round_seconds, full_round=_total(requests) == batches * full
            )


@dataclass
class Undecided:
    """An image in work.

    Attributes:
        votes: Votes cast so far.
        image: Its pixels, on the device of the noise.
        aim: Number of draws that the rule wants it to have; kept, since asking the rule takes a tenth of a millisecond.
    """

    votes: Votes
    image: Tensor
    aim: int

    @property
    def wanted(self) -> int:
        """Number of draws to make."""
        return self.aim - self.votes.drawn


@dataclass
class _Window:
    """The images in work, in order."""

    source: Iterator[Pending]
    rule: Rule
    shape: tuple[int, ...]
    device: torch.device
    smallest: int
    classes: int | None
    images: list[Undecided] = field(default_factory=list)

    def wanted(self) -> int:
        return sum(item.wanted for item in self.images)

    def fill(self, draws: int) -> Iterator[Votes]:
        """Take in images until there are enough, and `draws` to make; those that are decided already are yielded."""
        wanted = self.wanted()
        while len(self.images) < self.smallest or (wanted < draws and len(self.images) < 8 * self.smallest):
            item = next(self.source, None)
            if item is None:
                return
            votes, image = item
            check_class(votes.label, votes.index, self.classes)
            if tuple(image.shape) != self.shape:
                raise ValueError(
                    f"All images must have one size and channel count, got {self.shape} and, for image {votes.index}, "
                    f"{tuple(image.shape)}. Resize them first."
                )
            aim = self.rule.wanted(votes)
            if aim == votes.drawn:  # its last look was recorded, but not the decision
                yield votes
            else:
                self.images.append(Undecided(votes, image.to(self.device), aim))
                wanted += self.images[-1].wanted

    def let_go(self, requests: Sequence[Draws]) -> None:
        """Ask the rule about the images that were drawn for, and drop those of which it needs no more."""
        for slot in _slots(requests):
            self.images[slot].aim = self.rule.wanted(self.images[slot].votes)
        self.images = [item for item in self.images if item.wanted > 0]


def requests_of_round(images: Sequence[Undecided], stage_ends: Sequence[int], budget: int) -> list[Draws]:
    """What to draw in a round: at most `budget` draws, for the first images first.

    Args:
        images: Images in work.
        stage_ends: Numbers of draws at which a look of the rule ends; a request ends there too.
        budget: Number of draws.
    """
    requests: list[Draws] = []
    for slot, item in enumerate(images):
        drawn = item.votes.drawn
        aim = min(item.aim, drawn + budget)
        ends = [end for end in stage_ends if drawn < end < aim]
        for start, stop in itertools.pairwise([drawn, *ends, aim]):
            if stop > start:
                requests.append(Draws(slot, item.votes.index, start, stop))
        budget -= aim - drawn
        if budget == 0:
            break
    return requests


class RoundCounts(NamedTuple):
    """What a round has drawn.

    Attributes:
        counts: Votes of each request.
        seconds: Time that the slowest rank took.
    """

    counts: list[Counts]
    seconds: float


class _Part(NamedTuple):
    """What one rank has drawn in a round: counts by request number, and which draws of which images were to be made."""

    counts: dict[int, Counts]
    seconds: float
    asked: list[str]


def draw_round(
    classifier: Classifier,
    images: Sequence[Undecided],
    requests: Sequence[Draws],
    stream: NoiseStream,
    execution: Execution,
    ranks: Ranks,
    trouble: Callable[[], str] = str,
) -> RoundCounts:
    """Make the draws of a round, each rank its share; a rank without images takes part, since others may have some.

    Raises:
        RankError: If another rank has failed.
        ValueError: If the ranks read different images, and as `count_votes`.
    """
    shares = share_of(requests, ranks.rank, ranks.count)
    votes = [images[request.slot].votes for request in requests]
    asked = [
        f"{one.index} {one.image_sha256} {one.label} {request.start} {request.stop}"
        for one, request in zip(votes, requests, strict=True)
    ]

    def draw() -> _Part:
        if not shares:
            return _Part({}, 0.0, asked)
        slots = _slots([share.draws for share in shares])
        pixels = torch.stack([images[slot].image for slot in slots])
        began = time.perf_counter()
        mine = [share.draws._replace(slot=slots.index(share.draws.slot)) for share in shares]
        counts = count_votes(classifier, pixels, mine, stream=stream, execution=execution)
        by_request = {share.request: row for share, row in zip(shares, counts, strict=True)}
        return _Part(by_request, time.perf_counter() - began, asked)

    parts = ranks.exchange(draw)
    if any(part.asked != parts[0].asked for part in parts):
        seen = {one.index: Seen(str(one.image_sha256), one.label) for one in votes}
        raise other_images(ranks, seen, trouble)
    counts = [
        np.sum([part.counts[number] for part in parts if number in part.counts], axis=0)
        for number in range(len(requests))
    ]
    return RoundCounts(counts, max(part.seconds for part in parts))


def _add_votes(
    images: Sequence[Undecided], requests: Sequence[Draws], drawn: RoundCounts, stage_ends: Sequence[int]
) -> list[Votes]:
    """Add what was drawn to the votes; returns those that have changed."""
    total = _total(requests)
    for request, counts in zip(requests, drawn.counts, strict=True):
        votes = images[request.slot].votes
        votes.add(counts, request.start, request.stop, opens_look=request.start in (0, *stage_ends))
        votes.seconds += drawn.seconds * (request.stop - request.start) / total
    return [images[slot].votes for slot in _slots(requests)]


def _next_batches(batches: int, seconds: float, aim: float, full_round: bool) -> int:
    """How many batches the next round has, so that it takes about `aim` seconds."""
    if seconds < aim / 2 and full_round:
        return 2 * batches
    return max(1, int(batches * aim / seconds)) if seconds > 2 * aim else batches


def _total(requests: Sequence[Draws]) -> int:
    return sum(request.stop - request.start for request in requests)


def _slots(requests: Sequence[Draws]) -> list[int]:
    return sorted({request.slot for request in requests})
