"""Ranks share every round in equal parts, fail together, and leave the rows of a run on one.

Started as a script by torchrun, this file is what a rank does; see `worker`.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from hf_smoothing.certification import certify_dataset, rounds
from hf_smoothing.certification.certificates import Votes
from hf_smoothing.certification.noise_kinds import make_stream
from hf_smoothing.certification.rounds import RankError, Ranks, part_of, plan
from hf_smoothing.certification.rules import make_rule
from hf_smoothing.certification.sampling import Draws
from hf_smoothing.records import read_run
from tests.support.classifiers import Failing, Linear, results
from tests.support.processes import run_ranks


RUN = {
    "sigma": 0.5,
    "mode": "targets",
    "targets": [0.0, 0.25, 0.5],
    "n0": 10,
    "n": 5000,
    "copies_per_batch": 32,
    "progress": False,
}
# Far from all targets, and so close to one that the draws go on: from 30 draws to 5,010.
DISTANCES = [0.02, 0.9, 0.24, -0.9, 0.27, 1.0, 0.49, -1.0, 0.52, 0.8, -0.01, -0.8]
DATASET = [
    {"pixel_values": (Linear().image_at(d).clamp(0, 1) * 255).round().to(torch.uint8), "labels": int(d > 0)}
    for d in DISTANCES
]
TOTAL_BATCHES = 300
"""Fewer than a run on one rank takes; see `test_two_ranks_find_the_rows_of_one`."""


# --- What a rank does ------------------------------------------------------------------------------------------------


class Troubled:
    """Linear, counting the draws, and in trouble on one rank after a number of batches."""

    def __init__(self, trouble: str | None, batches: int) -> None:
        self.linear, self.trouble, self.left, self.draws = Linear(), trouble, batches, 0

    def __call__(self, pixels):
        self.left -= 1
        if self.trouble is not None and self.left < 0:
            if self.trouble == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.trouble == "nan":
                return self.linear(pixels) * torch.nan
            raise MemoryError("an error of this rank alone")
        self.draws += len(pixels)
        return self.linear(pixels)


def worker(
    folders: list[str], trouble: str | None = None, on: int = 1, batches: int = 0, other_images: bool = False
) -> None:
    """Certify into each folder; what was drawn goes to a file of this rank beside it."""
    rank = int(os.environ["RANK"])
    images = (
        [{**item, "pixel_values": 255 - item["pixel_values"]} for item in DATASET]
        if other_images and rank == on
        else DATASET
    )
    for folder in map(Path, folders):
        (folder.parent / f"pid-{rank}").write_text(str(os.getpid()))
        classifier = Troubled(trouble if rank == on else None, batches)
        certify_dataset(classifier, images, folder, **RUN, partial_seconds=0)
        (folder.parent / f"{folder.name}-draws-{rank}").write_text(str(classifier.draws))


def launch(ranks: int, *folders: Path, **options) -> subprocess.CompletedProcess:
    asked = json.dumps({"folders": list(map(str, folders)), **options})
    return run_ranks(ranks, Path(__file__), asked, timeout=150, PYTHONFAULTHANDLER="1")


def drawn(folder: Path, ranks: int) -> list[int]:
    return [int((folder.parent / f"{folder.name}-draws-{rank}").read_text()) for rank in range(ranks)]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # Not reaped where nobody waits for orphans.
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] == "Z"


def cut(folder: Path, batches: int) -> None:
    """A run on one rank that stops after so many batches, its last line torn."""
    with pytest.raises(KeyboardInterrupt):
        certify_dataset(Failing(Linear(), batches), DATASET, folder, **RUN, partial_seconds=0)
    assert read_run(folder).partials
    with open(folder / "certificates-0.jsonl", "a", encoding="utf-8") as stream:
        stream.write('{"index": 11, "partial": true, "draws": 4')


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = certify_dataset(Linear(), DATASET, tmp_path_factory.mktemp("whole"), **RUN)
    draws = [row["draws"] for row in run.rows.values()]
    assert max(draws) == 5010 and min(draws) < 60, "images must need very different numbers"
    assert sum(draws) / RUN["copies_per_batch"] > TOTAL_BATCHES
    return run


# --- Plans and parts -------------------------------------------------------------------------------------------------


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
    parts = [part_of(requests, rank, count) for rank in range(count)]
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
def test_a_plan_keeps_to_the_budget_and_to_the_looks(kind, counts, budget):
    rule = rule_of(kind)
    votes = [votes_with(rule, drawn_, 7 * slot) for slot, drawn_ in enumerate(counts)]
    wanted = [rule.wanted(item) - item.drawn for item in votes]
    requests = plan([(item, rule.wanted(item)) for item in votes], rule.stage_ends, budget)
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


def test_one_rank_needs_no_transport():
    def unused(mine):
        raise AssertionError

    assert Ranks(0, 1, unused).exchange(lambda: 5) == [5]


def test_a_rank_error_says_what_is_kept(tmp_path, monkeypatch):
    real, calls = rounds._cast, []

    def failing(*arguments):
        calls.append(1)
        if len(calls) > 3:
            raise RankError("Another rank of this run is gone (closed).")
        return real(*arguments)

    monkeypatch.setattr(rounds, "_cast", failing)
    with pytest.raises(
        RankError, match=r"is gone \(closed\)\. \d+ of 12 images are done and kept in .* same command resumes"
    ):
        certify_dataset(Linear(), DATASET, tmp_path, **RUN)


def test_no_round_is_much_longer_than_aimed_at(monkeypatch):
    # A fast network: first many images that are soon decided, whose rounds are short without further draws, then hard ones.
    speed, easy, hard, lengths = 200_000.0, 3000, 600, []

    def cast(classify, work, requests, *others):
        lengths.append(total(requests) / speed)
        counts = {}
        for number, request in enumerate(requests):
            draws = request.stop - request.start
            against = 0 if request.image < easy else int(np.round(0.3085 * draws))
            counts[number] = np.array([draws - against, against])
        return counts, lengths[-1]

    monkeypatch.setattr(rounds, "_cast", cast)
    stream = make_stream("grid", seed=0, shape=(1, 2, 2), device=torch.device("cpu"), sigma=0.5)
    pending = ((Votes(index), torch.zeros(1, 2, 2)) for index in range(easy + hard))
    for _ in rounds.vote_in_rounds(Linear((1, 2, 2)), pending, make_rule(0.5, n=100_000), stream, round_seconds=1.0):
        pass
    assert max(lengths) < 4.0, "a kill loses what one round has drawn"


# --- Real processes --------------------------------------------------------------------------------------------------


def test_two_ranks_find_the_rows_of_one(tmp_path, whole):
    fresh, begun = tmp_path / "fresh", tmp_path / "begun"
    cut(begun, TOTAL_BATCHES // 2)
    done = read_run(begun)
    before = sum(row["draws"] for row in [*done.rows.values(), *done.partials.values()])
    said = launch(2, fresh, begun)
    assert said.returncode == 0, said.stderr
    everything = sum(row["draws"] for row in whole.rows.values())
    for folder, left in ((fresh, everything), (begun, everything - before)):
        assert results(read_run(folder)) == results(whole)
        assert read_run(folder).partials == {}
        one, other = drawn(folder, 2)
        assert one + other == left
        assert abs(one - other) < 0.03 * left + 5, "the work must be shared, however unequal the images"
    # And back to one rank: both files torn within a line.
    for file in fresh.glob("certificates-*.jsonl"):
        os.truncate(file, file.stat().st_size * 2 // 3)
    assert 0 < len(read_run(fresh).rows) < len(DATASET)
    assert results(certify_dataset(Linear(), DATASET, fresh, **RUN)) == results(whole)


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_others_and_the_folder_resumes(tmp_path, whole):
    folder = tmp_path / "run"
    said = launch(2, folder, trouble="killed", on=1, batches=TOTAL_BATCHES // 4)
    assert said.returncode != 0
    assert "Signal 9" in said.stderr or "SIGKILL" in said.stderr
    left = read_run(folder)
    assert left.partials and len(left.rows) < len(DATASET)
    assert all(gone(int((tmp_path / f"pid-{rank}").read_text())) for rank in (0, 1))
    for file in folder.glob("certificates-*.jsonl"):
        os.truncate(file, max(0, file.stat().st_size - 7))
    assert results(certify_dataset(Linear(), DATASET, folder, **RUN)) == results(whole)


@pytest.mark.slow
@pytest.mark.parametrize("on", [0, 1])
def test_killed_on_two_ranks_resumed_on_two_and_on_three(tmp_path, whole, on):
    folder = tmp_path / "run"
    assert launch(2, folder, trouble="killed", on=on, batches=TOTAL_BATCHES // 5).returncode != 0
    for file in folder.glob("certificates-*.jsonl"):
        os.truncate(file, max(0, file.stat().st_size - 11))
    assert launch(3, folder, trouble="killed", on=on + 1, batches=TOTAL_BATCHES // 10).returncode != 0
    assert len(read_run(folder).rows) < len(DATASET)
    said = launch(2, folder)
    assert said.returncode == 0, said.stderr
    assert results(read_run(folder)) == results(whole)


@pytest.mark.slow
def test_three_ranks_find_the_rows_of_one(tmp_path, whole):
    folder = tmp_path / "run"
    said = launch(3, folder)
    assert said.returncode == 0, said.stderr
    assert results(read_run(folder)) == results(whole)
    counts = drawn(folder, 3)
    assert sum(counts) == sum(row["draws"] for row in whole.rows.values())
    assert max(counts) - min(counts) < 0.03 * sum(counts) + 5


@pytest.mark.slow
@pytest.mark.parametrize("on", [0, 1])
@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("nan", r"ValueError: The classifier returned nan logits for noisy copies of image \d+"),
        ("error", "MemoryError: an error of this"),
    ],
)
def test_an_error_on_one_rank_ends_both_with_its_message(tmp_path, whole, trouble, words, on):
    folder = tmp_path / "run"
    began = time.monotonic()
    said = launch(2, folder, trouble=trouble, on=on, batches=TOTAL_BATCHES // 4)
    assert said.returncode != 0
    assert re.search(words, said.stderr), said.stderr
    assert all(gone(int((tmp_path / f"pid-{rank}").read_text())) for rank in (0, 1))
    assert time.monotonic() - began < 140
    assert results(certify_dataset(Linear(), DATASET, folder, **RUN)) == results(whole)


@pytest.mark.slow
def test_a_rank_that_reads_other_images_is_refused(tmp_path):
    said = launch(2, tmp_path / "run", other_images=True)
    assert said.returncode != 0


if __name__ == "__main__":
    worker(**json.loads(sys.argv[1]))
    # Else a thread of gloo may still run when the interpreter ends, which aborts the process now and then.
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
