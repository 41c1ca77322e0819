"""A config.json with a value of another type is refused as one, whichever way it is read."""

import json

import pytest

from hf_smoothing import SmoothedClassifier, smoothed_ensemble
from hf_smoothing.cli import main
from hf_smoothing.models.configuration import SmoothedClassifierConfig
from hf_smoothing.models.restoring import load_as
from tests.support.tiny import MEAN, SIZE, STD, parquet_folder, plain, smoothed


ABOUT = {"size": SIZE, "image_mean": MEAN, "image_std": STD}
NETWORKS = {
    "plain": lambda: plain("vit"),
    "wrapped": lambda: smoothed("vit"),
    "ensemble": lambda: smoothed_ensemble([smoothed("vit"), smoothed("vit")], sigma=0.25),
}


def edited(folder, model, value):
    """Saved, with a number of the innermost configuration written as a text, or left to be none."""
    model.save_pretrained(folder)
    values = json.loads((folder / "config.json").read_text("utf-8"))
    inner = values.get("base_config", values)
    for one in [member["base_config"] for member in inner.get("members", [])] or [inner]:
        one["hidden_size"] = value
    (folder / "config.json").write_text(json.dumps(values), "utf-8")
    return folder


@pytest.mark.parametrize("value", ["16", [16], 16.5])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_value_is_named_with_the_file_to_correct(name, value, tmp_path):
    model = NETWORKS[name]()
    folder = edited(tmp_path, model, value)
    load = {
        "plain": lambda: SmoothedClassifier.from_base_pretrained(folder, sigma=0.25, **ABOUT),
        "wrapped": lambda: SmoothedClassifier.from_pretrained(folder),
        "ensemble": lambda: SmoothedClassifier.from_pretrained(folder),
    }
    for read in (load[name], lambda: load_as(model, str(folder))):
        with pytest.raises(ValueError, match=r"holds what no configuration can be made of .*hidden_size.*config.json"):
            read()


def test_so_is_a_configuration_in_memory():
    values = plain("vit").config.to_dict() | {"hidden_size": "16"}
    with pytest.raises(ValueError, match="`base_config` holds what no configuration can be made of .*hidden_size"):
        SmoothedClassifierConfig(base_config=values, sigma=0.25, **ABOUT)


def test_the_command_line_explains_it(tmp_path, capsys):
    folder = edited(tmp_path / "model", smoothed("vit"), "16")
    images = parquet_folder(tmp_path / "images")
    assert main(["certify", str(folder), str(images), "--sigma", "0.25", "--output-dir", str(tmp_path / "run")]) == 2
    assert "holds what no configuration can be made of" in capsys.readouterr().err
