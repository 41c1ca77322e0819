"""What a report says of published logs, which never share a table with our own runs."""

from __future__ import annotations

import numpy as np
import pytest

from hf_smoothing import statistics
from hf_smoothing.reports import measure, plot, report
from hf_smoothing.reports.grouping import Conditions, comparable
from hf_smoothing.reports.published import read_published_log
from tests.support.published import LINES, cells, log, own_run, synthetic
from tests.support.written_runs import short_hash


def test_the_caption_says_what_is_not_known(tmp_path):
    run = read_published_log(log(tmp_path / "log"))
    labels = Conditions.of(run).short_hash
    assert str(Conditions.of(run)) == (
        "l2 one-sided radii, rounded to 3 digits as published; published log; alpha not stated; "
        f"5 images of an unknown data set with labels ({labels})"
    )


def test_the_caption_of_a_run_folder_is_as_ever(tmp_path):
    text = report([own_run(tmp_path / "own")])
    assert (
        "\nl2 one-sided radii; fixed-n (n0 = 100, n = 1,000); alpha = 0.001; 5 images of toys test ("
        + short_hash(5)
        + "); "
        "noise gaussian at 3x8x8.\n"
    ) in text


@pytest.mark.parametrize("seed", range(3))
def test_the_report_holds_the_figures_of_the_log(tmp_path, seed):
    lines = synthetic(seed)
    radii = [0.0, 0.25, 0.5, 1.0]
    text = report([log(tmp_path / "sigma_0.50", lines)], thresholds=radii, output_dir=tmp_path / "out")
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
    again = read_published_log(log(tmp_path / "b", [line.replace("0.61", "0.5") for line in reversed(LINES)]))
    other = read_published_log(log(tmp_path / "c", ["0\t4\t4\t0.61\t1\t0:00", *LINES[1:]]))
    assert list(comparable([first, again, other]).values()) == [[first, again], [other]]


def test_an_unknown_sigma_is_a_question_mark(tmp_path):
    paths = [log(tmp_path / "unknown"), log(tmp_path / "sigma_0.50"), log(tmp_path / "sigma_0.25")]
    text = report(paths, output_dir=tmp_path / "out")
    assert [cells(text, line)["sigma"] for line in range(3)] == ["?", "0.5", "0.25"]
    assert text.count("- Row 1: sigma unknown: put it into the path of the log, such as sigma_1.0/log.tsv.") == 1
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
