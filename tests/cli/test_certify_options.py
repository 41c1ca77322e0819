"""What can be asked of `hf-smoothing certify`, how it is recorded, and how the report speaks of it."""

from __future__ import annotations

import json
import re

import datasets
import pytest

from hf_smoothing import read_run
from hf_smoothing.cli import main
from tests.support import commands
from tests.support.classifiers import results
from tests.support.commands import command, model_and_images
from tests.support.tiny import SIZE


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return model_and_images(tmp_path_factory.mktemp("options"))


def certify(place, run, *options, n0="5", n="60"):
    return commands.certify(place / "model", place / "images", run, *options, n0=n0, n=n)


def report(*words):
    return command("report", *words)


def heads(text):
    return re.findall(r"\| r = (\S+)", text)


def settings(run):
    return json.loads((run / "run.json").read_text())


# --- Modes -----------------------------------------------------------------------------------------------------------


def test_fixed(place, tmp_path, capsys):
    assert certify(place, tmp_path / "run", "--mode", "fixed") == 0
    assert settings(tmp_path / "run")["rule"] == {"name": "fixed-n", "n0": 5, "n": 60}
    assert {
        (row["draws"], tuple(row["certified_targets"])) for row in results(read_run(tmp_path / "run")).values()
    } == {(65, ())}
    out = capsys.readouterr().out
    assert heads(out)[:3] == ["0", "0.25", "0.5"]
    assert "l2 one-sided radii; fixed-n (n0 = 5, n = 60)" in out and "†" not in out


def test_targets(place, tmp_path, capsys):
    assert certify(place, tmp_path / "run", "--mode", "targets", "--targets", "0", "0.05", "0.1") == 0
    rule = settings(tmp_path / "run")["rule"]
    assert rule == {
        "name": "sequential, union bound",
        "n0": 5,
        "n": 60,
        "targets": [0.0, 0.05, 0.1],
        "looks": rule["looks"],
        "futility_quantile": 0.97,
    }
    assert rule["looks"][0] == 20 and rule["looks"][-1] == 60
    out = capsys.readouterr().out
    assert heads(out) == ["0", "0.05", "0.1"], "the radii of the table are the targets"
    assert "sequential, union bound (n0 = 5, n = 60)" in out
    assert out.count("†") == 2, "the average radius, and what the mark means"
    for row in results(read_run(tmp_path / "run")).values():
        assert row["certified_targets"] == [
            radius for radius in (0.0, 0.05, 0.1) if radius <= row["radius"] and row["prediction"] >= 0
        ]


def test_curve(place, tmp_path, capsys):
    assert certify(place, tmp_path / "run", "--mode", "curve") == 0
    rule = settings(tmp_path / "run")["rule"]
    assert rule["targets"][:4] == [0.0, 0.025, 0.05, 0.075], "every tenth of sigma, as people write it"
    assert heads(capsys.readouterr().out) == [repr(radius).removesuffix(".0") for radius in rule["targets"][::5]]


