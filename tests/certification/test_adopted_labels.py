"""A run that was made without labels gains them without a draw, and becomes the run that had them from the start."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from hf_smoothing.certification import certify_dataset
from hf_smoothing.certification.labels import warn_other_classes
from hf_smoothing.data import DecodedPixels, PixelDataset
from hf_smoothing.interval import certify_dataset_linf
from hf_smoothing.records import RunError, lock_folder, read_run
from hf_smoothing.reports import columns
from tests.support.classifiers import RUN, Failing, Ranges, random_dataset, results
from tests.support.tiny import SIZE, data, image_dataset, smoothed


DATASET = random_dataset(6)
UNLABELLED = [{"pixel_values": item["pixel_values"]} for item in DATASET]


class Stream:
    def __init__(self, items) -> None:
        self.items = items

    def __iter__(self):
        return iter(self.items)


class AskedError(AssertionError):
    """A draw was made where none is needed."""


def settings(run):
    return {key: value for key, value in run.settings.items() if key not in ("created", "informative")}


@pytest.mark.parametrize("made", [list, Stream], ids=["list", "stream"])
def test_labels_are_added_without_a_draw(tmp_path, kind, made):
    classifier, arguments, _ = kind
    labelled = certify_dataset(classifier, made(DATASET), tmp_path / "labelled", **arguments)
    certify_dataset(classifier, made(UNLABELLED), tmp_path / "run", **arguments)
    run = certify_dataset(Failing(classifier, 0, AskedError), made(DATASET), tmp_path / "run", **arguments)
    assert results(run) == results(labelled)
    assert settings(run) == settings(labelled)
    assert columns(run)[1] == [item["labels"] for item in DATASET]


@pytest.mark.parametrize("made", [list, Stream], ids=["list", "stream"])
def test_a_run_that_was_cut_off_gains_labels_where_it_goes_on(tmp_path, kind, made):
    classifier, arguments, labelled = kind
    with pytest.raises(KeyboardInterrupt):
        certify_dataset(Failing(classifier, 30), made(UNLABELLED), tmp_path / "run", **arguments, partial_seconds=0)
    before = read_run(tmp_path / "run")
    assert before.partials
    run = certify_dataset(classifier, made(DATASET), tmp_path / "run", **arguments)
    assert results(run) == results(labelled)


def test_interval_certificates_gain_labels(tmp_path):
    model, images = smoothed("resnet"), data(5)
    options = {"largest": 0.05, "progress": False}
    labelled = certify_dataset_linf(model, images, tmp_path / "labelled", **options)
    certify_dataset_linf(model, DecodedPixels(images.pixels), tmp_path / "run", **options)
    before = (tmp_path / "run" / "certificates-0.jsonl").read_text()
    run = certify_dataset_linf(model, images, tmp_path / "run", **options)
    assert results(run) == results(labelled) and settings(run) == settings(labelled)
    seconds = [json.loads(line)["seconds"] for line in before.splitlines()]
    assert [row["seconds"] for row in run.rows.values()] == seconds  # the same rows, not new ones


@pytest.mark.parametrize(
    "changed",
    [
        {"dataset": random_dataset(6, seed=1)},
        {"sigma": 0.25},
        {"n": 200},
        {"label_aware": True, "n0": None, "mode": "targets"},
        {"indices": [0, 1, 2]},
    ],
    ids=lambda changed: next(iter(changed)),
)
@pytest.mark.parametrize("made", [list, Stream], ids=["list", "stream"])
def test_labels_are_not_added_to_another_run(tmp_path, changed, made):
    certify_dataset(Ranges(), made(UNLABELLED), tmp_path, **RUN)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    values = {"dataset": DATASET, **RUN, **changed}
    values["dataset"] = made(values["dataset"])
    with pytest.raises(RunError):
        certify_dataset(Ranges(), output_dir=tmp_path, **values)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_labels_that_a_run_has_are_never_replaced(tmp_path):
    certify_dataset(Ranges(), DATASET, tmp_path, **RUN)
    others = [{**item, "labels": 4} for item in DATASET]
    with pytest.raises(
        RunError, match="Image 0 of the data set is the one .* but the label changed: it has label 4 here"
    ):
        certify_dataset(Ranges(), others, tmp_path, **RUN)
    assert [row["label"] for row in read_run(tmp_path).rows.values()] == [item["labels"] for item in DATASET]


class Labelled(Stream):
    """One that says where its labels come from."""

    def facts(self):
        return {"labels": {"column": "label"}}


def files_of(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix in (".json", ".jsonl")}


@pytest.mark.parametrize("cut", [30, 1000], ids=["cut off", "finished"])
@pytest.mark.parametrize("made", [list, Stream, Labelled], ids=["list", "stream", "stream with facts"])
def test_labels_come_from_a_data_set_that_lies_elsewhere(tmp_path, made, cut):
    expected = certify_dataset(Ranges(), DATASET, tmp_path / "whole", **RUN)
    first, second = ({"description": {"dataset": {"id": name}}} for name in ("bare", "labelled"))
    try:
        bare = UNLABELLED if made is list else Stream(UNLABELLED)
        certify_dataset(Failing(Ranges(), cut), bare, tmp_path / "run", **RUN, **first, partial_seconds=0)
    except KeyboardInterrupt:
        assert read_run(tmp_path / "run").partials
    run = certify_dataset(Ranges(), made(DATASET), tmp_path / "run", **RUN, **second)
    assert results(run) == results(expected)
    assert run.settings["dataset"].get("labels") == ({"column": "label"} if made is Labelled else None)


@pytest.mark.parametrize("change", [{"split": "test"}, {"config": "other"}], ids=lambda change: next(iter(change)))
@pytest.mark.parametrize("made", [list, Stream, Labelled], ids=["list", "stream", "stream with facts"])
def test_nothing_is_written_for_labels_of_a_run_that_is_refused(tmp_path, made, change):
    bare = UNLABELLED if made is list else Stream(UNLABELLED)
    certify_dataset(Ranges(), bare, tmp_path, **RUN, description={"dataset": {"id": "a"}})
    before = files_of(tmp_path)
    with pytest.raises(RunError, match=next(iter(change))):
        certify_dataset(Ranges(), made(DATASET), tmp_path, **RUN, description={"dataset": {"id": "b", **change}})
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("place", [0, 5])
@pytest.mark.parametrize("change", [{"labels": 4}, {"pixel_values": random_dataset(1, seed=9)[0]["pixel_values"]}])
@pytest.mark.parametrize("made", [Stream, Labelled])
def test_other_labels_of_a_stream_leave_the_run_as_it_is(tmp_path, place, change, made):
    """Also what `run.json` says of the labels, and wherever the images lie."""
    certify_dataset(Ranges(), Stream(DATASET), tmp_path, **RUN, description={"dataset": {"id": "a"}})
    before = files_of(tmp_path)
    others = made([{**item, **(change if index == place else {})} for index, item in enumerate(DATASET)])
    with pytest.raises(RunError, match="dataset.labels" if made is Labelled else f"Image {place} of the stream is"):
        certify_dataset(Ranges(), others, tmp_path, **RUN, description={"dataset": {"id": "b"}})
    assert files_of(tmp_path) == before


class Told(list):
    """One by index that says where its labels come from."""

    facts = Labelled.facts


@pytest.mark.parametrize("written", ["write_settings", "replace_file"])
def test_a_kill_between_the_files_is_made_good(tmp_path, kind, monkeypatch, written):
    from hf_smoothing.certification import labels

    classifier, arguments, _ = kind
    told = Told(DATASET)
    labelled = certify_dataset(classifier, told, tmp_path / "labelled", **arguments)
    certify_dataset(classifier, UNLABELLED, tmp_path / "run", **arguments)

    def killed(folder, settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(labels, written, killed)
    with pytest.raises(KeyboardInterrupt):
        certify_dataset(classifier, told, tmp_path / "run", **arguments)
    monkeypatch.undo()
    run = certify_dataset(Failing(classifier, 0, AskedError), told, tmp_path / "run", **arguments)
    assert results(run) == results(labelled) and settings(run) == settings(labelled)


def test_a_folder_in_use_is_left_alone(tmp_path):
    certify_dataset(Ranges(), UNLABELLED, tmp_path, **RUN)
    with lock_folder(tmp_path), pytest.raises(RunError, match="Another process is writing"):
        certify_dataset(Ranges(), DATASET, tmp_path, **RUN)


@pytest.mark.parametrize("names", [("eel", "dog", "cat"), ("ant", "Cat", "bee")])
def test_a_class_under_the_number_of_another_is_warned_of(names, tmp_path):
    rows = image_dataset(names=names)
    with pytest.warns(
        UserWarning, match=r"^Label \d of the data set is '(eel|Cat)', .*id2label=model\.config\.id2label"
    ):
        certify_dataset(smoothed(), PixelDataset(rows, SIZE), tmp_path, sigma=0.5, n0=2, n=20, progress=False)


def test_classes_matched_by_name_or_unknown_or_named_twice_are_not_warned_of(tmp_path):
    rows, model = image_dataset(names=("eel", "dog", "cat")), smoothed()
    for k, pixels in enumerate(
        (
            PixelDataset(rows, SIZE, id2label=model.config.id2label),
            PixelDataset(image_dataset(names=("ant", "bee", "eel")), SIZE),
            PixelDataset(image_dataset(names=("cat",)), SIZE),
        )
    ):
        certify_dataset(model, pixels, tmp_path / str(k), sigma=0.5, n0=2, n=20, progress=False)
    cranes = SimpleNamespace(config=SimpleNamespace(id2label={0: "crane", 1: "eel", 2: "crane"}))
    warn_other_classes(cranes, SimpleNamespace(names=["crane", "eel", "crane"]))
