"""Which images of a data set the command line takes, with which labels, and what it says before the first draw."""

import json
from argparse import SUPPRESS

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_smoothing import read_run
from hf_smoothing.cli import build_parser, main, verbs_of
from hf_smoothing.cli.options import in_flags
from hf_smoothing.models import NoisyImageProcessor
from tests.support.commands import certify
from tests.support.tiny import NAMES, SIZE, image_dataset, label_maps, parquet_folder, pil_images, plain, smoothed


def model(folder, names=NAMES, **base):
    smoothed("vit", base={**label_maps(tuple(names)), **base}).save_pretrained(folder)
    return folder


def class_folders(folder, counts, split="test", size=SIZE):
    """An image folder: class name -> number of images, whose brightness tells the class."""
    for place, (name, count) in enumerate(counts.items()):
        (folder / split / name).mkdir(parents=True)
        for k in range(count):
            values = np.full((size, size, 3), 10 * place + k, dtype=np.uint8)
            Image.fromarray(values).save(folder / split / name / f"{k:03}.png")
    return folder


def labels(run):
    rows = read_run(run).rows
    return [rows[index]["label"] for index in sorted(rows)]


def draws_nothing(monkeypatch):
    def drawn(*args, **kwargs):
        raise AssertionError("a draw was made")

    monkeypatch.setattr("hf_smoothing.certification.rounds.count_votes", drawn)


def test_the_class_map_is_said_and_recorded(tmp_path, capsys):
    images = class_folders(tmp_path / "images", {"crane": 1, "crane2": 1, "tench": 2})
    made = model(tmp_path / "model", ["crane", "crane", "tench, Tinca tinca"])
    assert certify(made, images, tmp_path / "run") == 0
    out = capsys.readouterr().out
    assert f"Data: 4 images of {images} test; labels in 'label'.\nClasses: 1 by name, 2 by position.\n" in out
    assert "  1 'crane2' -> 1 'crane', by position\n" in out
    assert out.index("Classes:") < out.index(f"images in {tmp_path / 'run'}: ")
    facts = read_run(tmp_path / "run").settings["dataset"]["labels"]
    assert facts == {"column": "label", "matched": {"by name": 1, "by position": 2}}
    assert labels(tmp_path / "run") == [0, 1, 2, 2]


def test_a_label_map_by_hand(tmp_path, capsys):
    images = class_folders(tmp_path / "images", {"kranich": 1, "tench": 2})
    made = model(tmp_path / "model", ["crane", "crane", "tench"])
    assert certify(made, images, tmp_path / "run") == 2
    assert "['kranich'] are not among" in (error := capsys.readouterr().err)
    assert "Pass --label-map FILE" in error and "--labels by-number" in error and "label_map" not in error
    (tmp_path / "map.json").write_text(json.dumps({"tench": 2}))
    assert certify(made, images, tmp_path / "run", "--label-map", tmp_path / "map.json") == 2
    assert "--label-map does not map ['kranich']" in capsys.readouterr().err
    (tmp_path / "map.json").write_text(json.dumps({"kranich": 1}))
    assert certify(made, images, tmp_path / "run", "--label-map", tmp_path / "map.json") == 0
    assert labels(tmp_path / "run") == [1, 2, 2]
    assert "0 'kranich' -> 1 'crane', by hand" in capsys.readouterr().out
    # An attack needs no labels, so the map need not be given again.
    assert main(["attack", str(tmp_path / "run"), "--steps", "1", "--n", "30", "--device", "cpu"]) in (0, 1)
    assert "certificates broken" in capsys.readouterr().out or "no certificate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "must hold one JSON object"),
        ("{", "cannot be read as JSON"),
        ('{"a": [1]}', "must hold one JSON object"),
        (None, "cannot be read"),
    ],
)
def test_a_label_map_that_is_none(content, message, tmp_path, capsys):
    images = class_folders(tmp_path / "images", {"cat": 1})
    if content is not None:
        (tmp_path / "map.json").write_text(content)
    assert certify(model(tmp_path / "model"), images, tmp_path / "run", "--label-map", tmp_path / "map.json") == 2
    assert f"The label map {tmp_path / 'map.json'} {message}" in capsys.readouterr().err


