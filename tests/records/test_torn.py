"""Kills, torn lines and full disks lose no row that was written, and leave folders that resume."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest

from hf_smoothing.records import RunWriter, read_run
from tests.support.run_folders import ROWS, SETTINGS, write


def test_torn_at_every_byte(tmp_path):
    file = write(tmp_path, [])
    # Not escaped, so that some of the cuts fall inside a character.
    content = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in ROWS[:3])
    for length in range(len(content) + 1):
        file.write_bytes(content[:length])
        whole = content[:length].count(b"\n")
        assert list(read_run(tmp_path).rows.values()) == ROWS[:whole]


def test_torn_line_is_cut_before_the_next_row(tmp_path):
    file = write(tmp_path, ROWS[:2])
    with open(file, "ab") as stream:
        stream.write(b'{"index": 2, "rad')
    write(tmp_path, ROWS[2:])
    assert list(read_run(tmp_path).rows.values()) == ROWS


def test_torn_inside_a_character(tmp_path):
    file = write(tmp_path, ROWS[:1])
    torn = json.dumps(ROWS[1], ensure_ascii=False).encode().split("ö".encode())[0] + "ö".encode()[:1]
    with open(file, "ab") as stream:
        stream.write(torn)
    assert list(read_run(tmp_path).rows.values()) == ROWS[:1]
    write(tmp_path, ROWS[1:])
    assert list(read_run(tmp_path).rows.values()) == ROWS


def test_a_kill_while_the_settings_are_written_leaves_a_usable_folder(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            RunWriter(tmp_path, SETTINGS)
    write(tmp_path, ROWS)
    assert list(read_run(tmp_path).rows.values()) == ROWS


@pytest.mark.parametrize("cut", [1, 12, -2, -1], ids=["brace", "middle", "no brace", "no newline"])
@pytest.mark.parametrize("partial", [False, True])
def test_a_torn_row_of_a_rank_that_is_away_stays_dropped(tmp_path, cut, partial):
    write(tmp_path, [])
    write(tmp_path, [], rank=1)
    # What the torn line says of item 9 is not what is found later: were it ever read, the two would disagree.
    torn = {"index": 9, "partial": True, "draws": 10**6} if partial else {"index": 9, "radius": 0.9}
    away = write(tmp_path, [{"index": 8, "radius": 0.8}], rank=3)
    before = away.read_bytes() + (json.dumps(torn) + "\n").encode()[:cut]
    away.write_bytes(before)
    assert (read_run(tmp_path).rows.keys(), read_run(tmp_path).partials) == ({8}, {})

    with RunWriter(tmp_path, SETTINGS) as first, RunWriter(tmp_path, SETTINGS, rank=1) as second:
        first.append({"index": 9, "partial": True, "draws": 100})
        assert read_run(tmp_path).partials == {9: {"index": 9, "partial": True, "draws": 100}}
        second.append({"index": 9, "radius": 0.5})
    expected = {8: {"index": 8, "radius": 0.8}, 9: {"index": 9, "radius": 0.5}}
    assert read_run(tmp_path).rows == expected
    assert away.read_bytes() == before  # nobody writes to the file of another rank

    write(tmp_path, [{"index": 10, "radius": 1.0}], rank=3)
    assert [json.loads(line)["index"] for line in away.read_bytes().splitlines()] == [8, 10]
    run = read_run(tmp_path)
    assert run.rows == {**expected, 10: {"index": 10, "radius": 1.0}}
    assert run.partials == {}


# A row of 61 bytes: the limits lie at the end of one, inside it, before its newline, and before anything.
FULL_DISK = """
import json, resource, signal, sys
from hf_smoothing.records import RunWriter, read_run

