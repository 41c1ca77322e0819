"""Published logs, all synthetic: what is read, what is refused, and what a report says of them."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from hf_smoothing import statistics
from hf_smoothing.published import read_published_log, sigma_of_path
from hf_smoothing.records import RunError
from hf_smoothing.report import caption, comparable, measure, plot, report


HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime"
# Every kind of line: right, wrong, abstained; idx in no order, as in a log that was joined from several.
LINES = [
    "0\t3\t3\t1.87\t1\t0:00:17.123456",
    "40\t7\t2\t0.25\t0\t0:00:16.9",
    "20\t1\t-1\t0.0\t0\t1 day, 0:00:01",
    "60\t5\t5\t1e-05\t1\t0:00:17",
    "80\t0\t0\t0.5\t1\t0:00:17.5",
]


def log(path, lines=LINES, header=HEADER, end="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(("\n".join([header, *lines]) + end).encode())
    return path


def synthetic(seed, count=200):
    chance = random.Random(seed)
    lines = []
    for index in range(0, 20 * count, 20):
        label, prediction = chance.randrange(4), chance.choice([-1, 0, 1, 2, 3])
        radius = 0.0 if prediction == -1 else chance.choice([0.25, 0.5, chance.uniform(0, 1.5)])
        lines.append(
            f"{index}\t{label}\t{prediction}\t{radius:.3}\t{int(label == prediction)}\t0:00:0{chance.random():.6f}"
        )
    return lines


def own_run(folder, **changes):
    """A run of this library that is as like a published log as it can be."""
    folder.mkdir(parents=True)
    settings = {
        "method": "randomized-smoothing", "norm": "l2", "bound": "one-sided", "rule": {"name": "fixed-n", "n": 1000},
        "alpha": 0.001, "sigma": 0.5, "num_images": len(LINES), "model": {"id": "own"}, "noise": {"kind": "gaussian"},
        "resolution": [3, 8, 8], "dataset": {"id": "toys", "split": "test", "sha256": "0123456789"},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(settings | changes))
    rows = [{"index": i, "label": 1, "prediction": 1, "radius": 0.3} for i in range(len(LINES))]
    (folder / "certificates-0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def cells(text, line=0):
    lines = [row for row in text.splitlines() if row.startswith("| ")]
    head, row = ([cell.strip() for cell in lines[i].strip("|").split("|")] for i in (0, 1 + line))
    return dict(zip(head, row, strict=True))


def test_rows_by_hand(tmp_path):
    run = read_published_log(log(tmp_path / "noise_0.25" / "test" / "sigma_0.50"))
    assert run.rows == {
        0: {"index": 0, "label": 3, "prediction": 3, "radius": 1.87},
        20: {"index": 20, "label": 1, "prediction": -1, "radius": 0.0},
        40: {"index": 40, "label": 7, "prediction": 2, "radius": 0.25},
        60: {"index": 60, "label": 5, "prediction": 5, "radius": 1e-05},
        80: {"index": 80, "label": 0, "prediction": 0, "radius": 0.5},
    }
    assert run.partials == {}
    assert run.settings["dataset"]["id"] is None
    wanted = {
        "method": "randomized-smoothing", "norm": "l2", "bound": "one-sided", "rule": {"name": "published log"},
        "alpha": None, "sigma": 0.5, "num_images": 5, "rounding": "rounded to 3 digits as published",
    }  # fmt: skip
    assert {key: run.settings[key] for key in wanted} == wanted
    json.dumps(run.settings)  # settings are JSON, as those of a run folder


@pytest.mark.parametrize(
    ("path", "sigma"),
    [
        ("noise_0.25/test/sigma_0.50", 0.5),
        ("sigma_0.25/noise_1.00", 0.25),
        ("sigma_0.25/other/sigma_1.00/log.tsv", 1.0),
        ("noise_0.12/noise_0.25.txt", 0.25),
        ("sigma_0.50_p_3_scale_16", 0.5),
        ("noise_0.00/test/log", None),
        ("noise_0.00/test/sigma_0.12", 0.12),
        ("sigma_25/log", None),
        ("sigma_25/noise_0.25/log", 0.25),
        ("nosigma_0.50/antinoise_0.25/log", None),
        ("log", None),
    ],
)
def test_sigma_is_read_from_the_path(tmp_path, path, sigma):
    assert sigma_of_path(tmp_path / path) == sigma
    assert read_published_log(log(tmp_path / path)).settings["sigma"] == sigma


def test_sigma_is_found_from_within_the_folder(tmp_path, monkeypatch):
    folder = log(tmp_path / "sigma_0.75" / "log").parent
    monkeypatch.chdir(folder)
    assert read_published_log("log").settings["sigma"] == 0.75


def test_torn_at_every_byte(tmp_path):
    file = log(tmp_path / "log")
    whole = read_published_log(file).rows
    content = file.read_bytes()
    for length in range(len(HEADER) + 1, len(content) + 1):
        file.write_bytes(content[:length])
        # A line counts from the moment at which its last tab stands: only the time is open then, and it is not read.
        lines = [line for line in content[:length].decode().split("\n")[1:] if line.count("\t") == 5]
        if lines:
            indices = {int(line.split("\t")[0]) for line in lines}
            assert read_published_log(file).rows == {index: whole[index] for index in indices}
        else:
            with pytest.raises(RunError, match="at least one finished line"):
                read_published_log(file)


def test_lines_may_end_as_on_windows(tmp_path):
    file = log(tmp_path / "log")
    rows = read_published_log(file).rows
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert read_published_log(file).rows == rows


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1\t3\t3\t0.5\t1", "6 columns with tabs between them are required, got 5 .*mend or remove"),
        ("1\t3\t3\t0.5\t1\t0:00\tmore", "6 columns with tabs between them are required, got 7"),
        ("1 3 3 0.5 1 0:00", "6 columns with tabs between them are required, got 1"),
        ("", "6 columns with tabs between them are required, got 1"),
        ("x\t3\t3\t0.5\t1\t0:00", "idx must be a whole number of at least 0, got 'x'. Check that the columns"),
        ("-1\t3\t3\t0.5\t1\t0:00", "idx must be a whole number of at least 0, got '-1'"),
        ("1.0\t3\t3\t0.5\t1\t0:00", "idx must be a whole number of at least 0, got '1.0'"),
        ("1\t-1\t3\t0.5\t0\t0:00", "label must be a whole number of at least 0, got '-1'"),
        ("1\t3_0\t30\t0.5\t1\t0:00", "label must be a whole number of at least 0, got '3_0'"),
        ("1\t3\t-2\t0.5\t0\t0:00", "predict must be a whole number of at least -1, got '-2'"),
        ("1\t3\tcat\t0.5\t0\t0:00", "predict must be a whole number of at least -1, got 'cat'"),
        ("1\t3\t3\tfar\t1\t0:00", "radius must be a finite number of at least 0, got 'far'. An abstention has 0.0"),
        ("1\t3\t3\t\t1\t0:00", "radius must be a finite number of at least 0, got ''"),
        ("1\t3\t3\t1_0\t1\t0:00", "radius must be a finite number of at least 0, got '1_0'"),
        ("1\t3\t3\t-0.5\t1\t0:00", "radius must be a finite number of at least 0, got '-0.5'"),
        ("1\t3\t3\tnan\t1\t0:00", "radius must be a finite number of at least 0, got 'nan'"),
        ("1\t3\t3\tinf\t1\t0:00", "radius must be a finite number of at least 0, got 'inf'"),
        (
            "1\t3\t3\t0.5\t0\t0:00",
            "correct must be 1 for label 3 and predict 3, got '0'. Columns may be in another order",
        ),
        ("1\t3\t4\t0.5\t1\t0:00", "correct must be 0 for label 3 and predict 4, got '1'"),
        ("1\t3\t-1\t0.0\t1\t0:00", "correct must be 0 for label 3 and predict -1, got '1'"),
        ("1\t3\t3\t0.5\tTrue\t0:00", "correct must be 1 for label 3 and predict 3, got 'True'"),
        ("1\t3\t-1\t0.5\t0\t0:00", r"an abstention \(-1 under predict\) must have radius 0.0, got 0.5"),
        ("40\t7\t2\t0.25\t0\t0:00", "every image must have one line, got idx 40 a second time. Remove one"),
    ],
)
def test_a_bad_line_is_refused_with_file_and_number(tmp_path, line, message):
    file = log(tmp_path / "log", [*LINES[:2], line, *LINES[2:]])
    with pytest.raises(RunError, match=rf"log, line 4: {message}"):
        read_published_log(file)


@pytest.mark.parametrize(
    "header",
    ["", "idx", HEADER.replace("\t", ","), HEADER.replace("predict", "prediction"), HEADER + "\tpa", '{"sigma": 1}'],
)
def test_another_header_is_refused(tmp_path, header):
    with pytest.raises(
        RunError,
        match=r"log is not a run folder, and a published log must begin with the header .*got .*pass its folder",
    ):
        read_published_log(log(tmp_path / "log", header=header))


@pytest.mark.parametrize("end", ["", "\n", "\n0\t3", "\n0\t3\t3\t1.87\t1"])
def test_an_empty_log_is_refused(tmp_path, end):
    with pytest.raises(RunError, match="log must hold at least one finished line under its header, got none"):
        read_published_log(log(tmp_path / "log", [], end=end))


def test_what_is_no_text_or_no_file_is_refused(tmp_path):
    (tmp_path / "picture").write_bytes(b"\x89PNG\r\n\xff")
    with pytest.raises(RunError, match="picture must be a text file"):
        read_published_log(tmp_path / "picture")
    with pytest.raises(RunError, match="missing cannot be read .*Pass the path of a published log"):
        read_published_log(tmp_path / "missing")
    with pytest.raises(RunError, match="cannot be read .*Pass the path of a published log"):
        read_published_log(tmp_path)


def test_a_file_inside_a_run_folder_is_explained(tmp_path):
    folder = own_run(tmp_path / "own")
    with pytest.raises(RunError, match="For a run of this library pass its folder, not a file in it"):
        report([folder / "certificates-0.jsonl"])


@pytest.mark.parametrize(
    ("radii", "coarse"),
    [(["1.87", "0.0123"], True), (["1.872", "0.012"], True), (["1.872", "0.0123"], False), (["0.12345"], False)],
)
def test_a_log_with_more_digits_is_not_called_rounded(tmp_path, radii, coarse):
    lines = [f"{i}\t3\t3\t{radius}\t1\t0:00" for i, radius in enumerate(radii)]
    text = caption(read_published_log(log(tmp_path / "log", lines)))
    assert ("rounded to 3 digits as published" in text) == coarse
    assert ("with the digits that were published" in text) == (not coarse)


def test_the_caption_says_what_is_not_known(tmp_path):
    run = read_published_log(log(tmp_path / "log"))
    labels = run.settings["dataset"]["labels_sha256"][:8]
    assert caption(run) == (
        "l2 one-sided radii, rounded to 3 digits as published; published log; alpha not stated; "
        f"5 images of an unknown data set (labels {labels})"
    )


def test_the_caption_of_a_run_folder_is_as_ever(tmp_path):
    text = report([own_run(tmp_path / "own")])
    assert (
        "\nl2 one-sided radii; fixed-n (n = 1,000); alpha = 0.001; 5 images of toys test (01234567); "
        "noise gaussian at 3x8x8.\n"
    ) in text


@pytest.mark.parametrize("seed", range(3))
def test_the_report_holds_the_figures_of_the_log(tmp_path, seed):
    lines = synthetic(seed)
    radii = [0.0, 0.25, 0.5, 1.0]
    text = report([log(tmp_path / "sigma_0.50", lines)], radii=radii, output_dir=tmp_path / "out")
    assert (tmp_path / "out" / "report.md").read_text() == text
    # Columns as text, by another way than the reader's.
    columns = np.array([line.split("\t")[:4] for line in lines])
    predictions, labels, certified = columns[:, 2].astype(int), columns[:, 1].astype(int), columns[:, 3].astype(float)
    curve = statistics.certified_accuracy(predictions, labels, certified, radii)
    row = cells(text)
    for i, r in enumerate(radii):
        expected = f"{100 * curve.accuracy[i]:.1f} ({100 * curve.lower[i]:.1f}-{100 * curve.upper[i]:.1f})"
        assert row[f"r = {r:g}"] == expected
    average = statistics.average_certified_radius(predictions, labels, certified)
    assert row["ACR"] == statistics.round_down(average)
    assert row["abstained"] == f"{100 * statistics.abstention_rate(predictions):.1f}"
    assert (row["sigma"], row["images"]) == ("0.5", "200")
    assert row["model"].endswith("sigma_0.50")
    # Not trivially so: the figures differ from each other, and the log has what it takes to go wrong.
    assert 0 < curve.accuracy[-1] < curve.accuracy[1] < curve.accuracy[0] < 1
    assert {-1, 0} <= set(predictions) and np.count_nonzero(certified == 0.25) > 5


def test_a_log_never_shares_a_table_with_a_run(tmp_path):
    paths = [log(tmp_path / "noise_0.50"), own_run(tmp_path / "own"), log(tmp_path / "other" / "noise_0.50")]
    text = report(paths, names=["first", "third", "second"], output_dir=tmp_path / "out")
    assert "2 tables that must not be compared" in text
    tables = text.split("Certified accuracy in %")[1:]
    assert [[name in part for name in ("first", "third", "second")] for part in tables] == [
        [True, False, True],
        [False, True, False],
    ]
    assert "published log; alpha not stated" in tables[0] and "fixed-n" in tables[1]
    assert (tmp_path / "out" / "certified_accuracy_2.png").read_bytes().startswith(b"\x89PNG")


def test_logs_of_other_images_stand_apart(tmp_path):
    first = read_published_log(log(tmp_path / "a"))
    again = read_published_log(log(tmp_path / "b", [line.replace("1.87", "1.5") for line in reversed(LINES)]))
    other = read_published_log(log(tmp_path / "c", ["0\t4\t4\t1.87\t1\t0:00", *LINES[1:]]))
    assert [runs for _, runs in comparable([first, again, other])] == [[first, again], [other]]


def test_an_unknown_sigma_is_a_question_mark(tmp_path):
    paths = [log(tmp_path / "unknown"), log(tmp_path / "sigma_0.50"), log(tmp_path / "sigma_0.25")]
    text = report(paths, output_dir=tmp_path / "out")
    assert [cells(text, line)["sigma"] for line in range(3)] == ["?", "0.5", "0.25"]
    assert (tmp_path / "out" / "certified_accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_the_curve_of_an_unknown_sigma_has_a_style_and_a_name(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    drawn = {}
    draw = Axes.plot

    def note(self, *args, **options):
        drawn[options["label"]] = options["linestyle"]
        return draw(self, *args, **options)

    monkeypatch.setattr(Axes, "plot", note)
    files = [log(tmp_path / name) for name in ("unknown", "sigma_0.50", "sigma_0.25")]
    plot([measure(read_published_log(file), name="m") for file in files], tmp_path / "curve.png")
    assert drawn == {"m, sigma ?": ":", "m, sigma 0.5": "--", "m, sigma 0.25": "-"}
