"""Rounds are planned within their budget and cut into equal parts, and an error of one rank is an error of all."""

from __future__ import annotations

import functools
import itertools
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from hf_smoothing.certification import ranks as ranks_module
from hf_smoothing.certification import rounds
from hf_smoothing.certification.certificates import Pending, Votes
from hf_smoothing.certification.noise_kinds import make_stream
from hf_smoothing.certification.ranks import RankError, Ranks, share_of
from hf_smoothing.certification.rounds import RoundCounts, Undecided, requests_of_round
from hf_smoothing.certification.rules import make_rule
from hf_smoothing.certification.sampling import Draws
from tests.support.classifiers import Linear


# --- Requests and shares -------------------------------------------------------------------------------------------------


def total(requests) -> int:
    return sum(request.stop - request.start for request in requests)


@st.composite
def any_requests(draw):
    lengths = draw(st.lists(st.integers(1, 200), min_size=1, max_size=12))
    starts = draw(st.lists(st.integers(0, 1000), min_size=len(lengths), max_size=len(lengths)))
    return [
        Draws(slot, 100 + slot, start, start + length)
        for slot, (start, length) in enumerate(zip(starts, lengths, strict=True))
    ]


@given(any_requests(), st.integers(1, 9))
def test_parts_are_equal_contiguous_and_cover_every_draw_once(requests, count):
    laid = [(number, draw) for number, request in enumerate(requests) for draw in range(request.start, request.stop)]
    parts = [share_of(requests, rank, count) for rank in range(count)]
    for part in parts:
        for number, request in part:
            assert (request.slot, request.image) == (requests[number].slot, requests[number].image)
            assert request.start < request.stop
    made = [
        [(number, draw) for number, request in part for draw in range(request.start, request.stop)] for part in parts
    ]
    assert list(itertools.chain(*made)) == laid  # in order, so each part is a contiguous piece
    sizes = [len(piece) for piece in made]
    assert max(sizes) - min(sizes) <= 1


