"""Published logs: what is read, and what is refused with file and line."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_smoothing.records import RunError
from hf_smoothing.reports import report
from hf_smoothing.reports.grouping import Conditions
from hf_smoothing.reports.published import read_published_log, sigma_of_path
from tests.support.published import HEADER, LINES, log, own_run


def test_rows_by_hand(tmp_path):
    run = read_published_log(log(tmp_path / "noise_0.25" / "test" / "sigma_0.50"))
    assert run.rows == {
        0: {"index": 0, "label": 3, "prediction": 3, "radius": 0.61},
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
        ("1\t3\t3\t0.5\t1", "6 columns are required, as in the header, got 5 .*repair or remove"),
        ("1\t3\t3\t0.5\t1\t0:00\tmore", "6 columns are required, as in the header, got 7"),
        ("1 3 3 0.5 1 0:00", "6 columns are required, as in the header, got 1"),
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
            "correct must be 1 for label 3 and predict 3, got '0'. The log was edited",
        ),
        ("1\t3\t4\t0.5\t1\t0:00", "correct must be 0 for label 3 and predict 4, got '1'"),
        ("1\t3\t-1\t0.0\t1\t0:00", "correct must be 0 for label 3 and predict -1, got '1'"),
        ("1\t3\t4\t0.5\tTrue\t0:00", "correct must be 0 for label 3 and predict 4, got 'True'"),
        ("1\t3\t3\t0.5\tyes\t0:00", "correct must be 1 for label 3 and predict 3, got 'yes'"),
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
    ["", "idx", HEADER.replace("predict", "prediction"), '{"sigma": 1}'],
)
def test_another_header_is_refused(tmp_path, header):
    with pytest.raises(
        RunError,
        match="log is not a run folder, and the header of a published log must name the columns .*lacks .*pass its folder",
    ):
        read_published_log(log(tmp_path / "log", header=header))


@pytest.mark.parametrize("end", ["", "\n", "\n0\t3", "\n0\t3\t3\t1.87\t1"])
def test_an_empty_log_is_refused(tmp_path, end):
    with pytest.raises(RunError, match="log must hold at least one finished line under its header, got none"):
        read_published_log(log(tmp_path / "log", [], end=end))


def rows_of(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_published_log(path).rows


ONE = {0: {"index": 0, "label": 3, "prediction": 3, "radius": 0.5}}
TWO = ONE | {7: {"index": 7, "label": 1, "prediction": -1, "radius": 0.0}}


@pytest.mark.parametrize(
    "content",
    [
        "radius\tpredict\tlabel\tidx\n0.5\t3\t3\t0\n",
        "idx,label,predict,radius,correct,time\n0,3,3,0.5,1,0:00\n",
        "Idx;Label;Predict;Radius\n0;3;3;0.5\n",
        ',idx,label,predict,radius,pABar,time\n0,0,3,3,0.5,0.9,"1 day, 0:00:01"\n',
        "idx\tlabel\tpredict\tradius\tcorrect\ttime\tsigma\n0\t3\t3\t0.5\t1\t0:00\t0.25\n",
        "\ufeffidx\tlabel\tpredict\tradius\n0\t3\t3\t0.5\n",
        "\n\nidx\tlabel\tpredict\tradius\r\n\r\n0\t3\t3\t0.5\r\n  \r\n\t\r\n",
        "idx\tlabel\tpredict\tradius\r0\t3\t3\t0.5\r",
        "idx\tlabel\tpredict\tradius\n0\t3\t3\t0.5\nidx\tlabel\tpredict\tradius\n",
        "idx\tlabel\tpredict\tradius\n0\t3\t3\t0.5\n".encode("utf-16"),
    ],
    ids=["order", "commas", "semicolons", "quotes", "further", "mark", "blank", "mac", "repeated header", "utf-16"],
)
def test_columns_are_found_by_their_names(tmp_path, content):
    assert rows_of(tmp_path / "log", content) == ONE


def test_joined_logs_may_have_other_columns(tmp_path):
    first, second = "idx\tlabel\tpredict\tradius\n0\t3\t3\t0.5\n", "radius,idx,label,predict\n0.0,7,1,-1\n"
    assert rows_of(tmp_path / "log", first + second) == TWO


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "log is empty"),
        ("\n \n", "log is empty"),
        ("idx\tlabel\tpredict\tradius\n", "at least one finished line"),
        ("idx\tlabel\tradius\n0\t3\t0.5\n", "line 1 lacks predict"),
        ("idx\tlabel\tpredict\tradius\tradius\n0\t3\t3\t0.5\t0.6\n", "the column radius must be there once, got it 2 times"),
        ("idx\tlabel\tpredict\tradius\n0\t3\t3\t0.", "line 2 may be cut off in its last column, radius"),
        ("idx\tlabel\tpredict\tradius\n0\t3\t3\t157.6\n", "line 2: radius 157.6 is larger than any sigma up to 4 can certify.*by 255"),
    ],
)  # fmt: skip
def test_what_a_log_lacks_is_said(tmp_path, content, message):
    with pytest.raises(RunError, match=message):
        rows_of(tmp_path / "log", content)


def test_radii_that_the_sigma_of_the_path_cannot_certify_are_refused(tmp_path):
    line = ["0\t3\t3\t1.6\t1\t0:00"]
    with pytest.raises(
        RunError, match="line 2: radius 1.6 is larger than sigma 0.25, which the path names, can certify"
    ):
        read_published_log(log(tmp_path / "sigma_0.25", line))
    assert read_published_log(log(tmp_path / "sigma_0.50", line)).rows[0]["radius"] == 1.6
    with pytest.raises(RunError, match="must name sigma in .* at most 4, got 64.*divide them by 255"):
        read_published_log(log(tmp_path / "sigma_64.0", line))


EXTRA = st.sampled_from(["correct", "time", "pABar", "", "n"])


@given(st.data())
def test_any_layout_gives_the_same_rows(tmp_path_factory, data):
    """Order, further columns, separator, line ends, empty lines and repeated headers change nothing; a cut loses lines at most."""
    rows = [
        (i, data.draw(st.integers(0, 9)), data.draw(st.integers(-1, 9))) for i in range(data.draw(st.integers(1, 4)))
    ]
    radii = [0.0 if p < 0 else data.draw(st.sampled_from([0.0, 0.25, 0.123, 1e-05])) for _, _, p in rows]
    names = data.draw(
        st.permutations(["idx", "label", "predict", "radius", *data.draw(st.lists(EXTRA, max_size=3, unique=True))])
    )
    mark, end = data.draw(st.sampled_from("\t,;")), data.draw(st.sampled_from(["\n", "\r\n"]))
    blank = st.sampled_from(["", end, "  " + end])
    text = data.draw(st.sampled_from(["", "\ufeff"])) + data.draw(blank) + mark.join(names) + end
    for (index, label, prediction), radius in zip(rows, radii, strict=True):
        fields = {
            "idx": index,
            "label": label,
            "predict": prediction,
            "radius": radius,
            "correct": int(label == prediction),
        }
        text += mark.join(str(fields.get(name, "x")) for name in names) + end + data.draw(blank)
        text += data.draw(st.sampled_from(["", mark.join(names) + end]))
    expected = {
        i: {"index": i, "label": y, "prediction": p, "radius": r} for (i, y, p), r in zip(rows, radii, strict=True)
    }
    path = tmp_path_factory.mktemp("logs") / "log"
    assert rows_of(path, text) == expected
    cut = text.encode()[: data.draw(st.integers(0, len(text.encode())))]
    with contextlib.suppress(RunError):
        assert rows_of(path, cut).items() <= expected.items()


@given(
    st.binary(max_size=60)
    | st.text(st.sampled_from('idxlabelpredictradius\t,;\n\r 0123.-"e'), max_size=80).map(str.encode),
    st.booleans(),
)
def test_nonsense_is_refused_and_never_another_error(tmp_path_factory, content, headed):
    path = tmp_path_factory.mktemp("logs") / "log"
    with contextlib.suppress(RunError):
        rows_of(path, (b"idx\tlabel\tpredict\tradius\n" if headed else b"") + content)


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
    text = str(Conditions.of(read_published_log(log(tmp_path / "log", lines))))
    assert ("rounded to 3 digits as published" in text) == coarse
    assert ("with the digits that were published" in text) == (not coarse)
