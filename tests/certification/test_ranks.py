"""Ranks share every round in equal parts, fail together, and leave the rows of a run on one.

Started as a script by torchrun, this file is what a rank does; see `worker`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from hf_smoothing.certification import certify_dataset, rounds
from hf_smoothing.certification.ranks import RankError
from hf_smoothing.records import read_run
from tests.support.classifiers import Failing, Linear, is_probe, results
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
        if is_probe(pixels):
            return self.linear(pixels)
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
    """A run on one rank that stops after a number of batches, its last line torn."""
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


def test_a_rank_error_says_what_is_kept(tmp_path, monkeypatch):
    real, calls = rounds.draw_round, []

    def failing(*arguments):
        calls.append(1)
        if len(calls) > 3:
            raise RankError("Another rank of this run is gone (closed).")
        return real(*arguments)

    monkeypatch.setattr(rounds, "draw_round", failing)
    with pytest.raises(
        RankError, match=r"is gone \(closed\)\. \d+ of 12 images are done and kept in .* same command resumes"
    ):
        certify_dataset(Linear(), DATASET, tmp_path, **RUN)


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