def test_folders_of_numbers_in_text_order(tmp_path, capsys, monkeypatch):
    images = class_folders(tmp_path / "images", {str(k): 1 for k in range(12)})
    made = model(tmp_path / "model", [f"LABEL_{k}" for k in range(12)])
    with monkeypatch.context() as patched:
        draws_nothing(patched)
        assert certify(made, images, tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert (
        "class 2 of the data set is called '10'" in error
        and "--labels by-name" in error
        and "--label-map FILE" in error
    )
    assert certify(made, images, tmp_path / "run", "--labels", "by-number") == 2
    assert "class 2 of the data set is called '10'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert certify(made, images, tmp_path / "by-name", "--labels", "by-name") == 0
    assert labels(tmp_path / "by-name") == [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]
    assert "2 '10' -> 10 'LABEL_10', by name" in capsys.readouterr().out
    (tmp_path / "map.json").write_text(json.dumps({name: k for k, name in enumerate(sorted(map(str, range(12))))}))
    assert certify(made, images, tmp_path / "by-place", "--label-map", tmp_path / "map.json") == 0
    assert labels(tmp_path / "by-place") == list(range(12))


def test_images_are_spread_over_sorted_classes(tmp_path, capsys):
    images = class_folders(tmp_path / "images", dict.fromkeys(NAMES, 10))
    made = model(tmp_path / "model")
    assert certify(made, images, tmp_path / "run", "--max-images", "6") == 0
    run = read_run(tmp_path / "run")
    assert sorted(run.rows) == [0, 5, 10, 15, 20, 25] and labels(tmp_path / "run") == [0, 0, 1, 1, 2, 2]
    assert run.settings["dataset"]["max_images"] == 6
    assert f"Data: 6 of 30 images of {images} test, evenly spread" in capsys.readouterr().out
    assert certify(made, images, tmp_path / "stride", "--max-images", "3", "--stride", "4") == 0
    assert sorted(read_run(tmp_path / "stride").rows) == [0, 8, 20]
    assert certify(made, images, tmp_path / "stream", "--max-images", "3", "--streaming") == 0
    assert sorted(read_run(tmp_path / "stream").rows) == [0, 1, 2]
    assert f"Data: the first 3 images of {images} test, a stream" in capsys.readouterr().out
    assert certify(made, images, tmp_path / "none", "--streaming", "--stride", "2") == 2
    assert "--stride needs --max-images" in capsys.readouterr().err


def test_labels_that_come_later_cost_no_draw(tmp_path, capsys, monkeypatch):
    source = image_dataset(6).cast_column("label", datasets.Value("int64"))
    for name, column in (("plain", "identity"), ("usual", "labels")):
        (tmp_path / name).mkdir()
        source.rename_column("label", column).to_parquet(tmp_path / name / "test-00000-of-00001.parquet")
    made = model(tmp_path / "model")
    assert certify(made, tmp_path / "plain", tmp_path / "run") == 0
    out = capsys.readouterr().out
    assert "no labels: none of ['image', 'identity'] is clearly a column of labels" in out and "--label-column" in out
    assert out.index("no labels") < out.index("6 images in ")
    with monkeypatch.context() as patched:
        draws_nothing(patched)
        by_number = ["--label-column", "identity", "--labels", "by-number"]
        assert certify(made, tmp_path / "plain", tmp_path / "run", *by_number) == 0
    assert labels(tmp_path / "run") == [0, 1, 2, 0, 1, 2]
    assert "Certified accuracy in %" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="labels are numbers without names"):
        assert certify(made, tmp_path / "usual", tmp_path / "usual-run") == 0
    assert labels(tmp_path / "usual-run") == [0, 1, 2, 0, 1, 2]


def test_an_unlabelled_split_is_certified_and_said(tmp_path, capsys):
    features = image_dataset(1).features
    (tmp_path / "images").mkdir()
    rows = datasets.Dataset.from_dict({"image": pil_images(3), "label": [-1] * 3}, features=features)
    rows.to_parquet(tmp_path / "images" / "test-00000-of-00001.parquet")
    made = model(tmp_path / "model")
    assert certify(made, tmp_path / "images", tmp_path / "run") == 0
    assert "'label' is empty or -1 for all, which marks unlabelled splits" in capsys.readouterr().out
    assert certify(made, tmp_path / "images", tmp_path / "aware", "--label-aware", "--spending") == 2
    assert not (tmp_path / "aware").exists()


