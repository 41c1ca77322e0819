"""Runs under load: ranks that are killed, a disk that fills up at any byte, clocks that jump, folders that cannot be written, a crowd."""

from __future__ import annotations

import ast
import errno
import os
import random
import re
import time
from pathlib import Path

import pytest

import hf_smoothing
from hf_smoothing.certification import certify_dataset
from hf_smoothing.records import RUN_FILE, read_run
from tests.support.classifiers import KINDS, random_dataset, results
from tests.support.disks import disk_of, read_only
from tests.support.processes import printed, run_python


HERE = Path(__file__).parent
COUNT = 8
BYTES = 12
"""Sizes of a disk that fast tests try; all of them are tried by the slow one, in steps."""


def certified(folder: Path, kind: str, **options):
    classifier, arguments = KINDS[kind]
    return certify_dataset(classifier, random_dataset(COUNT), folder, **arguments, **options)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return {kind: certified(tmp_path_factory.mktemp(kind) / "run", kind) for kind in KINDS}


# --- Killed ranks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "enough"),
    [("targets", 3), *(pytest.param(kind, 40, marks=pytest.mark.slow) for kind in KINDS)],
)
def test_two_ranks_that_are_killed_again_and_again(tmp_path, undisturbed, kind, enough):
    done = run_python(HERE / "killed_ranks.py", tmp_path, kind, COUNT, 1, enough, timeout=3000)
    kills, begun, runs = map(int, printed(done).split())
    assert kills >= enough
    assert begun >= enough // 8, "kills must fall into runs that have begun to be a test"
    for number in range(runs):
        run = read_run(tmp_path / f"run-{number}")
        assert results(run) == results(undisturbed[kind])
        assert run.partials == {}
    print(f"{kills} kills of two ranks in {runs} runs, {begun} times with rows and not all of them")
    said = (tmp_path / "said").read_text(encoding="utf-8").splitlines() if (tmp_path / "said").exists() else []
    # The one that is left says so; one that is killed cannot.
    assert [
        line
        for line in said
        if not re.search(r"RankError: .*(is gone|has failed)|Connect|socket|store|rendezvous", line)
    ] == []


# --- A disk that fills up --------------------------------------------------------------------------------------------


def fill_up(folder: Path, kind: str, room: int, whole) -> None:
    """A run on a disk of this size, and what it leaves; then with room."""
    with disk_of(folder, room), pytest.raises(OSError, match="cannot be written") as caught:
        certified(folder, kind, partial_seconds=0)
    assert caught.value.errno == errno.ENOSPC
    assert str(folder) in str(caught.value)
    assert re.search("free space|Choose another one", str(caught.value))
    if (folder / RUN_FILE).exists():
        left = read_run(folder)
        assert results(left).items() <= results(whole).items()
    assert results(certified(folder, kind)) == results(whole)
    assert sorted(file.name for file in folder.iterdir() if file.suffix not in (".jsonl", ".json")) in (
        [],
        [".lock-0"],
    )


def written(folder: Path, kind: str) -> int:
    """Bytes that an undisturbed run writes."""
    with disk_of(folder, 1 << 40) as disk:
        certified(folder, kind, partial_seconds=0)
    return disk.written


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [BYTES, pytest.param(300, marks=pytest.mark.slow)])
def test_a_disk_that_is_full_at_any_byte_loses_no_row(tmp_path, undisturbed, kind, sizes):
    # The last bytes differ from run to run: the seconds of a row have more or fewer digits.
    total = written(tmp_path / "measured", kind) - 200
    chosen = {0, 1, *random.Random(kind).sample(range(total), sizes)}
    for room in sorted(chosen):
        fill_up(tmp_path / f"room-{room}", kind, room, undisturbed[kind])


def test_a_disk_that_fills_up_while_the_hash_is_stated_keeps_the_settings(tmp_path, undisturbed):
    """The last that a run writes is run.json once more, with the hash of all images, where those were not all read before the first draw."""
    from hf_smoothing.records import replace_file

    file = tmp_path / "run.json"
    replace_file(file, "before\n")
    with (
        disk_of(tmp_path, 4),
        pytest.raises(OSError, match=f"{file} cannot be written .*What stood there is kept: free space"),
    ):
        replace_file(file, "after, and longer\n")
    assert file.read_text() == "before\n"
    assert os.listdir(tmp_path) == ["run.json"]


# --- Clocks ----------------------------------------------------------------------------------------------------------


def test_clocks_that_jump_change_no_row(tmp_path, undisturbed, monkeypatch):
    moments, real = random.Random(0), {name: getattr(time, name) for name in ("time", "monotonic", "perf_counter")}
    ahead = {"monotonic": 0.0, "perf_counter": 0.0}

    def wall():
        return real["time"]() + moments.uniform(-1e8, 1e8)  # set back and ahead by years

    def steady(name):
        ahead[name] += moments.choice((0.0, 0.0, 1e5))  # the machine slept; such a clock never goes back
        return real[name]() + ahead[name]

    monkeypatch.setattr(time, "time", wall)
    for name in ahead:
        monkeypatch.setattr(time, name, lambda name=name: steady(name))
    run = certified(tmp_path / "run", "targets")
    assert ahead["monotonic"] > 0
    assert results(run) == results(undisturbed["targets"])


def test_no_length_of_time_is_measured_by_a_clock_that_is_set():
    package = Path(hf_smoothing.__file__).parent
    found = []
    for room in ("certification", "records", "interval", "noise", "progress.py"):
        for file in sorted((package / room).rglob("*.py")) if (package / room).is_dir() else [package / room]:
            names = [
                ast.unparse(node)
                for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
                if isinstance(node, ast.Attribute)
            ]
            found += [
                f"{file.name}: {name}"
                for name in names
                if name in ("time.time", "datetime.datetime.now", "datetime.datetime.today")
            ]
    # Of when a run began, and of nothing else.
    assert sorted(found) == ["settings.py: datetime.datetime.now"]


# --- Folders that cannot be written ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EIO])
def test_a_folder_that_cannot_be_written_is_named_and_stays_as_it_is(tmp_path, undisturbed, number):
    folder = tmp_path / "run"
    words = f"The output folder {folder} cannot be written .{os.strerror(number)}.*Choose another one"
    with read_only(folder, number), pytest.raises(OSError, match=words):
        certified(folder, "targets")
    assert not folder.exists()
    certify_dataset(KINDS["targets"][0], random_dataset(COUNT), folder, indices=[0, 3], **KINDS["targets"][1])
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with read_only(folder, number), pytest.raises(OSError, match=words):
        certify_dataset(KINDS["targets"][0], random_dataset(COUNT), folder, indices=[0, 3], **KINDS["targets"][1])
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert len(read_run(folder).rows) == 2  # which needs no writing


# --- Several processes at once ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_of_processes_that_begin_together_one_writes(tmp_path, undisturbed, rounds):
    for number in range(rounds):
        folder = tmp_path / f"run-{number}"
        said = printed(run_python(HERE / "racing.py", folder, "fixed", COUNT, 4)).splitlines()
        assert len(said) == 4
        refused = [line for line in said if line != f"{COUNT} rows"]
        assert all(
            line.startswith(f"RunError: Another process is writing to {folder}. Wait for it") for line in refused
        ), said
        assert len(refused) < 4
        assert results(read_run(folder)) == results(undisturbed["fixed"])
