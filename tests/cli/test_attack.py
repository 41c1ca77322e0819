"""`hf-smoothing attack`: what it prints and keeps, its exit status, and mistakes explained."""

from __future__ import annotations

import json

import pytest

from hf_smoothing.models import NoisyImageProcessor
from tests.support import commands
from tests.support.commands import command, model_and_images
from tests.support.tiny import NAMES, SIZE, parquet_folder, plain, smoothed


@pytest.fixture
def place(tmp_path):
    return model_and_images(tmp_path)


def certify(place, *options, model="model"):
    targets = ("--targets", "0.05", "0.1")
    return commands.certify(place / model, place / "images", place / "run", *targets, *options, n="60")


def attack(place, *options):
    return command("attack", place / "run", "--steps", "2", "--copies", "2", "--n", "100", "--device", "cpu", *options)


def test_attack_from_the_command_line(place, capsys):
    assert certify(place) == 0
    capsys.readouterr()
    assert attack(place, "--seed", "0") == 0
    out = capsys.readouterr().out
    assert "0 of 6 certificates broken" in out
    assert "allows 2 (99.9%: alpha = 0.001 for each of the run's 6 images, 0.001 for each answer)" in out
    assert str(place / "run" / "attack.json") in out and "% of the radius on average" in out
    kept = json.loads((place / "run" / "attack.json").read_text())
    assert (kept["certificates"], kept["steps"], kept["copies"], kept["n"]) == (6, 2, 2, 100)
    assert all(0.0 <= row["distance"] < row["radius"] for row in kept["rows"])
    assert attack(place, "--max-images", "2") == 0
    assert [row["index"] for row in json.loads((place / "run" / "attack-2.json").read_text())["rows"]] == [0, 3]
    assert str(place / "run" / "attack-2.json") in capsys.readouterr().out
    assert json.loads((place / "run" / "attack.json").read_text()) == kept
    fresh = json.loads((place / "run" / "attack-2.json").read_text())
    assert attack(place, "--max-images", "2", "--seed", str(fresh["seed"])) == 0  # a seed that nobody gave is kept
    assert json.loads((place / "run" / "attack-3.json").read_text()) == fresh
    # The folder is still a run, which the report reads and certify resumes.
    assert command("report", place / "run", "--output-dir", place / "out") == 0
    assert certify(place) == 0


def test_broken_certificates_are_the_exit_status(place, capsys):
    assert certify(place) == 0
    file = place / "run" / "certificates-0.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        row["prediction"] = (row["prediction"] + 1) % len(NAMES)
        row["counts_by_look"] = [
            {str((int(k) + 1) % len(NAMES)): n for k, n in look.items()} for look in row["counts_by_look"]
        ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    capsys.readouterr()
    assert attack(place, "--seed", "0") == 1
    assert "6 of 6 certificates broken" in capsys.readouterr().out


def test_what_the_run_does_not_name_is_asked_for(place, capsys):
    assert certify(place) == 0
    file = place / "run" / "run.json"
    settings = json.loads(file.read_text())
    for key in ("model", "dataset"):
        unnamed = json.loads(json.dumps(settings))
        known = unnamed[key].pop("id")
        file.write_text(json.dumps(unnamed))
        assert attack(place) == 2
        assert f"run does not name its {key}. Pass --{key}." in capsys.readouterr().err
        assert attack(place, f"--{key}", known) == 0
        capsys.readouterr()


def test_mistakes_are_explained(place, capsys):
    assert command("attack", place / "nowhere") == 2
    assert "nowhere does not exist" in capsys.readouterr().err
    assert certify(place) == 0
    capsys.readouterr()
    for options, words in (
        (("--split", "train"), "has no split 'train'"),
        (("--steps", "0"), "--steps must be at least 1"),
        (("--n", "5"), "--n must be at least"),
        (("--max-images", "0"), "--max-images must be at least 1"),
        (("--model", place / "nowhere"), "nowhere"),
    ):
        assert attack(place, *options) == 2
        error = capsys.readouterr().err
        assert words in error and "Traceback" not in error
    smoothed("vit", seed=1).save_pretrained(place / "other")
    assert attack(place, "--model", place / "other") == 2
    assert "another network: model.weights_sha256 was" in capsys.readouterr().err
    parquet_folder(place / "others", count=6, seed=1)
    assert attack(place, "--dataset", place / "others") == 2
    assert "does not hold the images" in capsys.readouterr().err


def test_a_label_aware_run_is_refused_on_the_command_line(place, capsys):
    aware = commands.certify(place / "model", place / "images", place / "run", "--label-aware", n0=None)
    assert aware == 0
    assert attack(place) == 2
    assert "was measured label-aware" in capsys.readouterr().err


def test_a_smaller_data_set_is_explained(place, capsys):
    assert certify(place) == 0
    parquet_folder(place / "few", count=2)
    try:
        assert attack(place, "--dataset", place / "few") == 2
    except IndexError:
        pytest.fail("a traceback")


def test_a_run_at_another_size_asks_for_the_size(place, capsys):
    plain("resnet").save_pretrained(place / "plain")
    NoisyImageProcessor(size=SIZE).save_pretrained(place / "plain")
    assert certify(place, "--size", "8", model="plain") == 0
    capsys.readouterr()
    assert attack(place) == 0 or "--size" in capsys.readouterr().err
