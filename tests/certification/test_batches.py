"""Draws are packed into full batches, and no more images are read than a round needs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_smoothing.certification import (
    Execution,
    FixedRule,
    Pending,
    SequentialRule,
    Votes,
    certify,
    predict,
    vote_in_rounds,
)
from hf_smoothing.noise import GaussianStream
from tests.support.classifiers import Linear, Ranges, Watched, random_images


# Float images on purpose; where that is no purpose, the library warns.
pytestmark = pytest.mark.filterwarnings("ignore:noise_kind='auto' draws float32 noise")


def gaussian(sigma: float = 0.5) -> GaussianStream:
    return GaussianStream(0, (1, 4, 4), sigma=sigma)


@given(st.integers(1, 30), st.integers(1, 40), st.integers(10, 80), st.integers(1, 5))
def test_no_batch_is_larger_than_asked_and_none_but_the_last_is_smaller(count, batch_size, n, window):
    watched = Watched(Ranges())
    rule = FixedRule(sigma=0.5, n0=5, n=n)
    pending = (Pending(Votes(i), image) for i, image in enumerate(random_images(count)))
    execution = Execution(copies_per_batch=batch_size)
    finished = 0
    for touched in vote_in_rounds(watched, pending, rule, gaussian(), execution=execution, window=window):
        finished += sum(rule.wanted(votes) == votes.drawn for votes in touched)
    # Not only within a round: 8 * window images always fill a batch here, so none but the very last is short.
    assert max(watched.sizes) <= batch_size
    assert all(size == batch_size for size in watched.sizes[:-1])
    assert finished == count
    assert sum(watched.sizes) == count * (5 + n)


@given(st.integers(1, 15), st.integers(1, 40), st.integers(1, 3))
def test_batches_of_a_sequential_rule_are_full_until_the_images_end(count, batch_size, window):
    watched = Watched(Linear())
    rule = SequentialRule(sigma=0.5, targets=(0.0, 0.25), n0=5, n=100)
    images, read = random_images(count), []

    def pending():
        for index, image in enumerate(images):
            read.append(index)
            yield Pending(Votes(index), image)

    finished, drawn = 0, {}
    execution = Execution(copies_per_batch=batch_size)
    for touched in vote_in_rounds(watched, pending(), rule, gaussian(), execution=execution, window=window):
        short = [size for size in watched.sizes if size != batch_size]
        assert all(size < batch_size for size in short)
        assert len(short) <= (len(read) == count or len(read) - finished == 8 * window)
        watched.batches.clear()
        finished += sum(rule.wanted(votes) == votes.drawn for votes in touched)
        drawn |= {votes.index: votes.drawn for votes in touched}
    assert finished == count
    certificates = certify(Linear(), images, sigma=0.5, targets=(0.0, 0.25), n0=5, n=100, seed=0)
    assert [drawn[index] for index in range(count)] == [certificate.draws for certificate in certificates]


def test_whole_call_is_packed_into_full_batches():
    for call, options in ((predict, {"n": 33}), (certify, {"n0": 3, "n": 30})):
        watched = Watched(Ranges())
        call(watched, random_images(5), mode="fixed", sigma=0.5, copies_per_batch=20, **options)
        assert watched.sizes == [20] * (5 * 33 // 20) + [5 * 33 % 20]


@pytest.mark.parametrize(
    ("n", "batch_size", "most"),
    [
        (300, 8, 3),  # three images have enough to draw
        (10, 100, 8),  # what is left of one, and seven more
        (10, 1000, 24),  # the limit
    ],
)
def test_no_more_images_are_read_than_fill_a_round(n, batch_size, most):
    rule, window, count, read = FixedRule(sigma=0.5, n0=5, n=n), 3, 50, []

    def pending():
        for index, image in enumerate(random_images(count)):
            read.append(index)
            yield Pending(Votes(index), image)

    rounds = vote_in_rounds(
        Ranges(), pending(), rule, gaussian(), execution=Execution(copies_per_batch=batch_size), window=window,
        round_seconds=0.0,  # so that every round is one batch
    )  # fmt: skip
    left = dict.fromkeys(range(count), 5 + n)
    at_hand = []
    for touched in rounds:
        unfinished = [index for index in left if left[index] > 0]
        needed = next(
            (k for k in range(1, len(unfinished) + 1) if sum(left[index] for index in unfinished[:k]) >= batch_size),
            len(unfinished),
        )
        at_hand.append(sum(left[index] > 0 for index in read))
        assert at_hand[-1] == min(max(needed, window), 8 * window, len(unfinished))
        left |= {votes.index: rule.wanted(votes) - votes.drawn for votes in touched}
    assert max(at_hand) == most
    assert set(left.values()) == {0}
