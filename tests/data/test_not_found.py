"""What is neither here nor on the Hub: the message says what was looked for, why it failed, and the cure."""

import pytest
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import constants

from hf_smoothing import SmoothedClassifier
from hf_smoothing.data.not_found import not_found, other_kind, swapped
from hf_smoothing.data.opening import load_split
from hf_smoothing.models.loading import load_classifier
from tests.cli.test_data_options import class_folders
from tests.support.tiny import parquet_folder, smoothed


class LocalEntryNotFoundError(OSError):
    """Called as that of huggingface_hub."""


class GatedRepoError(OSError):
    """Called as that of huggingface_hub."""


@pytest.fixture
def online(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("model", caused(OSError("We couldn't connect"), LocalEntryNotFoundError()), ["could not be reached", "snapshot_download('some/name')."]),
        ("data set", ConnectionError("Couldn't reach 'x'"), ["could not be reached", "snapshot_download('some/name', repo_type='dataset')."]),
        ("model", caused(OSError("401"), GatedRepoError()), ["it is gated", "hf auth login"]),
        ("model", OSError("not a valid model identifier\nmore"), ["not found on the Hub (not a valid model identifier)", "a model and no data set"]),
        ("data set", DatasetNotFoundError("Dataset doesn't exist."), ["not found on the Hub", "a data set and no model"]),
    ],
)  # fmt: skip
def test_why_and_what_helps(kind, error, words, online, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = str(not_found(kind, "some/name", error))
    assert message.startswith(
        f"No {kind} could be read from 'some/name': there is no folder {tmp_path / 'some' / 'name'}"
    )
    assert all(word in message for word in words), message


def test_what_is_a_path_is_no_name_on_the_hub(online):
    for path in ("/far/away", "./here", "a/b/c", "~/x", "a/"):
        message = str(not_found("model", path, OSError("We couldn't connect")))
        assert "there is no folder" in message and "Hub" not in message and "current folder" in message


def test_a_folder_with_nearly_this_name_is_named(tmp_path, online):
    (tmp_path / "resnet-mixture").mkdir()
    with pytest.raises(ValueError, match=f"did you mean {tmp_path / 'resnet-mixture'}\\?"):
        load_classifier(str(tmp_path / "resnet-mixtrue"), sigma=0.25)


def test_offline_is_said(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set. Unset it, or fetch it first .*snapshot_download"):
        load_classifier("some/model", sigma=0.25)
    with pytest.raises(ValueError, match="No model could be read from 'some/model'.*HF_HUB_OFFLINE is set"):
        SmoothedClassifier.from_base_pretrained("some/model", sigma=0.25)
    with pytest.raises(ValueError, match="No model could be read from 'some/model'.*HF_HUB_OFFLINE is set"):
        SmoothedClassifier.from_pretrained("some/model")


def test_a_model_is_no_data_set_and_the_other_way_round(tmp_path):
    smoothed().save_pretrained(tmp_path / "model")
    parquet_folder(tmp_path / "parquet", count=2)
    class_folders(tmp_path / "folders", {"cat": 1, "dog": 1})
    (tmp_path / "empty").mkdir()
    assert [other_kind(str(tmp_path / name)) for name in ("model", "parquet", "folders", "empty", "no")] == [
        "model", "data set", "data set", None, None,
    ]  # fmt: skip
    assert swapped("model", str(tmp_path / "model")) is None
    for name in ("parquet", "folders"):
        with pytest.raises(ValueError, match="is the folder of a data set, where a model is wanted"):
            load_classifier(str(tmp_path / name), sigma=0.25)
        with pytest.raises(ValueError, match="is the folder of a data set, where a model is wanted"):
            SmoothedClassifier.from_pretrained(tmp_path / name)
    with pytest.raises(
        ValueError, match="is the folder of a model, where a data set is wanted. Were model and data set swapped"
    ):
        load_split(str(tmp_path / "model"), "test")


def test_folders_that_hold_both_are_not_called_swapped(tmp_path):
    smoothed().save_pretrained(tmp_path / "training" / "checkpoint-2")
    class_folders(tmp_path / "training", {"curves": 1})
    with pytest.raises(ValueError, match="no config.json. Pass one of the models in it: .*checkpoint-2"):
        load_classifier(str(tmp_path / "training"), sigma=0.25)
    smoothed().save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "figures").mkdir()
    (tmp_path / "model" / "figures" / "curve.png").touch()
    assert other_kind(str(tmp_path / "model")) == "model"  # its figure is no data set
    parquet_folder(tmp_path / "model" / "data", count=2)
    assert other_kind(str(tmp_path / "model")) is None and len(load_split(str(tmp_path / "model"), "test")) == 2


def test_a_run_is_neither(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(
        ValueError, match="is the folder of a run, where a model is wanted. Pass the model that its run.json"
    ):
        load_classifier(str(tmp_path), sigma=0.25)
    with pytest.raises(ValueError, match="is the folder of a run, where a data set is wanted"):
        load_split(str(tmp_path), "test")