def test_spending_counts_what_is_certified_exactly_at_a_target(place, tmp_path, capsys):
    assert certify(place, tmp_path / "run", "--spending", "--targets", "0", "0.05") == 0
    assert settings(tmp_path / "run")["rule"]["name"] == "sequential, error spending"
    found = results(read_run(tmp_path / "run")).values()
    assert {row["radius"] for row in found} <= {0.0, 0.05}
    right = sum(row["radius"] == 0.05 and row["prediction"] == row["label"] for row in found)
    assert right > 0
    assert re.search(rf"\| 0\.25  \| .*\| {100 * right / 6:.1f} \(", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--targets", "0.1", "0.05"], ["--targets must ascend without repetition", "Use --targets 0.05 0.1."]),
        (["--targets", "0.1", "0.1"], ["--targets must ascend without repetition"]),
        (["--targets", "inf"], ["list of target radii >= 0"]),
        (["--targets", "nan"], ["list of target radii >= 0"]),
        (["--mode", "fixed", "--spending"], ["belong to the sequential rules"]),
        (["--mode", "fixed", "--label-aware"], ["belong to the sequential rules"]),
        (["--mode", "curve", "--bound", "runner-up"], ["--mode fixed"]),
        (["--label-aware"], ["Label-aware evaluation selects no class", "Leave n0 out"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_do_not_belong_together(options, words, place, tmp_path, capsys):
    assert certify(place, tmp_path / "run", *options) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words) and "Traceback" not in error, error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("radius", ["0.5", "0.6"])
@pytest.mark.parametrize("spending", [[], ["--spending"]])
def test_a_radius_above_the_ceiling_names_an_n_that_is_enough(place, tmp_path, capsys, radius, spending):
    assert certify(place, tmp_path / "run", "--targets", "0", radius, *spending, "--max-images", "1") == 2
    error = capsys.readouterr().err
    assert f"Target radius {radius} is out of reach: 60 draws" in error
    named = int(re.search(r"Use n = ([\d,]+) or more", error).group(1).replace(",", ""))
    assert 60 < named < 20_000
    assert (
        certify(place, tmp_path / "run", "--targets", "0", radius, *spending, "--max-images", "1", n=str(named)) == 0
    )


@pytest.mark.parametrize("mode", ["fixed", "spam"])
def test_unknown_choices_are_refused_by_the_parser(mode, place, tmp_path, capsys):
    bad = ["--mode", "spam"] if mode == "spam" else ["--noise-kind", "laplace"]
    with pytest.raises(SystemExit) as stopped:
        certify(place, tmp_path / "run", *bad)
    assert stopped.value.code == 2 and "invalid choice" in capsys.readouterr().err


# --- What is recorded, and shown -------------------------------------------------------------------------------------


def test_label_aware_is_recorded_and_shown(place, tmp_path, capsys):
    assert certify(place, tmp_path / "aware", "--label-aware", n0=None) == 0
    out = capsys.readouterr().out
    assert "LABEL-AWARE: for evaluation only, no certificates" in out
    facts = settings(tmp_path / "aware")
    assert facts["label_aware"] is True and facts["rule"]["n0"] == 0
    assert all(row["prediction"] in (-1, row["label"]) for row in results(read_run(tmp_path / "aware")).values())
    assert certify(place, tmp_path / "plain", n0="0") == 0
    assert settings(tmp_path / "plain")["label_aware"] is False
    assert "LABEL-AWARE" not in capsys.readouterr().out
    assert report(tmp_path / "aware", tmp_path / "plain", "--output-dir", tmp_path / "out") == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert text.count("| model") == 2 and text.count("LABEL-AWARE") == 1 and "must not be compared" in text


def test_label_aware_measures_what_the_certificates_promise(place, tmp_path):
    certify(place, tmp_path / "aware", "--label-aware", "--targets", "0", "0.05", n0=None)
    certify(place, tmp_path / "plain", "--targets", "0", "0.05", n0="0")
    for index, row in results(read_run(tmp_path / "plain")).items():
        if row["prediction"] == row["label"] and row["certified_targets"]:
            assert set(row["certified_targets"]) <= set(
                results(read_run(tmp_path / "aware"))[index]["certified_targets"]
            )


def test_the_runner_up_bound_has_a_table_of_its_own(place, tmp_path, capsys):
    assert certify(place, tmp_path / "one", "--mode", "fixed", n="100") == 0
    assert certify(place, tmp_path / "two", "--mode", "fixed", "--bound", "runner-up", n="100") == 0
    out = capsys.readouterr().out
    assert "l2 one-sided radii; fixed-n" in out and "l2 runner-up radii; fixed-n" in out
    assert settings(tmp_path / "two")["bound"] == "runner-up"
    assert all(0.0 <= row["p_upper"] <= 1.0 for row in results(read_run(tmp_path / "two")).values())
    assert not any("p_upper" in row for row in results(read_run(tmp_path / "one")).values())
    assert report(tmp_path / "one", tmp_path / "two", "--output-dir", tmp_path / "out") == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert text.count("| model") == 2 and "2 tables that must not be compared" in text
    for table in text.split("| model")[1:]:
        assert ("one-sided" in table) != ("runner-up" in table)


@pytest.mark.parametrize(
    ("noise", "kind", "words"),
    [("auto", "grid", "8-bit"), ("grid", "grid", "8-bit"), ("gaussian", "gaussian", "rounding is neglected")],
)
def test_the_noise_is_recorded_and_shown(place, tmp_path, capsys, noise, kind, words):
    assert certify(place, tmp_path / "run", "--noise-kind", noise) == 0
    facts = settings(tmp_path / "run")
    assert facts["noise_kind"] == kind and words in facts["threat_model"]
    assert ("total_variation" in facts) == (kind == "grid")
    assert f"noise {kind} at 3x{SIZE}x{SIZE}" in capsys.readouterr().out


def test_runs_of_other_noise_have_tables_of_their_own(place, tmp_path, capsys):
    for noise in ("grid", "gaussian"):
        assert certify(place, tmp_path / noise, "--noise-kind", noise) == 0
    capsys.readouterr()
    assert report(tmp_path / "grid", tmp_path / "gaussian", "--output-dir", tmp_path / "out") == 0
    assert capsys.readouterr().out.count("| model") == 2


def test_channels_last_is_recorded(place, tmp_path):
    assert certify(place, tmp_path / "last", "--channels-last") == 0
    assert certify(place, tmp_path / "first") == 0
    assert settings(tmp_path / "last")["channels_last"] is True
    assert settings(tmp_path / "first")["channels_last"] is False
    assert results(read_run(tmp_path / "last")).keys() == results(read_run(tmp_path / "first")).keys()


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ([], ["--noise-kind", "gaussian"], "noise_kind was 'grid', is 'gaussian'"),
        (["--noise-kind", "gaussian"], [], "noise_kind was 'gaussian', is 'grid'"),
        ([], ["--mode", "fixed"], "rule.name was 'sequential, union bound', is 'fixed-n'"),
        (["--mode", "fixed"], ["--mode", "curve"], "rule.name was 'fixed-n', is 'sequential, union bound'"),
        ([], ["--mode", "curve"], "rule.targets was [0.0, 0.25], is [0.0, 0.025,"),
        (["--mode", "fixed"], ["--mode", "fixed", "--bound", "runner-up"], "bound was 'one-sided', is 'runner-up'"),
        ([], ["--channels-last"], "channels_last was False, is True"),
        ([], ["--streaming", "--max-images", "6"], "dataset.max_images was None, is 6"),
    ],
    ids=lambda value: " ".join(value) or "default" if isinstance(value, list) else "",
)
def test_a_run_is_not_continued_otherwise(place, tmp_path, capsys, first, second, words):
    assert certify(place, tmp_path / "run", *first) == 0
    before = (tmp_path / "run" / "certificates-0.jsonl").read_bytes()
    capsys.readouterr()
    assert certify(place, tmp_path / "run", *second) == 2
    error = capsys.readouterr().err
    assert words in error and "Use the same settings, or another output folder" in error, error
    assert (tmp_path / "run" / "certificates-0.jsonl").read_bytes() == before
    # What the noise asked for by default comes to is the same run.
    assert certify(place, tmp_path / "run", *first) == 0
    assert (tmp_path / "run" / "certificates-0.jsonl").read_bytes() == before


