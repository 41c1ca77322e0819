from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_smoothing.records import FORMAT, RUN_FILE, RunError, RunWriter, read_run


SETTINGS = {"sigma": 0.5, "rule": {"name": "fixed-n", "n": 100}, "resolution": (3, 4, 4), "created": "today"}
ROWS = [{"index": i, "radius": i / 7, "name": "Köln 雪", "seconds": 0.1} for i in range(4)]


def write(folder, rows, rank=0, settings=SETTINGS):
    with RunWriter(folder, settings, rank=rank) as writer:
        for row in rows:
            writer.append(row)
    return folder / f"certificates-{rank}.jsonl"


def test_create_append_and_read_back(tmp_path):
    folder = tmp_path / "deep" / "run"
    file = write(folder, ROWS)
    run = read_run(folder)
    assert run.path == folder
    assert run.settings == json.loads(json.dumps(SETTINGS)) | {"format": FORMAT}
    assert list(run.rows.values()) == ROWS
    assert run.partials == {}
    assert [json.loads(line) for line in file.read_text("utf-8").splitlines()] == ROWS


def test_a_row_is_on_disk_as_soon_as_it_is_appended(tmp_path):
    with RunWriter(tmp_path, SETTINGS) as writer:
        for count, row in enumerate(ROWS, start=1):
            writer.append(row)
            assert len(read_run(tmp_path).rows) == count


def test_resuming_keeps_rows_and_settings(tmp_path):
    write(tmp_path, ROWS[:2])
    write(tmp_path, ROWS[2:], settings={**SETTINGS, "created": "tomorrow", "informative": {"host": "other"}})
    run = read_run(tmp_path)
    assert list(run.rows.values()) == ROWS
    assert run.settings["created"] == "today"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0.25}, "sigma was 0.5, is 0.25"),
        ({"rule": {"name": "fixed-n", "n": 200}}, "rule.n was 100, is 200"),
        ({"rule": {"n": 100}}, "rule.name was 'fixed-n', is None"),
        ({"rule": {**SETTINGS["rule"], "created": "x"}}, "rule.created was None, is 'x'"),
        ({"seed": 3}, "seed was None, is 3"),
        ({"resolution": (3, 8, 8)}, r"resolution was \[3, 4, 4\], is \[3, 8, 8\]"),
        ({"rule": "sequential"}, "rule was .*, is 'sequential'.*"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, change, message):
    file = write(tmp_path, ROWS)
    before = file.read_bytes()
    with pytest.raises(RunError, match=f"run with other settings.*: {message}. Use the same settings, or another"):
        RunWriter(tmp_path, {**SETTINGS, **change})
    assert file.read_bytes() == before
    write(tmp_path, [])  # and the lock was given back


def test_every_difference_is_named(tmp_path):
    write(tmp_path, [])
    with pytest.raises(RunError, match="rule.n was 100, is 7; sigma was 0.5, is 1.0"):
        RunWriter(tmp_path, {**SETTINGS, "sigma": 1.0, "rule": {"name": "fixed-n", "n": 7}})


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


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"index": 1, "rad', "line 2 is corrupt .*remove this line to have its item done again"),
        (b"", "line 2 is corrupt"),
        (b'{"index": 1, "name": "K\xc3"}', "line 2 is corrupt"),
        (b"[1, 2]", "line 2 must be a JSON object, got list"),
        (b'{"radius": 1.0}', "line 2: every row needs an integer 'index', got None"),
        (b'{"index": "1"}', "line 2: every row needs an integer 'index', got '1'"),
        (b'{"index": true}', "line 2: every row needs an integer 'index', got True"),
        (b'{"index": 0, "radius": 9.0}', "line 2: item 0 is already recorded with another result"),
    ],
)
def test_corrupt_line_is_refused_with_file_and_number(tmp_path, line, message):
    file = write(tmp_path, ROWS[:1])
    with open(file, "ab") as stream:
        stream.write(line + b"\n" + json.dumps(ROWS[2]).encode() + b"\n")
    with pytest.raises(RunError, match=rf"certificates-0.jsonl, {message}"):
        read_run(tmp_path)


