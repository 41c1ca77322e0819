"""`hf-smoothing demo`: with what the package carries, and with what it is given."""

from __future__ import annotations

import sys
import tomllib
from contextlib import suppress
from pathlib import Path

import pytest
from datasets import load_dataset
from transformers.utils import logging

import hf_smoothing
from hf_smoothing import demo, sample
from hf_smoothing.cli import main
from hf_smoothing.records import read_run


ROOT = Path(hf_smoothing.__file__).parents[1]
QUICK = ["--max-images", "2", "--n", "20", "--epochs", "0.1"]


def test_from_the_sample_in_an_empty_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["demo", *QUICK, "--output-dir", "demo"]) == 0
    out = capsys.readouterr().out
    for title in ("noise-mixture backbone", "no pretraining"):
        assert f"| {title} " in out
    assert "So few images, draws or epochs show that the program runs, and nothing else" in out
    assert (tmp_path / "demo" / "certified_accuracy.png").stat().st_size > 1000
    runs = sorted(path.parent for path in Path("demo").glob("*/run.json"))
    assert [run.name for run in runs] == [
        f"{name}-sigma{sigma}" for name in ("resnet-mixture-small", "scratch") for sigma in ("0.25", "0.5")
    ]
    assert all(len(read_run(run).rows) == 2 for run in runs)


def test_what_the_demo_keeps_quiet_speaks_afterwards(tmp_path):
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with suppress(ZeroDivisionError), demo.quiet_loading():
        assert logging.get_verbosity() == logging.ERROR and not logging.is_progress_bar_enabled()
        raise ZeroDivisionError
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert main(["demo", *QUICK, "--sigmas", "0.25", "--output-dir", str(tmp_path / "demo")]) == 0
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_a_seed_out_of_range_is_refused(tmp_path, capsys):
    assert main(["demo", "--seed", str(2**32), "--output-dir", str(tmp_path / "demo")]) == 2
    assert "--seed must be from 0 to 2**32 - 1, got 4294967296" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_no_epochs_are_refused(tmp_path, capsys):
    assert main(["demo", "--epochs", "-1", "--output-dir", str(tmp_path / "demo")]) == 2
    assert "--epochs must be above 0, got -1." in capsys.readouterr().err


def test_without_matplotlib(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["demo", *QUICK, "--sigmas", "0.25", "--output-dir", str(tmp_path / "demo")]) == 0
    out = capsys.readouterr().out
    assert out.count("pip install 'hf_smoothing[plots]'") == 1
    assert "| noise-mixture backbone " in out
    assert not (tmp_path / "demo" / "certified_accuracy.png").exists()


def test_with_other_backbones(tmp_path, capsys):
    clean, data = str(ROOT / "model_cards" / "resnet-clean-small"), str(ROOT / "examples" / "data")
    words = ["--backbones", clean, "--dataset", data, "--sigmas", "0.5", "--output-dir", str(tmp_path)]
    assert main(["demo", *QUICK, *words]) == 0
    out = capsys.readouterr().out
    assert "clean backbone, 2,000 clean images" in out
    assert "no pretraining" not in out


def test_a_missing_sample_says_so(monkeypatch):
    nowhere = {"backbone": Path("nowhere/backbone"), "images": Path("nowhere/images")}
    monkeypatch.setattr(sample, "_INSTALLED", nowhere)
    monkeypatch.setattr(sample, "_CLONED", nowhere)
    with pytest.raises(FileNotFoundError, match="must be in nowhere/images, which does not exist. Install"):
        sample.sample_images()


def test_the_sample_is_small_and_the_wheel_takes_all_of_it():
    """What the build has to take exists, is what a clone finds, and is at most 5 MB."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    taken = {ROOT / source: target for source, target in build["force-include"].items()}
    assert all(source.exists() for source in taken)
    files = [file for source in taken for file in ([source] if source.is_file() else source.iterdir())]
    assert sum(file.stat().st_size for file in files) <= 5_000_000
    package = Path(hf_smoothing.__file__).parent
    installed = {str(place.relative_to(package.parent)) for place in sample._INSTALLED.values()}
    assert {target if source.is_dir() else str(Path(target).parent) for source, target in taken.items()} == installed
    weights = Path(sample.sample_backbone())
    assert {file.name for file in weights.iterdir() if file.is_file()} == {
        file.name for file in files if file.parent == weights
    }


def test_the_embedded_images_are_the_sample_and_the_rest():
    """Moving the first images into the sample changed neither their number nor their order."""
    whole, part = (load_dataset(str(ROOT / "examples" / "data")), load_dataset(sample.sample_images()))
    for split, count, total in (("train", 1_000, 2_000), ("test", 250, 500)):
        assert (len(part[split]), len(whole[split])) == (count, total)
        assert whole[split]["label"][:count] == part[split]["label"][:]
        assert whole[split][count - 1]["image"].tobytes() == part[split][count - 1]["image"].tobytes()