def test_a_radius_that_was_no_target_is_marked(place, tmp_path, capsys):
    assert certify(place, tmp_path / "run", "--targets", "0", "0.05") == 0
    assert certify(place, tmp_path / "fixed", "--mode", "fixed") == 0
    capsys.readouterr()
    assert report(tmp_path / "run", "--thresholds", "0", "0.02", "0.05", "--output-dir", tmp_path / "out") == 0
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("| ") and "0.25 " in line)
    assert [cell.strip().endswith("†") for cell in row.split("|")[3:6]] == [False, True, False]
    assert "† Draws stopped when the targets of a run were decided" in out
    assert report(tmp_path / "fixed", "--thresholds", "0", "0.02", "--output-dir", tmp_path / "out") == 0
    assert "†" not in capsys.readouterr().out


def test_few_draws_make_no_curve_of_the_one_radius_that_they_reach(place, tmp_path, capsys):
    """With ten draws the curve and the usual targets are both the radius 0."""
    assert certify(place, tmp_path / "run", n="10") == 0
    assert settings(tmp_path / "run")["rule"]["targets"] == [0.0]
    capsys.readouterr()
    assert report(tmp_path / "run", "--output-dir", tmp_path / "out") == 0
    out = capsys.readouterr().out
    assert "when the targets of a run were decided" in out and "curve, each sigma/10" not in out


def test_by_default_the_table_has_the_targets_of_all_runs(place, tmp_path, capsys):
    assert certify(place, tmp_path / "a", "--targets", "0", "0.05") == 0
    assert certify(place, tmp_path / "b", "--targets", "0", "0.1") == 0
    capsys.readouterr()
    assert report(tmp_path / "a", "--output-dir", tmp_path / "out") == 0
    assert heads(capsys.readouterr().out) == ["0", "0.05"]
    assert report(tmp_path / "a", tmp_path / "b", "--output-dir", tmp_path / "out") == 0
    out = capsys.readouterr().out
    assert set(heads(out)) == {"0", "0.05", "0.1"} and out.count("†") >= 2


# --- Found broken ----------------------------------------------------------------------------------------------------


def test_label_aware_without_labels_is_explained(place, tmp_path, capsys):
    folder = tmp_path / "unlabelled"
    folder.mkdir()
    source = datasets.load_dataset(str(place / "images"), split="test").remove_columns("label")
    source.to_parquet(folder / "test.parquet")
    words = ["certify", place / "model", folder, "--sigma", "0.25", "--n", "60", "--label-aware", "--device", "cpu"]
    assert main([str(word) for word in [*words, "--output-dir", tmp_path / "run"]]) == 2
    error = capsys.readouterr().err
    assert "Label-aware evaluation needs the true class of every image" in error and "Use a labelled split" in error


def test_label_aware_without_labels_leaves_no_folder(place, tmp_path, capsys):
    test_label_aware_without_labels_is_explained(place, tmp_path, capsys)
    assert not (tmp_path / "run").exists()
