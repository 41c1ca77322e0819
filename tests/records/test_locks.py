"""Only one process writes to the file of a rank at a time."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import pytest

from hf_smoothing.records import RunError, RunWriter, read_run
from tests.support.run_folders import ROWS, write


def test_second_writer_is_refused_while_the_first_holds_the_lock(tmp_path):
    script = f"from hf_smoothing.records import RunWriter; RunWriter({str(tmp_path)!r}, {{}})"
    with RunWriter(tmp_path, {}):
        with pytest.raises(RunError, match="Another process is writing to .*use another output folder"):
            RunWriter(tmp_path, {})
        other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert "RunError: Another process is writing to" in other.stderr
    subprocess.run([sys.executable, "-c", script], check=True)


def test_lock_is_given_back_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), RunWriter(tmp_path, {}):
        raise ZeroDivisionError
    write(tmp_path, ROWS, settings={})


@contextlib.contextmanager
def another_process_writing_to(folder, rank):
    script = f"""
import sys
from hf_smoothing.records import RunWriter
with RunWriter({str(folder)!r}, {{}}, rank={rank}) as writer:
    writer.append({{"index": {rank}}})
    print("open", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout.readline() == b"open\n"
            yield other
        finally:
            other.kill()


@pytest.mark.parametrize("rank", [0, 2])
def test_a_folder_that_another_process_writes_to_is_refused_until_it_dies(tmp_path, rank):
    write(tmp_path, [], settings={})
    with another_process_writing_to(tmp_path, rank):
        for _ in range(2):  # a refusal must not take the lock away from its holder
            with pytest.raises(
                RunError, match="Another process is writing to .*Wait for it or stop it, or use another"
            ):
                RunWriter(tmp_path, {}, rank=rank)
        assert read_run(tmp_path).rows == {rank: {"index": rank}}
    write(tmp_path, [{"index": 7}], rank=rank, settings={})  # killed, and its lock died with it
    assert sorted(read_run(tmp_path).rows) == [rank, 7]
