"""A run whose checkpoint does not say how its pixels are normalised: the record says it, wherever the checkpoint lies now."""

from __future__ import annotations

import re
import shutil
from types import SimpleNamespace

import pytest

from hf_smoothing.cli.recorded import load_recorded, recorded_choice
from hf_smoothing.models import NoisyImageProcessor
from hf_smoothing.records import RunError
from tests.support import commands
from tests.support.commands import command
from tests.support.tiny import NAMES, parquet_folder, pil_images, plain, smoothed


SAID = ("--size", "16", "--image-mean", "0.5", "--image-std", "0.25", "0.25", "0.25")
INTERVAL = ("--method", "interval", "--largest", "0.01", "--device", "cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bare network, images, and a run of each method in which its normalisation was given."""
    folder = tmp_path_factory.mktemp("bare")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        plain().save_pretrained("bare")
        parquet_folder(folder / "images", count=4)
        assert commands.certify("bare", "images", "run", *SAID) == 0
        assert command("certify", "bare", "images", "--output-dir", "boxes", *INTERVAL, *SAID) == 0
    return folder


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def spelled(kind, place):
    """The same checkpoint under another name."""
    if kind == "moved":
        (place / "bare").rename(place / "elsewhere")
    return {"dotted": "./bare", "absolute": str(place / "bare"), "moved": "elsewhere"}[kind]


@pytest.mark.parametrize("kind", ["dotted", "absolute", "moved"])
def test_what_the_record_says_is_enough_whatever_the_checkpoint_is_called(kind, place, capsys):
    name = spelled(kind, place)
    few = ("--steps", "1", "--copies", "1", "--n", "50", "--max-images", "1", "--device", "cpu")
    assert command("attack", "run", "--model", name, *few) in (0, 1)
    assert "certificates broken" in capsys.readouterr().out
    assert command("export", "boxes", "--model", name, "--max-claims", "1") == 0, capsys.readouterr().err
    assert command("card", name, "run") == 0, capsys.readouterr().err


def test_a_checkpoint_that_says_its_normalisation_since_is_compared_with_the_record(place, capsys):
    NoisyImageProcessor(size=16, image_mean=[0.4] * 3, image_std=[0.25] * 3).save_pretrained("bare")
    assert command("card", "bare", "run") == 2
    assert "image_mean) was [0.5, 0.5, 0.5], is [0.4, 0.4, 0.4]" in capsys.readouterr().err
    NoisyImageProcessor(size=16, image_mean=[0.5] * 3, image_std=[0.25] * 3).save_pretrained("bare")
    assert command("card", "./bare", "run") == 0, capsys.readouterr().err


@pytest.mark.parametrize("spelling", ["{0}", "{0}/", "./{0}", "{0}//.", "../place/{0}", "{1}/{0}"])
def test_a_data_set_is_the_recorded_one_however_its_path_is_spelled(spelling, place):
    """So its configuration and its column are, too."""
    recorded = {"id": "images/", "split": "test", "config": "some", "image_column": "right"}
    run = SimpleNamespace(settings={"dataset": recorded})
    asked = SimpleNamespace(
        dataset=spelling.format("images", place), split=None, dataset_config=None, image_column=None
    )
    choice = recorded_choice(asked, run)
    assert (choice.dataset_config, choice.image_column) == ("some", "right")
    asked.dataset = "bare"
    assert recorded_choice(asked, run).image_column is None


OF_THE_RUN = SimpleNamespace(path="run", settings={"resolution": [3, 16, 16], "sigma": 0.25})
GREY = {"base": {"num_channels": 1}, "image_mean": [0.5], "image_std": [0.5]}


@pytest.mark.parametrize(
    ("change", "shape"),
    [({"size": 8}, "3 x 8 x 8"), ({"size": [16, 8]}, "3 x 16 x 8"), (GREY, "1 x 16 x 16")],
    ids=str,
)
@pytest.mark.parametrize("size", [None, 8, 16])
def test_a_network_for_other_pixels_is_another_one_whatever_size_is_given(size, change, shape, tmp_path):
    smoothed(**change).config.save_pretrained(tmp_path)
    with pytest.raises(
        RunError, match=rf"run was certified at 3 x 16 x 16 .* at {shape}: it is another network. Pass"
    ):
        load_recorded(str(tmp_path), OF_THE_RUN, size=size)


def test_another_size_than_that_of_the_run_is_refused(tmp_path):
    plain().config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`size` must be that of run, 16 x 16, got 8. Leave it out"):
        load_recorded(str(tmp_path), OF_THE_RUN, size=8)


@pytest.mark.parametrize("run", ["run", "boxes"])
def test_the_code_of_its_card_runs(run, place, capsys):
    assert command("card", "bare", run, "--name", str(place / "bare")) == 0
    text = (place / "bare" / "README.md").read_text()
    image = pil_images(1)[0]
    for folder in (".", *(f"path/to/images/test/{name}" for name in NAMES)):
        (place / folder).mkdir(parents=True, exist_ok=True)
        image.save(place / folder / "image.png")
    capsys.readouterr()
    space = {}
    for code in re.findall("```python\n(.*?)```", text, re.DOTALL):
        code = code.replace("certify(pixels, ", "certify(pixels, n=50, ")
        exec(compile(code.replace('"runs/certified", sigma', '"runs/certified", n=50, sigma'), "card", "exec"), space)
    assert "radius" in capsys.readouterr().out
    config = space["model"].config
    assert (config.size, config.image_mean, config.image_std) == ([16, 16], [0.5] * 3, [0.25] * 3)