def votes_with(rule, drawn_: int, index: int, label: int | None = None) -> Votes:
    """Votes for class 0 and 1 in turns: nothing is certified, nothing is given up early."""
    votes = Votes(index, label)
    edges = [0, *[bound for bound in rule.stage_ends if bound < drawn_], drawn_]
    for start, stop in itertools.pairwise(edges):
        if stop > start:
            votes.add(np.array([(stop - start + 1) // 2, (stop - start) // 2]), start, stop, opens_look=True)
    return votes


@functools.cache
def rule_of(kind: str):
    if kind == "fixed":
        return make_rule(0.5, mode="fixed", n0=10, n=300)
    return make_rule(0.5, targets=[0.0, 0.25], n0=10 if kind == "sequential" else 0, n=400)


@example("fixed", [0], 11)
@example("fixed", [9, 0], 10)
@given(
    st.sampled_from(["fixed", "sequential", "n0=0"]),
    st.lists(st.integers(0, 300), min_size=1, max_size=8),
    st.integers(1, 900),
)
def test_the_requests_of_a_round_keep_to_the_budget_and_to_the_looks(kind, counts, budget):
    rule = rule_of(kind)
    votes = [votes_with(rule, drawn_, 7 * slot) for slot, drawn_ in enumerate(counts)]
    wanted = [rule.wanted(item) - item.drawn for item in votes]
    images = [Undecided(item, torch.zeros(1, 2, 2), rule.wanted(item)) for item in votes]
    requests = requests_of_round(images, rule.stage_ends, budget)
    assert total(requests) == min(budget, sum(wanted))
    assert [request.slot for request in requests] == sorted(request.slot for request in requests), (
        "the first images first"
    )
    for slot, item in enumerate(votes):
        mine = [request for request in requests if request.slot == slot]
        assert {request.image for request in mine} <= {item.index}
        position = item.drawn
        for request in mine:
            assert request.start == position < request.stop
            assert not any(request.start < bound < request.stop for bound in rule.stage_ends), (
                "no request may span a look"
            )
            position = request.stop
        assert position <= rule.wanted(item)
        if position < rule.wanted(item):
            assert not [request for request in requests if request.slot > slot], (
                "a later image before an unfinished one"
            )


# --- Errors of one are errors of all ---------------------------------------------------------------------------------


def exchange_on_all(works, count=3):
    """`Ranks.exchange` on every rank with a transport that has already seen what each sends."""
    sent = []
    for work in works:

        def keep(mine):
            sent.append(mine[0])
            raise RuntimeError("first pass")

        with pytest.raises((ConnectionError, ValueError)):
            Ranks(0, count, keep).exchange(work)
    outcomes = []
    for rank, work in enumerate(works):
        try:
            outcomes.append(Ranks(rank, count, lambda mine: sent).exchange(work))
        except Exception as error:
            outcomes.append(error)
    return outcomes


def test_all_learn_what_each_found():
    assert exchange_on_all([lambda: "a", lambda: "b", lambda: "c"]) == [["a", "b", "c"]] * 3


def test_an_error_of_one_rank_is_raised_on_all():
    def broken():
        raise ValueError("bad pixels")

    first, second, third = exchange_on_all([lambda: 1, broken, lambda: 3])
    assert isinstance(second, ValueError) and str(second) == "bad pixels"
    for other in (first, third):
        assert isinstance(other, RankError)
        assert str(other) == "Rank 1 of this run failed: ValueError: bad pixels"


def test_an_error_of_the_transport_is_a_rank_error():
    def lost(mine):
        raise RuntimeError("Connection closed by peer [127.0.0.1]:4711")

    with pytest.raises(RankError, match="Another rank of this run is gone .*Connection closed by peer") as error:
        Ranks(0, 2, lost).exchange(lambda: 1)
    assert isinstance(error.value, OSError), "so that the command line explains it"

    def broken():
        raise ValueError("my own error comes first")

    with pytest.raises(ValueError, match="my own error comes first"):
        Ranks(0, 2, lost).exchange(broken)


def test_what_one_rank_says_at_its_end_is_said_once():
    """Whatever it raises after an exchange that failed is known to the others already: they are in their next run."""
    sent = []

    def other_has_failed(mine):
        sent.append(mine)
        return [*mine, (False, "OSError: disk")]

    def run(ranks):
        with ranks.together():
            try:
                ranks.wait()
            except RankError as error:
                raise ValueError("said otherwise") from error

    with pytest.raises(ValueError, match="said otherwise"):
        run(Ranks(0, 2, other_has_failed))
    assert sent == [[(True, None)]]


def test_an_error_outside_an_exchange_reaches_the_others_in_one():
    sent = []

    def other_is_well(mine):
        sent.append(mine)
        return [*mine, (True, None)]

    def run(ranks):
        with ranks.together():
            ranks.wait()
            raise ValueError("an error of its own")

    with pytest.raises(ValueError, match="an error of its own"):
        run(Ranks(0, 2, other_is_well))
    assert sent == [[(True, None)], [(False, "ValueError: an error of its own")]]


def test_a_rank_that_waits_to_tell_its_error_says_so(monkeypatch, caplog):
    monkeypatch.setattr(ranks_module, "NOTICE_SECONDS", 0.01)
    ranks = Ranks(1, 2, lambda mine: time.sleep(0.3) or [(True, None), *mine])
    with pytest.raises(OSError, match="disk"), ranks.together():
        raise OSError("disk")
    assert "Rank 1 of this run failed, and waits to tell the others: OSError: disk" in caplog.text


def test_an_interruption_is_not_passed_on():
    with pytest.raises(KeyboardInterrupt), Ranks(0, 2, lambda mine: pytest.fail("told")).together():
        raise KeyboardInterrupt


@pytest.mark.parametrize("names", [("WORLD_SIZE",), ("WORLD_SIZE", "LOCAL_RANK")])
def test_a_state_of_one_process_among_several_is_refused(monkeypatch, names):
    for name in names:
        monkeypatch.setenv(name, "2")
    monkeypatch.setattr(ranks_module, "PartialState", lambda **_: SimpleNamespace(num_processes=1))
    if len(names) == 1:  # a cluster's own variable
        assert ranks_module.process_state().num_processes == 1
        return
    with pytest.raises(ValueError, match=r"one of 2 that a launcher has started.*ACCELERATE_USE_CPU=true"):
        ranks_module.process_state()


def test_one_rank_needs_no_transport():
    def unused(mine):
        raise AssertionError

    assert Ranks(0, 1, unused).exchange(lambda: 5) == [5]


def test_no_round_is_much_longer_than_aimed_at(monkeypatch):
    # A fast network: first many images that are soon decided, whose rounds are short without further draws, then hard ones.
    speed, easy, hard, lengths = 200_000.0, 3000, 600, []

    def drawn_at_once(classifier, images, requests, *others):
        lengths.append(total(requests) / speed)
        counts = []
        for request in requests:
            draws = request.stop - request.start
            against = 0 if request.image < easy else int(np.round(0.3085 * draws))
            counts.append(np.array([draws - against, against]))
        return RoundCounts(counts, lengths[-1])

    monkeypatch.setattr(rounds, "draw_round", drawn_at_once)
    stream = make_stream("grid", seed=0, shape=(1, 2, 2), device=torch.device("cpu"), sigma=0.5)
    pending = (Pending(Votes(index), torch.zeros(1, 2, 2)) for index in range(easy + hard))
    for _ in rounds.vote_in_rounds(Linear((1, 2, 2)), pending, make_rule(0.5, n=100_000), stream, round_seconds=1.0):
        pass
    assert max(lengths) < 4.0, "a kill loses what one round has drawn"