def test_a_wrong_label_is_found_before_an_image_is_read(tmp_path, capsys, monkeypatch):
    folder = parquet_folder(tmp_path / "images", count=6)
    rows = datasets.load_dataset("parquet", data_files=str(folder / "*.parquet"), split="train")
    rows = rows.cast_column("label", datasets.Value("int64")).map(
        lambda row, k: {"label": 9 if k == 4 else 0}, with_indices=True
    )
    rows.to_parquet(folder / "test-00000-of-00001.parquet")
    monkeypatch.setattr("hf_smoothing.data.image_reading.ImageReader.image", None)
    assert certify(model(tmp_path / "model"), folder, tmp_path / "run", "--labels", "by-number") == 2
    assert "Label of image 4 must be a class in [0, 3), got 9" in capsys.readouterr().err


CARD = """---
configs:
- config_name: first
  data_files: [{split: test, path: first/*.parquet}]
- config_name: second
  data_files: [{split: test, path: second/*.parquet}]
---
"""


def test_configurations(tmp_path, capsys):
    folder = tmp_path / "images"
    for name, seed in (("first", 1), ("second", 2)):
        parquet_folder(folder / name, count=3, seed=seed)
    (folder / "README.md").write_text(CARD)
    made = model(tmp_path / "model")
    assert certify(made, folder, tmp_path / "run") == 2
    assert (
        f"{folder} has several configurations; choose one of ['first', 'second']: --dataset-config first."
        in capsys.readouterr().err
    )
    assert certify(made, folder, tmp_path / "run", "--dataset-config", "third") == 2
    assert "has no configuration 'third'; choose one of ['first', 'second']" in capsys.readouterr().err
    assert certify(made, folder, tmp_path / "run", "--dataset-config", "second") == 0
    assert f"3 images of {folder} (second) test" in capsys.readouterr().out
    run = read_run(tmp_path / "run")
    assert run.settings["dataset"]["config"] == "second"
    assert certify(made, folder, tmp_path / "run", "--dataset-config", "first") == 2
    assert "dataset.config was 'second', is 'first'" in capsys.readouterr().err
    assert certify(made, folder, tmp_path / "split", "--dataset-config", "first", "--split", "train") == 2
    assert "has no split 'train'; it has ['test']. Pass --split" in capsys.readouterr().err
    main(["attack", str(tmp_path / "run"), "--steps", "1", "--n", "30", "--device", "cpu"])  # knows the configuration
    assert "configurations" not in capsys.readouterr().err


@pytest.mark.parametrize("streaming", [False, True])
def test_unreadable_images(streaming, tmp_path, capsys):
    images = class_folders(tmp_path / "images", dict.fromkeys(NAMES, 2))
    (images / "test" / "dog" / "000.png").write_text("<html>")
    made, options = model(tmp_path / "model"), ["--streaming"] * streaming
    assert certify(made, images, tmp_path / "run", *options) == 2
    error = capsys.readouterr().err
    assert (
        "Image 2 (" in error
        and "dog/000.png) of column 'image' cannot be read" in error
        and "--skip-unreadable" in error
    )
    assert certify(made, images, tmp_path / "run", "--skip-unreadable", *options) == 0
    out = capsys.readouterr().out
    assert "5 images in " in out and "; 1 could not be read and is left out." in out
    assert "1 of 6 left out since they cannot be read" in out
    assert sorted(read_run(tmp_path / "run").rows) == [0, 1, 3, 4, 5]


def test_a_run_inside_the_data_is_refused(tmp_path, capsys):
    images = class_folders(tmp_path / "images", {"cat": 1})
    for place in (images / "run", images, tmp_path / "x" / ".." / "images" / "run"):
        assert certify(model(tmp_path / "model"), images, place) == 2
        assert "lies in the folder of the data set" in capsys.readouterr().err
    assert not (images / "run").exists()


