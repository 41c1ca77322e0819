"""Drawing for many images in rounds of full batches."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from hf_smoothing import statistics
from hf_smoothing.certification.rules import FixedRule, Votes
from hf_smoothing.certification.sampling import (
    Draws,
    classifier_device,
    count_votes,
    default_batch_size,
    resolve_classifier,
)
from hf_smoothing.noise import GaussianStream


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


def check_batch_size(batch_size: int | None, device: torch.device) -> int:
    """The batch size to use: the one given, if it is positive, or the device's default."""
    if batch_size is None:
        return default_batch_size(device)
    if statistics.check_whole(batch_size, "batch_size") < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
    return int(batch_size)
