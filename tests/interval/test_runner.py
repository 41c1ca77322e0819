"""Deterministic certificates in run folders: resumed, reported, and never in one table with others."""

import json

import datasets
import pytest

from hf_smoothing import certify_dataset, read_run
from hf_smoothing.cli import build_parser, main, verbs_of
from hf_smoothing.interval import certify_dataset_linf, linf_certificates
from hf_smoothing.interval.certificates import BACKWARD
from hf_smoothing.records import RunError
from hf_smoothing.reports import report
from tests.support.bounded_networks import network
from tests.support.tiny import data, parquet_folder, plain, smoothed


def rows(run):
    return {index: {**row, "seconds": None} for index, row in run.rows.items()}


def test_rows_hold_what_the_function_says(tmp_path):
    model, images = smoothed("resnet"), data(10)
    run = certify_dataset_linf(model, images, tmp_path / "run", largest=0.05, batch_size=4, progress=False)
    classes, radii = linf_certificates(model, images.pixels, largest=0.05)
    assert [run.rows[k]["prediction"] for k in range(10)] == classes.tolist()
    assert [run.rows[k]["radius"] for k in range(10)] == pytest.approx(radii.tolist(), abs=2e-8)
    assert [run.rows[k]["label"] for k in range(10)] == images.labels.tolist()
    settings = run.settings
    assert (settings["method"], settings["norm"], settings["deterministic"]) == ("interval-bounds", "linf", True)
    assert settings["rule"]["largest"] == 0.05
    assert len(settings["model"]["weights_sha256"]) == 64


def test_rows_say_which_bound_certified(tmp_path):
    model, images = network("mlp"), data(10, size=8)
    classes, _ = linf_certificates(model, images.pixels, largest=0.05)
    images.labels[:5] = classes[:5]
    run = certify_dataset_linf(
        model, images, tmp_path / "run", largest=0.05, backward="optimised", steps=4, batch_size=4, progress=False
    )
    _, radii = linf_certificates(model, images.pixels, largest=0.05, backward="optimised", steps=4)
    assert [run.rows[k]["radius"] for k in range(10)] == pytest.approx(radii.tolist(), abs=2e-8)
    assert {row["bound"] for row in run.rows.values()} == {"crown", "optimised"}
    assert (run.settings["rule"]["backward"], run.settings["rule"]["steps"]) == ("optimised", 4)
    at_one = certify_dataset_linf(
        model, images, tmp_path / "one", largest=0.001, backward="crown", tolerance=1.0, progress=False
    )
    assert {row["radius"] for row in at_one.rows.values()} <= {0.0, 0.001}
    right = certify_dataset_linf(
        model, images, tmp_path / "right", largest=0.05, backward="optimised", steps=4, only_right=True, progress=False
    )
    for index, row in right.rows.items():
        is_right = row["prediction"] == row["label"]
        assert row["radius"] == pytest.approx(run.rows[index]["radius"] if is_right else 0.0, abs=2e-8)
    assert {row["prediction"] == row["label"] for row in right.rows.values()} == {True, False}
    assert right.settings["rule"]["only_right"]
    images.labels = None
    with pytest.raises(ValueError, match=r"`only_right` needs labels, and images have none\. Use a labelled split"):
        certify_dataset_linf(model, images, tmp_path / "unlabelled", largest=0.05, only_right=True, progress=False)
    assert not (tmp_path / "unlabelled").exists()
    with pytest.raises(ValueError, match=r"one of none, crown-ibp, crown, optimised, got 'lirpa'"):
        certify_dataset_linf(model, images, tmp_path / "bad", largest=0.02, backward="lirpa")


def test_a_run_that_was_cut_off_goes_on_and_another_is_refused(tmp_path):
    model, images = smoothed("resnet"), data(10)
    whole = certify_dataset_linf(model, images, tmp_path / "whole", largest=0.05, batch_size=10, progress=False)
    certify_dataset_linf(model, images, tmp_path / "cut", largest=0.05, batch_size=10, progress=False)
    file = tmp_path / "cut" / "certificates-0.jsonl"
    lines = file.read_bytes().split(b"\n")
    file.write_bytes(b"\n".join(lines[:4]) + b'\n{"index": 4, "lab')
    again = certify_dataset_linf(model, images, tmp_path / "cut", largest=0.05, batch_size=10, progress=False)
    assert sorted(again.rows) == list(range(10))
    for index, row in rows(whole).items():
        assert again.rows[index]["radius"] == pytest.approx(row["radius"], abs=2e-8)
        assert again.rows[index]["prediction"] == row["prediction"]
    with pytest.raises(RunError, match="other settings.*largest"):
        certify_dataset_linf(model, images, tmp_path / "cut", largest=0.04, progress=False)


