"""Runs that are killed, and runs on two ranks, end in the rows of an undisturbed run on one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from classifiers import RUN, Failing, Ranges, random_dataset, results

from hf_smoothing.certification import certify_dataset, runner
from hf_smoothing.records import RunError, RunWriter, read_run


HERE = Path(__file__).parent
COUNT = 12
DATASET = random_dataset(COUNT)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return certify_dataset(Ranges(), DATASET, tmp_path_factory.mktemp("whole"), **RUN)


def start(*arguments: object) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": str(HERE.parent),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def start_two_ranks(*folders: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    start(*launcher, HERE / "two_ranks.py", COUNT, *folders)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_killed_again_and_again(tmp_path, whole, seed):
    kills = int(start(HERE / "killed_run.py", tmp_path, COUNT, seed))
    assert kills > 3
    assert results(read_run(tmp_path)) == results(whole)


def test_two_ranks_alone_and_after_one_and_one_after_two(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(runner, "PARTIAL_SECONDS", -1.0)
    fresh, begun = tmp_path / "fresh", tmp_path / "begun"
    with pytest.raises(KeyboardInterrupt):
        certify_dataset(Failing(Ranges(), 90), DATASET, begun, **RUN)
    first = read_run(begun)
    assert first.rows
    assert first.partials
    with open(begun / "certificates-0.jsonl", "a", encoding="utf-8") as stream:
        stream.write('{"index": 11, "lab')

    start_two_ranks(fresh, begun)
    for folder in (fresh, begun):
        assert results(read_run(folder)) == results(whole)
        assert len((folder / "certificates-1.jsonl").read_bytes().splitlines()) > 0
    assert read_run(fresh).settings["seed"] == whole.settings["seed"]

    for file in fresh.glob("certificates-*.jsonl"):
        os.truncate(file, file.stat().st_size // 2)
    assert 0 < len(read_run(fresh).rows) < COUNT
    assert results(certify_dataset(Ranges(), DATASET, fresh, **RUN)) == results(whole)


def test_certifying_into_a_folder_in_use_is_refused(tmp_path, whole):
    settings = json.loads((whole.path / "run.json").read_text())
    with RunWriter(tmp_path, settings), pytest.raises(RunError, match="Another process is writing to"):
        certify_dataset(Ranges(), DATASET, tmp_path, **RUN)
