"""The study of smoothing transfer as a person runs it, on data and networks of seconds."""

import json
from pathlib import Path

import numpy as np
import pytest

from examples.studies.command import main
from examples.studies.recipes import last_checkpoint
from examples.studies.smoothing_transfer.plan import plan, rule
from examples.studies.smoothing_transfer.work import choose
from tests.support.image_folders import image_folder


FOLDER = Path(__file__).resolve().parents[2] / "examples" / "studies" / "smoothing_transfer"


@pytest.fixture(params=["cpu", "gpu"])
def config(request):
    return json.loads((FOLDER / f"{request.param}.json").read_text())


def test_every_need_comes_first_and_no_stage_twice(config):
    names = []
    for stage in plan(config):
        assert set(stage.needs) <= set(names), stage
        assert stage.name not in names
        names.append(stage.name)


def test_the_plan_holds_the_whole_grid(config):
    names = {stage.name for stage in plan(config)}
    for pretraining in ("none", "clean", "0.25", "0.5", "1.0", "mixture"):
        for finetuning in ("clean", "0.25", "0.5", "1.0", "mixture"):
            for sigma in (0.25, 0.5, 1.0):
                assert f"certify/resnet/{pretraining}/{finetuning}/seed0/sigma{sigma}" in names
    for architecture, about in config["architectures"].items():
        for seed in (0, 1, 2) if about["grid"] == "full" else about.get("seeds", (0, 1, 2)):
            for sigma in (0.25, 0.5, 1.0):
                matched = [f"{sigma}/{sigma}"] if about["grid"] == "full" else []
                for cell in ("mixture/clean", "mixture/mixture", "clean/clean", *matched):
                    assert f"certify/{architecture}/{cell}/seed{seed}/sigma{sigma}" in names


def test_targets_are_in_sigmas_or_in_radii():
    settings = {"sigma": 0.5, "n": 100, "alpha": 0.001, "label_aware": True, "targets_up_to": 2}
    assert rule(settings | {"targets_per_sigma": 2})["targets"] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert rule(settings | {"targets_every": 0.5})["targets"] == [0.0, 0.5, 1.0]


def test_budgets_are_the_same_for_every_cell(config):
    budgets = {}
    for stage in plan(config):
        if stage.kind in ("pretrain", "finetune") and stage.settings["arguments"] != "as chosen":
            arguments = stage.settings["arguments"]
            if "three-times" in stage.name:
                continue  # says so in its name
            where = stage.kind, stage.name.split("/")[1]
            budgets.setdefault(where, set()).add(
                (arguments["num_train_epochs"], arguments["per_device_train_batch_size"])
            )
    assert budgets
    assert all(len(found) == 1 for found in budgets.values()), budgets


@pytest.fixture
def small(tmp_path):
    """A study of seconds: its configuration and the two folders."""
    config = json.loads((FOLDER / "cpu.json").read_text())
    image_folder(tmp_path / "data" / "source", ["a", "b", "c"], 48)
    image_folder(tmp_path / "data" / "target", ["x", "y"], 40)
    config["data"] = {"source": "source", "target": "target"}
    config["size"] = 8
    config["held_out"] = {"source": 8, "target": 8, "seed": 0}
    config["architectures"] = {"resnet": config["architectures"]["resnet"]}
    resnet = config["architectures"]["resnet"]
    resnet["config"] |= {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1]}
    resnet["model_size"] = 16
    resnet["protocols"] = {"linear probe": resnet["protocols"]["linear probe"]}
    resnet["pretraining"]["num_train_epochs"] = 1
    config["finetuning"]["num_train_epochs"] = 8
    config["arguments"] |= {"per_device_train_batch_size": 16, "use_cpu": True}
    config["noises"] = {key: config["noises"][key] for key in ("clean", "0.25", "mixture")}
    config["ablation"] = {}
    config["more_finetuning"] = {}
    config["seeds"] = [0, 1]
    config["sigmas"] = [0.25]
    config["selection"] |= {"images": 4, "n0": 5, "n": 20}
    config["certification"] |= {"stride": 4, "n": 400}
    config["headline"] |= {"stride": 4, "n": 6000, "cells": [["mixture", "clean"]]}
    (tmp_path / "small.json").write_text(json.dumps(config))
    return config, tmp_path


def study(folder, *arguments):
    main(
        "examples.studies.smoothing_transfer",
        None,
        [*arguments, "--config", str(folder / "small.json"), "--output-dir", str(folder / "out")],
    )


