"""`hf-smoothing card` on a tiny model and its own runs."""

import json
import shutil

import pytest

from hf_smoothing import PixelDataset, SmoothedClassifier, certify_dataset
from hf_smoothing.cli import main
from hf_smoothing.interval import certify_dataset_linf
from hf_smoothing.reports.card import check_name
from tests.support.tiny import data, image_dataset, smoothed


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a saved model and a finished run of it."""
    folder = tmp_path_factory.mktemp("made")
    model = smoothed().eval()
    model.save_pretrained(folder / "mine")
    certify_dataset(
        model, data(6), folder / "run", sigma=0.25, n0=10, n=60, targets=[0.0, 0.125], progress=False,
        description={"dataset": {"id": "some/folder", "split": "test"}},
    )  # fmt: skip
    return folder


@pytest.fixture
def place(made, tmp_path):
    shutil.copytree(made, tmp_path / "place")
    return tmp_path / "place"


def card(place, *more, model="mine", run="run"):
    return main(["card", str(place / model), str(place / run), *more])


def test_a_card_is_written_and_the_command_again_changes_nothing(place, capsys):
    assert card(place, "--name", "ada/mine", "--dataset", "ada/toys") == 0
    assert f"Written from 1 run: {place / 'mine' / 'README.md'}." in capsys.readouterr().out
    text = (place / "mine" / "README.md").read_text()
    assert "6 images of ada/toys test" in text and "some/folder" not in text
    assert card(place, "--dataset", "ada/toys") == 0  # the name stays as it was
    assert (place / "mine" / "README.md").read_text() == text


def test_results_that_are_replaced_are_named(place, capsys):
    assert card(place, "--dataset", "ada/toys") == 0
    assert card(place, "--dataset", "ada/toys") == 0
    assert "Replaces" not in capsys.readouterr().out
    assert card(place) == 0
    said = capsys.readouterr().out
    assert "Replaces results of 6 images of ada/toys test by 6 images of some/folder test. For both" in said


def test_a_run_of_other_weights_is_refused(place, capsys):
    smoothed(seed=1).save_pretrained(place / "other")
    assert card(place, model="other") == 2
    said = capsys.readouterr().err
    assert "run holds the certificates of another network: model.weights_sha256 was" in said
    assert not (place / "other" / "README.md").exists()


@pytest.mark.parametrize("linf", [False, True])
def test_the_same_weights_in_another_network_are_refused(linf, place, capsys):
    """As `attack` and `export` refuse it: by its answers."""
    if linf:
        certify_dataset_linf(smoothed().eval(), data(6), place / "boxes", largest=0.01, progress=False)
        assert card(place, run="boxes") == 0, capsys.readouterr().err
    config = json.loads((place / "mine" / "config.json").read_text())
    config["base_config"]["hidden_act"] = "tanh"
    (place / "mine" / "config.json").write_text(json.dumps(config))
    assert card(place, run="boxes" if linf else "run") == 2
    said = capsys.readouterr().err
    assert "holds the certificates of another network" in said and "hidden_act) was 'relu', is 'tanh'" in said


def test_the_same_network_with_other_names_of_its_classes_is_refused(place, capsys):
    model = SmoothedClassifier.from_pretrained(place / "mine").eval()
    images = PixelDataset(image_dataset(), model)
    certify_dataset(model, images, place / "named", sigma=0.25, n0=10, n=60, progress=False)
    assert card(place, run="named") == 0, capsys.readouterr().err
    config = json.loads((place / "mine" / "config.json").read_text())
    config["id2label"] |= {"0": "dog", "1": "cat"}
    config["label2id"] |= {"dog": 0, "cat": 1}
    (place / "mine" / "config.json").write_text(json.dumps(config))
    assert card(place, run="named") == 2
    assert "'cat' is class 0 in" in capsys.readouterr().err


def test_the_same_weights_behind_another_normalisation_are_refused(place, capsys):
    settings = json.loads((place / "run" / "run.json").read_text())
    settings["model"]["preprocessing"] = {"image_mean": [0.0, 0.0, 0.0]}
    (place / "run" / "run.json").write_text(json.dumps(settings))
    assert card(place) == 2
    assert (
        "with the preprocessing of" in (said := capsys.readouterr().err) and "image_mean was [0.0, 0.0, 0.0]" in said
    )


def test_an_unfinished_run_is_refused(place, capsys):
    file = place / "run" / "certificates-0.jsonl"
    file.write_text("\n".join(file.read_text().splitlines()[:-1]) + "\n")
    assert card(place) == 2
    assert "got 5 of 6 images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "run", "message"),
    [
        (".", "run", "must be the folder of a model, got one without config.json"),
        ("nowhere", "run", "nowhere does not exist"),
        ("run", "mine", "run is a run folder, where the model is wanted: the model comes first"),
        ("mine", "nowhere", "nowhere does not exist"),
    ],
)
def test_a_folder_without_a_model_is_explained(model, run, message, place, capsys):
    assert card(place, model=model, run=run) == 2
    assert message in capsys.readouterr().err


def test_one_name_for_two_data_sets_is_refused(place, capsys):
    shutil.copytree(place / "run", place / "second")
    settings = json.loads((place / "second" / "run.json").read_text())
    settings["dataset"]["id"] = "another"
    (place / "second" / "run.json").write_text(json.dumps(settings))
    assert main(["card", *(str(place / name) for name in ("mine", "run", "second")), "--dataset", "ada/toys"]) == 2
    assert "--dataset names the one data set of all runs, got runs of another, some/folder" in capsys.readouterr().err


def test_radii_are_checked_as_in_a_report(place, capsys):
    assert card(place, "--thresholds", "64") == 2
    assert "apart" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    [
        "ada/my flowers",
        "ada/",
        "ada/a/b",
        "ada/-x",
        "ada/" + "b" * 97,
        "",
        "..",
        ".",
        "my flowers",
        "a--b",
        "bl\u00fcte",
    ],
)
@pytest.mark.parametrize("option", ["--name", "--benchmark"])
def test_a_name_that_the_hub_refuses_is_refused_before_anything_is_read(option, name, capsys):
    assert main(["card", "nowhere", "run", option, name]) == 2
    assert "must be an id of the Hub, name or owner/name of letters, digits" in (said := capsys.readouterr().err)
    assert f"got {name!r}." in said


def test_an_empty_name_of_a_data_set_is_refused(capsys):
    assert main(["card", "nowhere", "run", "--dataset", ""]) == 2
    assert "got an empty name. Leave it out" in capsys.readouterr().err


@pytest.mark.parametrize("name", [None, "ada/mine_1.0", "flowers", "./my flowers", "/tmp/my flowers", "~/x"])
def test_ids_and_paths_are_names(name):
    check_name(name)
