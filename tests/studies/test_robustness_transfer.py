"""The study of robustness transfer as a person runs it, on data and networks of seconds."""

import json
from pathlib import Path

import numpy as np
import pytest

from examples.studies.command import main
from examples.studies.robustness_transfer.curves import matched_difference, mean_matched_difference
from examples.studies.robustness_transfer.plan import plan
from tests.support.image_folders import image_folder


FOLDER = Path(__file__).resolve().parents[2] / "examples" / "studies" / "robustness_transfer"


@pytest.fixture
def config():
    return json.loads((FOLDER / "cpu.json").read_text())


def test_every_need_comes_first_and_every_network_sees_the_same_images(config):
    names, budgets = [], {}
    for stage in plan({**config, "sweeps": {}}):
        assert set(stage.needs) <= set(names), stage
        assert stage.name not in names
        names.append(stage.name)
        if stage.kind in ("pretrain", "train"):
            settings = stage.settings
            budget = settings["arguments"]["num_train_epochs"], settings["train_images"]
            budgets.setdefault((stage.kind, settings["data"]), set()).add(budget)
    assert all(len(found) == 1 for found in budgets.values())
    ways = {name.split("/")[3] for name in names if name.startswith("train/")}
    assert ways == {name.replace(" ", "-") for name in config["ways"]}
    for way, pretrainings in (("plain", 4), ("hundredfold-mitigation", 3)):
        trained = [name for name in names if name.startswith("train/") and name.split("/")[3] == way]
        assert len(trained) == 2 * pretrainings * 3  # targets, pretrainings, seeds
    compared = [name for name in names if name.startswith("train/") and "/TRADES/" in name]
    assert compared == ["train/cifar10/clean/TRADES/seed0"]


@pytest.mark.parametrize("scale", ["cpu", "gpu"])
def test_a_sweep_changes_one_thing(scale):
    stages = {stage.name: stage for stage in plan(json.loads((FOLDER / f"{scale}.json").read_text()))}
    names = list(stages)
    for name, stage in stages.items():
        assert all(names.index(need) < names.index(name) for need in stage.needs)
    plain = stages["train/cifar10/clean/plain/seed0"].settings
    assert stages["attack/frozen-depth/all-trained/clean"].needs == ("train/cifar10/clean/plain/seed0",)
    blurred, alone = (
        stages["train/shift/blur-of-1-pixel/clean"],
        stages["train/frozen-depth/the-head-alone-trained/clean"],
    )
    assert {k for k in plain if blurred.settings[k] != plain[k]} == {"corruption"}
    assert stages["attack/shift/blur-of-1-pixel/none"].settings["corruption"] == blurred.settings["corruption"]
    assert {k for k in plain if alone.settings[k] != plain[k]} == {"arguments"}
    assert stages["attack/frozen-depth/the-head-alone-trained/none"].needs == ("train/cifar10/none/plain/seed0",)
    if scale == "cpu":
        weights = stages["attack/weight-of-mitigation/50,000/clean"]
        assert weights.needs == ("train/cifar10/clean/hundredfold-mitigation/seed0",)
        assert weights.settings["held_out"] == stages[weights.needs[0]].settings["held_out"]
        assert weights.settings["held_out_seed"] == stages[weights.needs[0]].settings["held_out_seed"]
        tested = [name for name in names if name.startswith("attack/") and "held_out" not in stages[name].settings]
        assert all(
            name.startswith("attack/weight-of-mitigation/") for name in set(names) - set(tested) if "attack" in name
        )
    deep = stages["train/network/twice-as-deep/clean"]
    assert stages[deep.needs[0]].settings["network"] == deep.settings["network"] != plain["network"]


def test_seeds_of_one_image_belong_together():
    rng = np.random.default_rng(0)

    def curve(shares):
        return rng.random(300) < np.array(shares)[:, None]

    def falling(shares):
        return np.logical_and.accumulate(curve(shares), axis=0)

    first, second, third, fourth = (falling(shares) for shares in ((0.9, 0.6, 0.3), (0.8, 0.8, 0.7)) * 2)
    epsilons = [0.0, 0.1, 0.3]
    alone = matched_difference(epsilons, first, second)
    once = mean_matched_difference(epsilons, [(first, second)])
    assert once.value == pytest.approx(alone.value)
    assert once.high - once.low == pytest.approx(alone.high - alone.low, rel=0.01)
    # The same networks again add nothing new; others do.
    thrice = mean_matched_difference(epsilons, [(first, second)] * 3)
    assert (thrice.low, thrice.high) == (pytest.approx(once.low), pytest.approx(once.high))
    both = mean_matched_difference(epsilons, [(first, second), (third, fourth)])
    assert both.value == pytest.approx((alone.value + matched_difference(epsilons, third, fourth).value) / 2)
    assert both.high - both.low < 0.85 * (once.high - once.low)
    assert mean_matched_difference(epsilons, [(first, ~first)]) is None