def test_a_small_study_from_start_to_report(small, monkeypatch, capsys):
    config, folder = small
    study(folder, "run", "--data", str(folder / "data"))
    results = sorted((folder / "out").rglob("result.json"))
    assert len(results) == len(plan(config))
    times = [path.stat().st_mtime_ns for path in results]
    capsys.readouterr()
    study(folder, "run", "--data", str(folder / "data"))  # all is done: nothing is done again
    assert [path.stat().st_mtime_ns for path in results] == times
    study(folder, "status")
    assert "certify: " in capsys.readouterr().out

    docs = folder / "docs"
    docs.mkdir()
    page = docs / "smoothing_transfer.md"
    page.write_text(
        "before\n<!-- table small claim1-resnet -->\nold\n<!-- end -->\n<!-- table small summary -->\nold\n<!-- end -->\nafter\n"
    )
    study(folder, "report", "--docs", str(docs), "--data", str(folder / "data"))
    text = page.read_text()
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| 0.25 |" in text
    assert "1. **Clean images are enough?**" in text
    figures = json.loads((docs / "results" / "smoothing_transfer.json").read_text())
    records = [
        json.loads(line) for line in (docs / "results" / "smoothing_transfer-small.jsonl").read_text().splitlines()
    ]
    cell = next(r for r in records if r["stage"] == "certify/resnet/mixture/clean/seed0/sigma0.25")
    other = next(r for r in records if r["stage"] == "certify/resnet/mixture/clean/seed1/sigma0.25")
    acr = np.mean([np.maximum(r["radii"], 0).mean() for r in (cell, other)])
    assert figures["small"]["claim1-resnet"]["0.25"]["ACR"]["clean_finetuning"] == pytest.approx(acr, abs=1e-4)
    assert {path.name for path in (docs / "figures" / "smoothing_transfer" / "small").iterdir()} == {
        "curves-resnet.png",
        "grid-resnet.png",
        "gallery.png",
    }

    # From the committed records alone.
    before = text
    (folder / "out").rename(folder / "elsewhere")
    study(folder, "report", "--docs", str(docs))
    assert page.read_text() == before


def test_a_changed_configuration_names_the_stage(small):
    config, folder = small
    study(folder, "run", "--data", str(folder / "data"), "--only", "pretrain/resnet/clean/seed0")
    config["architectures"]["resnet"]["pretraining"]["learning_rate"] = 0.5
    (folder / "small.json").write_text(json.dumps(config))
    with pytest.raises(
        SystemExit,
        match=r"pretrain/resnet/clean/seed0: arguments.learning_rate was 0.2, is 0.5\n(.*\n)*.*delete those stages",
    ):
        study(folder, "run", "--data", str(folder / "data"))


def test_a_diverged_stage_is_named_and_the_others_are_done(small, capfd):
    config, folder = small
    config["architectures"]["resnet"]["pretraining"]["learning_rate"] = 1e30
    (folder / "small.json").write_text(json.dumps(config))
    with pytest.raises(SystemExit, match="stages failed"):
        study(folder, "run", "--data", str(folder / "data"))
    assert "Training diverged" in capfd.readouterr().err
    assert (folder / "out/finetune/resnet/none/clean/last-stage/seed0/result.json").exists()
    assert not (folder / "out/pretrain/resnet/clean/seed0/model").exists()


def test_the_better_candidate_on_held_out_images_is_chosen():
    candidates = {
        "first": {"selection": {"0.25": 0.2, "0.5": 0.1}, "clean_accuracy": 0.9},
        "second": {"selection": {"0.25": 0.1, "0.5": 0.3}, "clean_accuracy": 0.1},
    }
    assert choose(candidates) == "second"


def test_a_candidate_that_diverged_is_passed_over_and_all_of_them_are_an_error():
    good = {"selection": {"0.25": 0.1}}
    assert choose({"bad": {"diverged": "at step 3"}, "good": good}) == "good"
    with pytest.raises(RuntimeError, match="All candidates diverged: bad"):
        choose({"bad": {"diverged": "at step 3"}})


def test_a_checkpoint_that_was_not_written_to_its_end_is_passed_over(tmp_path):
    assert last_checkpoint(tmp_path) is None
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
    (tmp_path / "checkpoint-9" / "trainer_state.json").write_text("{}")
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-9")


def test_only_takes_what_its_stages_need(small):
    _, folder = small
    study(folder, "run", "--data", str(folder / "data"), "--only", "finetune/resnet/clean/clean/last-stage/seed0")
    done = {path.parent.relative_to(folder / "out").as_posix() for path in (folder / "out").rglob("result.json")}
    assert done == {"pretrain/resnet/clean/seed0", "finetune/resnet/clean/clean/last-stage/seed0"}
