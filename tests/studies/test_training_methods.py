"""The comparison of training methods as a person runs it, on data and networks of seconds."""

import json
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForImageClassification

from examples.studies.command import main
from examples.studies.recipes import check_trainings
from examples.studies.training_methods.plan import plan, seeds_of
from examples.studies.training_methods.report import _minutes
from tests.support.image_folders import image_folder


FOLDER = Path(__file__).resolve().parents[2] / "examples" / "studies" / "training_methods"


@pytest.mark.parametrize("scale", ["cpu", "gpu"])
def test_all_methods_compute_alike(scale):
    config = json.loads((FOLDER / f"{scale}.json").read_text())
    stages = plan(config)
    check_trainings([stage for stage in stages if stage.kind == "train" and scale == "cpu"])
    for stage in stages:
        if stage.kind == "train" and "seed" in stage.name:
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


def tiny_backbone(network, path):
    """A network that knows its pixels, in a folder."""
    settings = dict(network)
    model = AutoModelForImageClassification.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings))
    model.config.hf_smoothing = {
        "size": [8, 8],
        "model_size": [24, 24],
        "image_mean": [0.5] * 3,
        "image_std": [0.25] * 3,
    }
    model.save_pretrained(path)
    return str(path)


def small_routes(routes, backbone):
    routes["the classifier alone"]["steps"][0]["backbone"] = backbone
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    decoder = {f"decoder_{key}": value for key, value in sizes.items()}
    for name in ("masked denoising", "the same transformer from scratch"):
        for step in routes[name]["steps"]:
            step["arguments"]["num_train_epochs"] = 1
    routes["masked denoising"]["steps"][0]["settings"]["autoencoder"] |= sizes | decoder
    routes["the same transformer from scratch"]["steps"][0]["settings"]["network"] |= sizes | {"image_size": 8}


def test_routes_start_where_others_end_and_are_certified_at_their_noise():
    stages = {stage.name: stage for stage in plan(json.loads((FOLDER / "cpu.json").read_text()))}
    assert stages["denoiser/denoiser-then-stability/sigma0.5"].needs == ("denoiser/denoiser-MSE/sigma0.5",)
    assert stages["denoiser/denoiser-MSE/sigma0.5"].needs == ("train/the-classifier-alone",)
    assert stages["lora/LoRA/sigma0.25"].needs == ("train/the-classifier-alone",)
    assert stages["train/the-classifier-alone"].settings["arguments"]["noise"] == "clean"
    assert len(stages["ensemble/ensemble/sigma0.25"].needs) == 3
    for name, stage in stages.items():
        if name.startswith("certify/"):
            trained = stages[stage.needs[0]]
            noise = trained.settings.get("arguments", {}).get("noise", str(trained.settings.get("sigma")))
            assert noise in ("clean", str(stage.settings["sigma"]))
    scratch = stages["train/the-same-transformer-from-scratch/sigma0.25"].settings["network"]
    encoder = stages["autoencoder/masked-denoising/sigma0.25"].settings["autoencoder"]
    assert all(encoder[key] == scratch[key] for key in ("patch_size", "hidden_size", "num_hidden_layers"))


@pytest.mark.slow
def test_a_small_comparison_from_start_to_report(tmp_path, capsys):
    config = json.loads((FOLDER / "cpu.json").read_text())
    image_folder(tmp_path / "data" / "target", ["x", "y"], 60)
    config |= {"data": "target", "size": 8, "model_size": 16, "held_out": 8, "train_images": 50, "sigmas": [0.25]}
    config["network"] |= {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1]}
    small_routes(config["routes"], tiny_backbone(config["network"], tmp_path / "backbone"))
    config["backbone"] = str(tmp_path / "backbone")
    config["arguments"] |= {"per_device_train_batch_size": 16, "channels_last": False}
    config["certification"] |= {"stride": 5, "n": 500, "up_to": 2}
    config["methods"]["noise"]["seeds"] = config["methods"]["consistency"]["seeds"] = 2
    (tmp_path / "small.json").write_text(json.dumps(config))
    docs = tmp_path / "docs"
    docs.mkdir()
    page = docs / "training_methods.md"
    places = ("verdicts-methods", "verdicts-routes", "sigma-0.25", "routes-0.25")
    page.write_text("".join(f"<!-- table small {name} -->\nold\n<!-- end -->\n" for name in places))
    common = ["--config", str(tmp_path / "small.json"), "--output-dir", str(tmp_path / "out"), "--docs", str(docs)]
    main("examples.studies.training_methods", None, ["run", *common, "--data", str(tmp_path / "data")])
    main("examples.studies.training_methods", None, ["report", *common])
    text = page.read_text()
    assert "Tables without a place in training_methods.md: none" in capsys.readouterr().out
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    tables = ["method", "---", *config["methods"], "route", "---", *config["routes"]]
    assert rows[-len(tables) :] == tables
    verdicts = rows[: -len(tables)]
    assert verdicts[: len(config["methods"]) + 1] == ["method", "---", *list(config["methods"])[1:]]
    assert verdicts[len(config["methods"]) + 1 :][:3] == ["route", "---", "denoiser, MSE"]
    figures = json.loads((docs / "results" / "training_methods.json").read_text())["small"]["0.25"]
    methods, routes = figures["methods"], figures["routes"]
    assert len(methods["noise"]["acr"]) == 2
    assert "acr_minus_baseline" in methods["CAT-RS"]
    assert list(routes) == list(config["routes"])
    assert routes["ensemble"]["minutes"] == 0.0
    lora = json.loads((tmp_path / "out/lora/LoRA/sigma0.25/result.json").read_text())
    assert 0.0 < lora["share_trained"] < 1.0
    for made in ("train/noise/sigma0.25/seed0", "train/the-classifier-alone"):  # not the size of the backbone
        assert json.loads((tmp_path / "out" / made / "model" / "config.json").read_text())["model_size"] == [16, 16]
    assert (docs / "figures" / "training_methods" / "small" / "sigma0.25.png").stat().st_size > 10_000


def test_minutes_are_those_of_the_seed_that_nothing_held_up():
    trained = [{"seconds": 60.0 * minutes, "resumed": minutes == 1} for minutes in (1, 7, 3)]
    assert _minutes(trained) == "3.0"
    assert _minutes(trained[:1]) == "resumed"


def test_more_seeds_are_planned_where_they_are_asked_for():
    assert [len(seeds_of({"seeds": 2, "seeds_at": {"0.5": 3}}, sigma)) for sigma in (0.25, 0.5)] == [2, 3]
    assert not seeds_of({"sigmas": [0.5]}, 0.25) and len(seeds_of({"sigmas": [0.5]}, 0.5)) == 1
    stages = {stage.name: stage for stage in plan(json.loads((FOLDER / "cpu.json").read_text()))}
    first, third = stages["lora/LoRA/sigma0.5"], stages["lora/LoRA/seed2/sigma0.5"]
    assert first.needs == third.needs == ("train/the-classifier-alone",)
    assert first.settings | {"seed": 2} == third.settings
    assert stages["certify/LoRA/seed2/sigma0.5"].settings == stages["certify/LoRA/sigma0.5"].settings
    assert "train/SmoothAdv/sigma0.5/seed2" in stages and "train/SmoothAdv/sigma0.25/seed1" not in stages