def test_rows_of_all_ranks_are_read(tmp_path):
    write(tmp_path, ROWS[::2])
    write(tmp_path, ROWS[1::2], rank=1)
    assert sorted(read_run(tmp_path).rows) == [0, 1, 2, 3]


def test_two_files_may_repeat_a_row_but_not_disagree(tmp_path):
    write(tmp_path, ROWS[:1])
    file = write(tmp_path, [{**ROWS[0], "seconds": 9.0}], rank=1)
    assert read_run(tmp_path).rows[0]["radius"] == ROWS[0]["radius"]
    file.write_text(json.dumps({**ROWS[0], "radius": 1.0}) + "\n")
    with pytest.raises(RunError, match="certificates-1.jsonl, line 1: item 0 is already recorded with another result"):
        read_run(tmp_path)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 50)), max_size=12), st.sets(st.integers(0, 2)))
def test_partial_rows_count_until_they_are_superseded(tmp_path_factory, partials, finished):
    folder = tmp_path_factory.mktemp("run")
    write(folder, [{"index": i, "partial": True, "draws": d} for i, d in partials[::2]])
    write(folder, [{"index": i, "partial": True, "draws": d} for i, d in partials[1::2]], rank=1)
    write(folder, [{"index": i, "draws": 99} for i in finished])
    run = read_run(folder)
    assert set(run.rows) == finished
    expected = {i: max(d for j, d in partials if j == i) for i in {i for i, _ in partials} - finished}
    assert {i: row["draws"] for i, row in run.partials.items()} == expected


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


@pytest.mark.parametrize("name", ["file", "file/run"])
def test_folder_that_cannot_be_made_is_named(tmp_path, name):
    (tmp_path / "file").write_text("text")
    with pytest.raises(OSError, match=f"The output folder .*{name} cannot be written .* Choose another one"):
        RunWriter(tmp_path / name, SETTINGS)


def test_rows_without_settings_are_not_taken_over(tmp_path):
    (tmp_path / "certificates-3.jsonl").write_text('{"index": 0}\n')
    with pytest.raises(RunError, match=f"holds rows but no {RUN_FILE}: it is not a run folder"):
        RunWriter(tmp_path, SETTINGS)
    assert not (tmp_path / RUN_FILE).exists()


def test_other_ranks_wait_for_the_first(tmp_path):
    with pytest.raises(RunError, match="rank 0 must open the run first"):
        RunWriter(tmp_path, SETTINGS, rank=1)


@pytest.mark.parametrize("name", [".", "missing", "file"])
def test_what_is_no_run_folder_is_refused(tmp_path, name):
    (tmp_path / "file").write_text("text")
    with pytest.raises(RunError, match=f"is not a run folder: it has no {RUN_FILE}"):
        read_run(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "is corrupt"), (b"[]", "must hold a JSON object, got list"), (b"\xff", "is corrupt")],
)
def test_corrupt_settings_are_refused(tmp_path, content, message):
    (tmp_path / RUN_FILE).write_bytes(content)
    with pytest.raises(RunError, match=f"{RUN_FILE} {message}"):
        read_run(tmp_path)


@pytest.mark.parametrize("other", [None, FORMAT - 1, FORMAT + 1])
def test_a_run_of_another_format_is_refused_by_name(tmp_path, other):
    write(tmp_path, ROWS)
    settings = {key: value for key, value in (SETTINGS | {"format": other}).items() if value is not None}
    (tmp_path / RUN_FILE).write_text(json.dumps(settings))
    for use in (lambda: read_run(tmp_path), lambda: RunWriter(tmp_path, SETTINGS)):
        with pytest.raises(
            RunError, match=f"must have the format {FORMAT}, got {other}: another version .*into another folder"
        ):
            use()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_does_not_know_are_never_written(tmp_path, value):
    with RunWriter(tmp_path, SETTINGS) as writer:
        writer.append(ROWS[0])
        with pytest.raises(ValueError, match="JSON compliant"):
            writer.append({"index": 1, "radius": value})
        writer.append(ROWS[2])
    assert sorted(read_run(tmp_path).rows) == [0, 2]


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
