"""Drawing for many images in rounds of full batches, on one rank or many."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_smoothing.certification.certificates import Counts, Votes
from hf_smoothing.certification.classifiers import classifier_device
from hf_smoothing.certification.execution import Execution
from hf_smoothing.certification.noise_kinds import NoiseStream
from hf_smoothing.certification.rules import Rule
from hf_smoothing.certification.sampling import count_votes
from hf_smoothing.noise import Draws


class RankError(ConnectionError):
    """Another rank of the run has failed or is gone."""


@dataclass(frozen=True)
class Ranks:
    """The processes that share a run.

    All of them process the same images in the same rounds. Each makes an equal part of a round's draws, and all learn the votes of
    all: so no rank idles while another has work, however unequal the images, and every decision is the same everywhere.

    Args:
        rank, count: Rank of this process and number of processes.
        gather: A list of one object from this process -> those of all, in the order of the ranks.
    """

    rank: int = 0
    count: int = 1
    gather: Callable[[list[Any]], list[Any]] = list

    def exchange(self, work: Callable[[], Any]) -> list[Any]:
        """What `work` gives on each rank; an error of one is raised on all, so that none waits for it forever."""
        if self.count == 1:
            return [work()]
        try:
            mine: Any = work()
            failure = None
        except Exception as error:
            mine, failure = f"{type(error).__name__}: {error}", error
        try:
            everything = self.gather([(failure is None, mine)])
        except RuntimeError as error:
            # The transport's own error, when a process was killed.
            raise (failure or RankError(f"Another rank of this run is gone ({error}).")) from error
        if failure is not None:
            raise failure
        for rank, (fine, result) in enumerate(everything):
            if not fine:
                raise RankError(f"Rank {rank} of this run failed: {result}")
        return [result for _, result in everything]


def vote_in_rounds(
    classifier: Any,
    pending: Iterable[tuple[Votes, Tensor]],
    rule: Rule,
    stream: NoiseStream,
    *,
    execution: Execution | None = None,
    ranks: Ranks | None = None,
    window: int = 64,
    round_seconds: float = 1.0,
) -> Iterator[list[Votes]]:
    """Draw for a sliding window of images in rounds of full batches, until the rule has all it needs of each.

    The window holds as many images as it takes to fill a round's batches; only at the end of the images may a batch be short. A
    round's length adapts to `round_seconds`, since that is what a kill may lose. None of this changes any vote.

    Args:
        classifier, execution: As in `count_votes`.
        pending: Pairs (votes so far, float32 image (channels, height, width) in [0, 1]); read only as far as needed.
        rule: Rule of the run.
        stream: Stream of the noise, on the classifier's device.
        ranks: The processes that share the work; each must be given the same images.
        window: Smallest number of images in work, while there are any; at most eight times as many.
        round_seconds: The time aimed at for one round.

    Yields:
        After each round, the votes that it changed; complete when `rule.wanted(votes)` is `votes.drawn`.
    """
    device = classifier_device(classifier)
    execution, ranks = execution or Execution(), ranks or Ranks()
    full = execution.size_on(device) * ranks.count
    source = iter(pending)
    work: list[tuple[Votes, Tensor]] = []
    wants: dict[int, int] = {}  # how many draws of each current image; asking the rule takes a tenth of a millisecond
    batches, exhausted = 1, False
    with execution.prepare(classifier) as classify:
        while True:
            wanted = sum(wants[votes.index] - votes.drawn for votes, _ in work)
            while not exhausted and (len(work) < window or (wanted < batches * full and len(work) < 8 * window)):
                item = next(source, None)
                exhausted = item is None
                if item is None:
                    break
                if tuple(item[1].shape) != stream.shape:
                    raise ValueError(
                        f"All images must have one size and channel count, got {stream.shape} and, for image {item[0].index}, "
                        f"{tuple(item[1].shape)}. Resize them first."
                    )
                wants[item[0].index] = rule.wanted(item[0])
                if wants[item[0].index] == item[0].drawn:  # its last look was recorded, but not the decision
                    yield [item[0]]
                else:
                    work.append((item[0], item[1].to(device)))
                    wanted += wants[item[0].index] - item[0].drawn
            if not work:
                return
            votes = [item[0] for item in work]
            budget = min(batches * full, max(full, wanted // full * full))
            requests = plan([(item, wants[item.index]) for item in votes], rule.stage_ends, budget)
            counts, seconds = _cast(classify, work, requests, stream, execution, ranks)
            drawn = sum(request.stop - request.start for request in requests)
            for number, (slot, _, start, stop) in enumerate(requests):
                votes[slot].add(counts[number], start, stop, opens_look=start in (0, *rule.stage_ends))
                votes[slot].seconds += seconds * (stop - start) / drawn
            touched = [votes[slot] for slot in sorted({request.slot for request in requests})]
            yield touched
            wants |= {item.index: rule.wanted(item) for item in touched}
            work = [item for item in work if wants[item[0].index] > item[0].drawn]
            if seconds < round_seconds / 2 and drawn == batches * full:
                batches *= 2
            elif seconds > round_seconds * 2:
                batches = max(1, int(batches * round_seconds / seconds))


def plan(votes: Sequence[tuple[Votes, int]], bounds: Sequence[int], budget: int) -> list[Draws]:
    """Requests worth at most `budget` draws, the first images first.

    Args:
        votes: Pairs (votes, number of draws that the rule wants the image to have).
        bounds: Numbers of draws at which a look of the rule ends; a request ends there too.
        budget: Number of draws.
    """
    requests: list[Draws] = []
    for slot, (item, aim) in enumerate(votes):
        wanted = min(aim, item.drawn + budget)
        ends = [end for end in bounds if item.drawn < end < wanted]
        for start, stop in itertools.pairwise([item.drawn, *ends, wanted]):
            if stop > start:
                requests.append(Draws(slot, item.index, start, stop))
        budget -= wanted - item.drawn
        if budget == 0:
            break
    return requests


def _cast(
    classify: Callable[[Tensor], Tensor],
    work: Sequence[tuple[Votes, Tensor]],
    requests: Sequence[Draws],
    stream: NoiseStream,
    execution: Execution,
    ranks: Ranks,
) -> tuple[dict[int, Counts], float]:
    """Make the draws, each rank its part: the votes of each request, and the seconds that the slowest rank took."""
    mine = part_of(requests, ranks.rank, ranks.count)

    seen = [work[request.slot][0].image_sha256 for request in requests]

    def draw() -> tuple[float, list[tuple[int, Counts]], list[str | None]]:
        if not mine:
            return 0.0, [], seen
        slots = sorted({request.slot for _, request in mine})
        images = torch.stack([work[slot][1] for slot in slots])
        began = time.perf_counter()
        asked = [request._replace(slot=slots.index(request.slot)) for _, request in mine]
        counts = count_votes(classify, images, asked, stream=stream, execution=execution)
        rows = [(number, row) for (number, _), row in zip(mine, counts, strict=True)]
        return time.perf_counter() - began, rows, seen

    results = ranks.exchange(draw)
    if any(theirs != seen for _, _, theirs in results):
        raise ValueError(
            "The ranks of this run do not read the same images, so their votes cannot be added. Give every rank the same data set in the "
            "same order, unshuffled or shuffled with one seed."
        )
    sums: dict[int, Counts] = {}
    for _, rows, _ in results:
        for number, row in rows:
            sums[number] = sums[number] + row if number in sums else np.asarray(row)
    return sums, max(seconds for seconds, _, _ in results)


def part_of(requests: Sequence[Draws], rank: int, count: int) -> list[tuple[int, Draws]]:
    """The part of a rank when all requested draws, laid end to end, are cut into `count` equal pieces.

    Returns:
        [(request number, the draws of it that are this rank's), ...].
    """
    total = sum(request.stop - request.start for request in requests)
    first, last = rank * total // count, (rank + 1) * total // count
    mine, position = [], 0
    for number, request in enumerate(requests):
        start = request.start + max(0, first - position)
        stop = min(request.stop, request.start + last - position)
        if start < stop:
            mine.append((number, request._replace(start=start, stop=stop)))
        position += request.stop - request.start
    return mine