@pytest.mark.slow
def test_a_small_study_from_start_to_report(config, tmp_path, capsys):
    image_folder(tmp_path / "data" / "source", ["a", "b", "c"], 48)
    image_folder(tmp_path / "data" / "target", ["x", "y"], 48)
    config |= {"source": "source", "size": 8, "model_size": 16, "seeds": [0]}
    config["network"] |= {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1]}
    config["held_out"] = {"source": 8, "target": 8, "seed": 0}
    config["arguments"] |= {"per_device_train_batch_size": 16}
    config["pretraining"]["arguments"]["num_train_epochs"] = 1
    config["pretraining"]["kinds"].pop("adversarial")
    config["target_data"] = {
        "target": {"train_images": 32, "arguments": {"num_train_epochs": 2, "learning_rate": 0.05}}
    }
    taught = {"target": ["target"], "pretraining": ["mixture"], "seed": [0]}
    config["ways"] = {
        name: config["ways"][name] for name in ("plain", "discrepancy mitigation", "feature distillation")
    }
    config["ways"]["feature distillation"]["only"] = taught
    config["attack"] |= {"steps": 2, "epsilons": {"linf": [0, 0.02, 0.2], "l2": [0, 0.2]}}
    config["certification"] |= {"stride": 6, "n": 400, "targets": [0, 0.1]}
    config["analysis"]["images"] = 16
    points = {"half": {"train_images": 16}, "head": {"arguments": {"trainable": ["classifier"]}}}
    points["blur"] = {"corruption": {"kind": "gaussian-blur", "strength": 1.0}}
    points["wide"] = {"network": config["network"] | {"hidden_sizes": [8, 16]}}
    ways = {"plain": {}, "mitigation": {"way": "discrepancy mitigation"}}
    config["sweeps"] = {
        "factors": {"target": "target", "pretraining": "clean", "points": points},
        "choice": {"target": "target", "pretraining": "clean", "held_out": True, "points": ways},
    }
    config["attack"]["images"] = 8
    (tmp_path / "small.json").write_text(json.dumps(config))
    docs = tmp_path / "docs"
    docs.mkdir()
    page = docs / "robustness_transfer.md"
    page.write_text(
        "<!-- table small sweep-factors -->\nold\n<!-- end -->\n<!-- table small sweep-choice -->\nold\n<!-- end -->\n"
        + "".join(
            f"<!-- table small {name}-target -->\nold\n<!-- end -->\n"
            for name in ("brittle", "mitigated", "mixture", "inherited")
        )
        + "".join(f"<!-- table small {name} -->\nold\n<!-- end -->\n" for name in ("answers", "verdicts", "factors"))
    )

    common = ["--config", str(tmp_path / "small.json"), "--output-dir", str(tmp_path / "out")]
    main("examples.studies.robustness_transfer", None, ["run", *common, "--data", str(tmp_path / "data")])
    main("examples.studies.robustness_transfer", None, ["status", *common])
    assert "train: 14 of 14 done" in capsys.readouterr().out
    main("examples.studies.robustness_transfer", None, ["report", *common, "--docs", str(docs)])
    text = page.read_text()
    assert "old" not in text
    assert "Not measured yet" not in text
    assert "Tables without a place in robustness_transfer.md: none" in capsys.readouterr().out
    assert (tmp_path / "out/analyse/target/mixture/plain/report.html").exists()
    figures = json.loads((docs / "results" / "robustness_transfer.json").read_text())["small"]
    assert figures["brittle-target"]["mixture"]["seeds"] == [0]
    assert set(figures["sweep-factors"]) == set(points)
    assert set(figures["sweep-choice"]) == set(ways)
    assert "on 8 held-out images; seed 0" in text
    assert "feature distillation/mixture" in figures["mitigated-target"]
    assert (docs / "figures/robustness_transfer/small/target.png").stat().st_size > 10_000
    kept = json.loads((tmp_path / "out/train/target/mixture/feature-distillation/seed0/settings.json").read_text())
    assert kept["arguments"]["objective_args"] == {"teacher": "backbone"}  # no path of this machine
    main(
        "examples.studies.robustness_transfer",
        None,
        ["report", *[*common[:3], str(tmp_path / "nowhere")], "--docs", str(docs)],
    )  # from the records alone
    assert page.read_text() == text
