"""What is written into a run folder is read back; other settings, corrupt lines and what is no run are refused by name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_smoothing.records import FORMAT, RUN_FILE, RunError, RunWriter, read_run
from hf_smoothing.records.causes import causes
from tests.support.run_folders import ROWS, SETTINGS, write


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


def test_causes_come_first_and_hide_what_follows_from_them(tmp_path):
    def settings(sigma, images, digit):
        return {
            "dataset": {"id": "toys", "max_images": images, "sha256": digit * 64},
            "model": {"weights_sha256": digit * 64},
            "num_images": images,
            "rule": {"targets": [sigma * step for step in range(40)]},
            "sigma": sigma,
            "total_variation": sigma / 1e9,
        }

    write(tmp_path, [], settings=settings(0.5, 20, "a"))
    with pytest.raises(RunError) as caught:
        RunWriter(tmp_path, settings(1.0, 40, "b"))
    said = str(caught.value).partition("with these: ")[2]
    assert said.startswith("dataset.max_images was 20, is 40; rule.targets was [0.0, 0.5, ")
    assert "; sigma was 0.5, is 1.0; model.weights_sha256 was aaaaaaaa, is bbbbbbbb. Use the same settings" in said
    assert len(said) < 350 and "total_variation" not in said and "dataset.sha256" not in said


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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (".", f"is not a run folder: it has no {RUN_FILE}. Pass the folder"),
        ("missing", "missing does not exist. Check the spelling"),
        ("file", f"is not a run folder but a file. Pass the folder that holds {RUN_FILE}"),
    ],
)
def test_what_is_no_run_folder_is_refused(tmp_path, name, message):
    (tmp_path / "file").write_text("text")
    with pytest.raises(RunError, match=message):
        read_run(tmp_path / name)


def test_a_folder_of_run_folders_names_them(tmp_path):
    for number in range(7):
        (tmp_path / f"run-{number}").mkdir()
        (tmp_path / f"run-{number}" / RUN_FILE).write_text("{}")
    with pytest.raises(RunError, match=r"It holds run folders: pass \S*run-0 .*run-4 and 2 more\."):
        read_run(tmp_path)


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


def of_pixels(place, **values):
    """Settings of a run of a wrapper, or of a backbone with a note, with these pixels."""
    framing = {"size": values.pop("size", [16, 16]), "resize": values.pop("resize", [16, 16]), "resample": "bilinear"}
    said = {"image_mean": [0.5], "image_std": [0.5], "model_size": None} | values
    config = {key: str(value) for key, value in (framing | said).items()}
    model = {
        "config": config if place == "config" else {},
        "preprocessing": {"framing": framing, **said},
        "normalisation": said if place == "normalisation" else {},
    }
    return {"resolution": [1, *framing["size"]], "model": model}


@pytest.mark.parametrize("place", ["config", "normalisation", "neither"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_mean": [0.4]}, "model.preprocessing.image_mean was [0.5], is [0.4]"),
        ({"image_std": [0.4]}, "model.preprocessing.image_std was [0.5], is [0.4]"),
        ({"model_size": [8, 8]}, "model.preprocessing.model_size was None, is [8, 8]"),
        ({"size": [8, 8], "resize": [8, 8]}, "resolution was [1, 16, 16], is [1, 8, 8]"),
        ({"resize": [20, 20]}, "model.preprocessing.framing.resize was [16, 16], is [20, 20]"),
    ],
    ids=["mean", "std", "model size", "size", "resize"],
)
def test_pixels_that_are_recorded_several_times_are_one_cause(change, said, place):
    assert causes(of_pixels(place), of_pixels(place, **change)) == [said]
