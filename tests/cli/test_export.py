"""`hf-smoothing export`: from a run of interval bounds to files for other verifiers, and mistakes explained."""

from __future__ import annotations

import json
import sys

import pytest

from tests.support import commands
from tests.support.commands import command
from tests.support.tiny import parquet_folder, smoothed


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    smoothed("resnet").save_pretrained(folder / "model")
    parquet_folder(folder / "images", count=6)
    options = ("--method", "interval", "--largest", "0.1", "--device", "cpu", "--output-dir", folder / "run")
    assert command("certify", folder / "model", folder / "images", *options) == 0
    return folder


def test_export_from_the_command_line(place, capsys):
    assert command("export", place / "run") == 0
    folder = place / "run" / "export"
    out = capsys.readouterr().out
    assert f"6 claims about float32 runs in {folder}: network.onnx, vnnlib/, instances.csv and export.json." in out
    assert "Left out" not in out
    lines = (folder / "instances.csv").read_text().splitlines()
    assert lines == [f"network.onnx,vnnlib/image-{index}.vnnlib,300" for index in range(6)]
    assert sorted(file.name for file in (folder / "vnnlib").iterdir()) == [
        f"image-{index}.vnnlib" for index in range(6)
    ]
    assert command("report", place / "run", "--output-dir", place / "out") == 0  # the folder is still a run
    capsys.readouterr()
    assert command("export", place / "run") == 2
    assert "export with files in it. Choose another one." in capsys.readouterr().err


def test_claims_are_chosen(place, tmp_path, capsys):
    choice = ("--indices", "1", "2", "5", "--max-claims", "2", "--timeout", "60")
    assert command("export", place / "run", "--output-dir", tmp_path / "few", *choice) == 0
    out = capsys.readouterr().out
    assert "2 claims about" in out and "Left out: 1 beyond the maximum number of claims." in out
    claims = json.loads((tmp_path / "few" / "export.json").read_text())["claims"]
    assert [(claim["index"], claim["label"]) for claim in claims] == [(1, 1), (2, 2)]
    assert (tmp_path / "few" / "instances.csv").read_text().splitlines()[0] == "network.onnx,vnnlib/image-1.vnnlib,60"


def test_mistakes_are_explained(place, tmp_path, capsys, monkeypatch):
    def fails(*words):
        assert command("export", *words) == 2
        return capsys.readouterr().err

    assert "nowhere does not exist" in fails(place / "nowhere")
    out = ("--output-dir", tmp_path / "out")
    assert "--indices must name images that" in fails(place / "run", "--indices", "99", *out)
    assert "no claim to export: 6 certified below the radius 0.9" in fails(place / "run", "--radius", "0.9", *out)
    assert "--timeout must be a positive number" in fails(place / "run", "--timeout", "-1", *out)
    assert "is that of the model" in fails(place / "run", "--output-dir", place / "model")
    smoothed("resnet", seed=1).save_pretrained(tmp_path / "other")
    assert "another network: model.weights_sha256" in fails(place / "run", "--model", tmp_path / "other", *out)
    assert commands.certify(place / "model", place / "images", tmp_path / "smoothing") == 0
    capsys.readouterr()
    assert "got the method randomized-smoothing: those are about a vote over noise" in fails(tmp_path / "smoothing")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert "onnxscript is missing: pip install 'hf_smoothing[export]'." in fails(place / "run", *out)
    assert not (tmp_path / "out").exists()


def test_real_arithmetic_is_said(place, tmp_path, capsys):
    options = (
        "--method",
        "interval",
        "--largest",
        "0.1",
        "--no-cover-run",
        "--device",
        "cpu",
        "--output-dir",
        tmp_path / "run",
    )
    assert command("certify", place / "model", place / "images", *options) == 0
    assert command("export", tmp_path / "run", "--max-claims", "1") == 0
    out = capsys.readouterr().out
    assert "1 claim about real arithmetic in" in out and "do not cover the rounding of float32" in out