def test_reports_keep_deterministic_and_probabilistic_certificates_apart(tmp_path):
    model, images = smoothed("resnet"), data(6)
    certify_dataset_linf(model, images, tmp_path / "linf", largest=0.04, progress=False)
    certify_dataset(model, images, tmp_path / "l2", sigma=0.25, n=200, targets=[0.0], progress=False)
    text = report([tmp_path / "linf", tmp_path / "l2"], output_dir=tmp_path / "report")
    assert "2 tables that must not be compared" in text
    assert "linf radii; interval bounds" in text
    assert "deterministic" in text
    assert "r = 0.02" in report([tmp_path / "linf"])
    assert (tmp_path / "report" / "certified_accuracy_1.png").exists()


def test_selection_and_refusals(tmp_path):
    model, images = smoothed("resnet"), data(6)
    run = certify_dataset_linf(model, images, tmp_path / "some", largest=0.04, indices=[5, 1], progress=False)
    assert sorted(run.rows) == [1, 5]
    with pytest.raises(ValueError, match="train mode"):
        certify_dataset_linf(smoothed("resnet").train(), images, tmp_path / "none", largest=0.04)
    with pytest.raises(ValueError, match="`largest` must be above 0 and at most 1.*got 8"):
        certify_dataset_linf(model, images, tmp_path / "none", largest=8)
    with pytest.raises(ValueError, match="got a stream"):
        certify_dataset_linf(
            model, datasets.IterableDataset.from_generator(lambda: iter([])), tmp_path / "none", largest=0.04
        )
    with pytest.raises(ValueError, match="How ResNetForImageClassification normalises"):
        certify_dataset_linf(plain("resnet"), images, tmp_path / "none", largest=0.04)
    assert not (tmp_path / "none").exists()
    module = network("max pool")
    small = data(3, size=8)
    assert len(certify_dataset_linf(module, small, tmp_path / "module", largest=0.04, progress=False).rows) == 3


def test_the_command_offers_every_bound():
    (offered,) = (a.choices for a in verbs_of(build_parser())["certify"]._actions if a.dest == "backward")
    assert tuple(offered) == BACKWARD


def test_the_command(tmp_path, capsys):
    smoothed("resnet").save_pretrained(tmp_path / "model")
    parquet_folder(tmp_path / "images")
    command = [
        "certify",
        str(tmp_path / "model"),
        str(tmp_path / "images"),
        "--method",
        "interval",
        "--output-dir",
        str(tmp_path / "run"),
    ]
    assert main(command) == 2
    assert "--method interval needs --largest" in capsys.readouterr().err
    assert main([*command, "--largest", "0.04", "--sigma", "0.5"]) == 2
    assert "leave --sigma out" in capsys.readouterr().err
    assert (
        main([*command, "--largest", "0.04", "--n", "17", "--alpha", "0.5", "--noise-kind", "grid", "--seed", "3"])
        == 2
    )
    assert (
        "makes no draws and runs the network in its own dtype: leave --n, --alpha, --noise-kind, --seed out"
        in capsys.readouterr().err
    )
    assert (
        main(
            [
                *command[:3],
                "--sigma",
                "0.5",
                "--largest",
                "0.3",
                "--backward",
                "crown",
                "--output-dir",
                str(tmp_path / "other"),
            ]
        )
        == 2
    )
    assert "draws noise: leave --largest, --backward out" in capsys.readouterr().err
    assert main([*command, "--largest", "0.04", "--steps", "5"]) == 2
    assert "--steps is for --backward optimised, got --backward none" in capsys.readouterr().err
    assert main([*command, "--largest", "0.04", "--label-aware"]) == 2
    assert "leave --label-aware out. Certified accuracy in less time: --only-right" in capsys.readouterr().err
    assert main([*command, "--largest", "0.04"]) == 0
    out = capsys.readouterr().out
    assert "deterministic" in out
    run = read_run(tmp_path / "run")
    assert run.rows
    assert json.loads((tmp_path / "run" / "run.json").read_text())["dataset"]["split"] == "test"
    assert main([*command[:3], "--output-dir", str(tmp_path / "other")]) == 2
    assert "--method smoothing needs --sigma" in capsys.readouterr().err
