"""The comparison of training methods as a person runs it, on data and networks of seconds."""

import json
import sys
from pathlib import Path

import pytest
from test_pretraining_study import image_folder


FOLDER = Path(__file__).resolve().parents[1] / "examples" / "training_methods"


@pytest.fixture(autouse=True)
def modules(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("plan", "study", "work", "report"):
        sys.modules.pop(name, None)
    yield
    for name in ("plan", "study", "work", "report"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("scale", ["cpu", "gpu"])
def test_all_methods_compute_alike(scale):
    from plan import plan

    from hf_smoothing.recipes import check_trainings

    config = json.loads((FOLDER / f"{scale}.json").read_text())
    stages = plan(config)
    check_trainings([stage for stage in stages if stage.kind == "train" and scale == "cpu"])
    for stage in stages:
        if stage.kind == "train":
            arguments = stage.settings["arguments"]
            own = arguments["objective_args"]
            passes = {
                "mixture": 1,
                "consistency": own.get("copies"),
                "stability": 2,
                "macer": own.get("copies"),
                "smoothadv": own.get("copies", 0) * (own.get("steps", 0) + 1),
                "smoothmix": own.get("copies", 0) * (own.get("steps", 0) + 2),
                "cat-rs": own.get("copies", 0) * (own.get("steps", 0) + 2),
            }[arguments["objective"]]
            assert arguments["num_train_epochs"] * passes == pytest.approx(config["passes"])
    assert sum(stage.name.startswith("train/noise/sigma0.5") for stage in stages) == 3
    config["methods"]["noise"].pop("cost")
    with pytest.raises(ValueError, match="'noise' needs its `cost`"):
        plan(config)


def test_a_small_comparison_from_start_to_report(tmp_path, capsys):
    import study

    config = json.loads((FOLDER / "cpu.json").read_text())
    image_folder(tmp_path / "data" / "target", ["x", "y"], 60)
    config |= {"data": "target", "size": 8, "model_size": 16, "held_out": 8, "sigmas": [0.25]}
    config["network"] |= {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1]}
    config["arguments"] |= {"per_device_train_batch_size": 16, "channels_last": False}
    config["certification"] |= {"stride": 5, "n": 500, "up_to": 2}
    config["methods"]["noise"]["seeds"] = config["methods"]["consistency"]["seeds"] = 2
    (tmp_path / "small.json").write_text(json.dumps(config))
    docs = tmp_path / "docs"
    docs.mkdir()
    page = docs / "training_methods.md"
    page.write_text("<!-- table small sigma-0.25 -->\nold\n<!-- end -->\n")
    common = ["--config", str(tmp_path / "small.json"), "--output_dir", str(tmp_path / "out"), "--docs", str(docs)]
    study.main(["run", *common, "--data", str(tmp_path / "data")])
    study.main(["report", *common])
    text = page.read_text()
    assert "Tables without a place in training_methods.md: none" in capsys.readouterr().out
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")][2:]
    assert rows == list(config["methods"])
    figures = json.loads((docs / "results" / "training_methods.json").read_text())["small"]["0.25"]
    assert len(figures["noise"]["acr"]) == 2
    assert "acr_minus_baseline" in figures["CAT-RS"]
    assert (docs / "figures" / "training_methods" / "small" / "sigma0.25.png").stat().st_size > 10_000