def test_an_output_folder_without_a_way_is_found_before_anything_is_loaded(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr("hf_smoothing.models.loading.load_classifier", None)
    assert certify(tmp_path / "model", tmp_path / "images", tmp_path / "file" / "run") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_robustness_transfer_takes_the_same_options(tmp_path, capsys):
    for role in ("pretrained", "finetuned", "standard"):
        plain("resnet", seed=len(role)).save_pretrained(tmp_path / role)
        NoisyImageProcessor(size=SIZE).save_pretrained(tmp_path / role)
    images = class_folders(tmp_path / "images", dict.fromkeys(("Cat", "dogs", "eel"), 6), split="validation")
    (images / "validation" / "eel" / "000.png").write_text("")
    (tmp_path / "map.json").write_text('{"dogs": "dog"}')
    words = [
        "robustness-transfer",
        "--dataset",
        images,
        "--split",
        "validation",
        "--max-images",
        "17",
        "--label-map",
        tmp_path / "map.json",
    ]
    words += [word for role in ("pretrained", "finetuned", "standard") for word in (f"--{role}", tmp_path / role)]
    words += [
        "--attacks",
        "fgsm",
        "--epsilons",
        "0",
        "0.01",
        "--epsilons-l2",
        "0",
        "0.1",
        "--steps",
        "1",
        "--output-dir",
        tmp_path / "out",
    ]
    words = [str(word) for word in words]
    assert main(words) == 2
    assert "Image 12 (" in capsys.readouterr().err
    assert main([*words, "--skip-unreadable"]) == 0
    assert "1 'dogs' -> 1 'dog', by hand" in capsys.readouterr().out
    about = json.loads(next((tmp_path / "out").glob("*.json")).read_text())["about"]["dataset"]
    assert about["split"] == "validation" and about["unreadable"] == [12] and about["max_images"] == 17


def test_the_options_of_all_commands_are_those_of_one_definition():
    from dataclasses import fields

    from transformers import HfArgumentParser

    from hf_smoothing.cli import build_parser
    from hf_smoothing.data import DataChoice

    names = {one.name for one in fields(DataChoice)}
    commands = build_parser()._subparsers._group_actions[0].choices
    for command, without in (("certify", set()), ("attack", {"stride"}), ("robustness-transfer", set())):
        assert names - {action.dest for action in commands[command]._actions} == without
    (choice,) = HfArgumentParser(DataChoice).parse_args_into_dataclasses(
        ["--dataset", "x", "--skip-unreadable", "--labels", "by-name"]
    )
    assert choice == DataChoice("x", skip_unreadable=True, labels="by-name")


def test_no_message_names_an_option_that_the_verb_has_not(tmp_path, capsys):
    """`robustness-transfer` has no --image-mean, so the argument stays that of the library."""
    message = "Pass `size`, image_mean=[0.5, 0.5, 0.5] or cover_run=False."
    assert in_flags(message) == "Pass --size, --image-mean 0.5 0.5 0.5 or --no-cover-run."
    verbs = verbs_of(build_parser())
    names = {verb: [action.dest for action in parser._actions] for verb, parser in verbs.items()}
    assert in_flags(message, names["certify"]) == in_flags(message)
    assert in_flags(message, names["attack"]) == "Pass --size, image_mean=[0.5, 0.5, 0.5] or cover_run=False."
    assert in_flags(message, names["env"]) == message


@pytest.mark.parametrize(
    "place", ["exp/seed=0", "seed=0", "size=32/run", "x-sigma=0.25", "file with seed=0.pt", "a/labels='x'"]
)
def test_paths_in_a_message_stay_as_they_are(place, capsys):
    assert main(["attack", place]) == 2
    assert f"{place} does not exist" in capsys.readouterr().err


def test_every_help_says_its_default():
    silent = {}
    for verb, parser in verbs_of(build_parser()).items():
        for action in parser._actions:
            values = action.default if isinstance(action.default, list | tuple) else [action.default]
            said = (action.help or "") % vars(action)
            said_elsewhere = (None, True, False, SUPPRESS, {})
            if action.option_strings and any(
                str(value) not in said for value in values if value not in said_elsewhere
            ):
                silent[verb, action.dest] = (action.default, said)
    assert not silent
