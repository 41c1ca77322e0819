"""Runs that are killed, and runs on two ranks, end in the rows of an undisturbed run on one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hf_smoothing.certification import certify_dataset
from hf_smoothing.records import RunError, RunWriter, read_run
from tests.support.classifiers import RUN, Failing, Ranges, random_dataset, results
from tests.support.processes import printed, run_python, run_ranks


HERE = Path(__file__).parent
COUNT = 12
DATASET = random_dataset(COUNT)


def start_two_ranks(*folders: Path) -> list[list[int]]:
    """The draws that each rank made for each folder."""
    said = [json.loads(line) for line in printed(run_ranks(2, HERE / "two_ranks.py", COUNT, *folders)).splitlines()]
    assert [line["rank"] for line in sorted(said, key=lambda line: line["rank"])] == [0, 1]
    return [line["draws"] for line in sorted(said, key=lambda line: line["rank"])]


def finished_by(rank: int, folder: Path) -> list[int]:
    lines = (folder / f"certificates-{rank}.jsonl").read_text(encoding="utf-8").splitlines()
    return sorted(row["index"] for row in map(json.loads, lines) if "partial" not in row)


@pytest.mark.parametrize("mode", ["fixed", "targets"])
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_killed_again_and_again(tmp_path, whole, whole_sequential, seed, mode):
    kills = int(printed(run_python(HERE / "killed_run.py", tmp_path, mode, COUNT, seed)))
    assert kills > 3
    assert results(read_run(tmp_path)) == results(whole if mode == "fixed" else whole_sequential)


def test_two_ranks_alone_and_after_one_and_one_after_two(tmp_path, whole, whole_sequential):
    fresh, begun, sequential = tmp_path / "fresh", tmp_path / "begun", tmp_path / "sequential"
    with pytest.raises(KeyboardInterrupt):
        certify_dataset(Failing(Ranges(), 90), DATASET, begun, **RUN, partial_seconds=0)
    first = read_run(begun)
    assert first.rows
    assert first.partials
    with open(begun / "certificates-0.jsonl", "a", encoding="utf-8") as stream:
        stream.write('{"index": 11, "lab')

    draws = start_two_ranks(fresh, begun, sequential)
    for folder in (fresh, begun):
        assert results(read_run(folder)) == results(whole)
    assert results(read_run(sequential)) == results(whole_sequential)
    assert read_run(fresh).settings["seed"] == whole.settings["seed"]

    # The ranks share each round, to within a draw, and write down the images in turns.
    total = [sum(row["draws"] for row in run.rows.values()) for run in (whole, whole, whole_sequential)]
    total[1] -= sum(row["draws"] for row in [*first.rows.values(), *first.partials.values()])
    for number, expected in enumerate(total):
        one, other = draws[0][number], draws[1][number]
        assert one + other == expected
        assert abs(one - other) <= expected / (2 * RUN["copies_per_batch"]) + 1
    for folder, before in ((fresh, {}), (sequential, {}), (begun, first.rows)):
        todo = [index for index in range(COUNT) if index not in before]
        assert finished_by(0, folder) == sorted([*before, *todo[::2]])
        assert finished_by(1, folder) == todo[1::2] != []

    for file in fresh.glob("certificates-*.jsonl"):
        os.truncate(file, file.stat().st_size // 2)
    assert 0 < len(read_run(fresh).rows) < COUNT
    assert results(certify_dataset(Ranges(), DATASET, fresh, **RUN)) == results(whole)


def test_certifying_into_a_folder_in_use_is_refused(tmp_path, whole):
    settings = json.loads((whole.path / "run.json").read_text())
    with RunWriter(tmp_path, settings), pytest.raises(RunError, match="Another process is writing to"):
        certify_dataset(Ranges(), DATASET, tmp_path, **RUN)