folder, limit = sys.argv[1], int(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
row = lambda index: {"index": index, "text": "x" * 36}
with RunWriter(folder, {"sigma": 0.5}) as writer:
    assert len(json.dumps(row(0))) + 1 == 61
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    done = 0
    errors = []
    for _ in range(3):  # it stays full, and trying again does no harm
        try:
            while done < 10:
                writer.append(row(done))
                done += 1
        except OSError as error:
            errors.append((error.errno, str(error)))
    left_open = writer.file.read_bytes().decode()
    if sys.argv[3] == "more":
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        writer.append(row(done))
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
print(json.dumps({"done": done, "errors": errors, "content": left_open}))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
@pytest.mark.parametrize("limit", [0, 1, 183, 184, 200, 243])
@pytest.mark.parametrize("then", ["more", "close"])
def test_a_full_disk_keeps_the_rows_and_says_so(tmp_path, limit, then):
    run = tmp_path / "run"
    write(run, [], settings={"sigma": 0.5})  # run.json itself is longer than the smallest limits
    ended = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(run), str(limit), then], capture_output=True, text=True, check=False
    )
    assert ended.stderr == ""  # in particular nothing from close()
    assert ended.returncode == 0
    found = json.loads(ended.stdout)
    rows = [{"index": i, "text": "x" * 36} for i in range(10)]
    assert found["done"] == limit // 61
    assert found["content"] == "".join(
        json.dumps(row) + "\n" for row in rows[: found["done"]]
    )  # the torn part is gone
    assert len(found["errors"]) == 3
    for number, message in found["errors"]:
        assert number == errno.EFBIG
        assert str(run) in message
        assert "The rows so far are kept and valid" in message
        assert "free space" in message and "run the same command again" in message

    kept = found["done"] + (then == "more")
    assert list(read_run(run).rows.values()) == rows[:kept]
    write(run, rows[kept:], settings={"sigma": 0.5})
    assert list(read_run(run).rows.values()) == rows


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_no_space_left_on_the_device(tmp_path, monkeypatch):
    writer = RunWriter(tmp_path, SETTINGS)
    writer.append(ROWS[0])
    with open("/dev/full", "ab", buffering=0) as full, monkeypatch.context() as patch:
        patch.setattr(writer, "_stream", full)
        with pytest.raises(OSError, match=f"cannot be written to {tmp_path} .*kept and valid: free space") as caught:
            writer.append(ROWS[1])
        assert caught.value.errno == errno.ENOSPC
    writer.append(ROWS[1])
    writer.close()
    assert list(read_run(tmp_path).rows.values()) == ROWS[:2]


class Stubborn:
    """A file on which a write ends half way, and which cannot be cut either for a while."""

    def __init__(self, stream, error):
        self.stream, self.error, self.broken = stream, error, True

    def write(self, data):
        if self.broken:
            self.stream.write(data[:9])
            raise self.error
        return self.stream.write(data[:5])  # and later it takes a little at a time

    def truncate(self, size):
        if self.broken:
            raise OSError(errno.EIO, "no")
        return self.stream.truncate(size)

    def __getattr__(self, name):
        return getattr(self.stream, name)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_where_the_torn_part_cannot_be_cut_it_is_dropped_and_cut_later(tmp_path, monkeypatch, number):
    with RunWriter(tmp_path, SETTINGS) as writer:
        writer.append(ROWS[0])
        stubborn = Stubborn(writer._stream, OSError(number, os.strerror(number)))
        monkeypatch.setattr(writer, "_stream", stubborn)
        with pytest.raises(OSError, match="kept and valid") as caught:
            writer.append(ROWS[1])
        assert caught.value.errno == number
        assert ("free space" in str(caught.value)) == (number != errno.EIO)
        assert not writer.file.read_bytes().endswith(b"\n")
        assert list(read_run(tmp_path).rows.values()) == ROWS[:1]
        stubborn.broken = False
        writer.append(ROWS[1])
    assert list(read_run(tmp_path).rows.values()) == ROWS[:2]


def test_an_interrupted_append_leaves_no_torn_row(tmp_path, monkeypatch):
    with RunWriter(tmp_path, SETTINGS) as writer:
        writer.append(ROWS[0])
        stubborn = Stubborn(writer._stream, KeyboardInterrupt())
        monkeypatch.setattr(stubborn, "truncate", writer._stream.truncate, raising=False)
        with monkeypatch.context() as patch:
            patch.setattr(writer, "_stream", stubborn)
            with pytest.raises(KeyboardInterrupt):
                writer.append(ROWS[1])
        assert writer.file.read_bytes().endswith(b"}\n")
        writer.append(ROWS[2])
    assert sorted(read_run(tmp_path).rows) == [0, 2]
