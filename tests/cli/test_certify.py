"""`hf-smoothing certify` writes a run, prints its table, resumes it, and says which images and classes it takes."""

import json
import re

import datasets
import pytest
from transformers import CLIPImageProcessorPil

from hf_smoothing import read_run
from hf_smoothing.cli import main
from hf_smoothing.models import NoisyImageProcessor
from tests.support.classifiers import results
from tests.support.commands import certify
from tests.support.tiny import NAMES, SIZE, label_maps, parquet_folder, pil_images, plain, smoothed


@pytest.fixture
def model(tmp_path):
    smoothed("vit").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def images(tmp_path):
    return parquet_folder(tmp_path / "images", count=6)


@pytest.mark.parametrize(
    ("options", "rule", "columns"),
    [
        # 20 draws cannot certify 0.25, so it is no target, and the table does not show what no draw was made for.
        ([], "sequential, union bound", ["0"]),
        (["--targets", "0.05", "0.1"], "sequential, union bound", ["0.05", "0.1"]),
        (["--mode", "fixed"], "fixed-n", ["0", "0.25", "0.5"]),
    ],
    ids=["default", "radii", "fixed"],
)
def test_certify_writes_a_run_and_prints_its_table(options, rule, columns, model, images, tmp_path, capsys):
    assert certify(model, images, tmp_path / "run", *options) == 0
    out = capsys.readouterr().out
    certified = sum(row["radius"] > 0 for row in read_run(tmp_path / "run").rows.values())
    told = {"certified with a radius above 0": certified, "abstained": 6 - certified}
    counts = ", ".join(f"{count} {what}" for what, count in told.items() if count)
    assert f"6 images in {tmp_path / 'run'}: {counts}." in out
    shown = re.findall(r"\| r = (\S+)", out)
    assert shown[: len(columns)] == columns and (shown == columns or rule == "fixed-n")
    assert "alpha = 0.001" in out and rule in out
    run = read_run(tmp_path / "run")
    assert sorted(run.rows) == list(range(6))
    assert [run.rows[index]["label"] for index in range(6)] == [0, 1, 2, 0, 1, 2]
    assert {row["draws"] for row in run.rows.values()} == {25}
    settings = run.settings
    assert (settings["sigma"], settings["alpha"], settings["rule"]["n"], settings["rule"]["n0"]) == (
        0.25,
        0.001,
        20,
        5,
    )
    assert (settings["rule"]["name"], settings["noise_kind"]) == (rule, "grid")
    assert settings["dataset"]["split"] == "test"
    assert settings["model"]["id"] == str(model)
    assert settings["resolution"] == [3, SIZE, SIZE]


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("", {}),
        ("--mode fixed", {"mode": "fixed"}),
        (
            "--mode fixed --bound runner-up --noise-kind gaussian",
            {"mode": "fixed", "bound": "runner-up", "noise_kind": "gaussian"},
        ),
        ("--targets 0 0.05 0.1", {"targets": [0.0, 0.05, 0.1]}),
        ("--mode curve --spending --noise-kind grid", {"mode": "curve", "spending": True, "noise_kind": "grid"}),
    ],
    ids=["default", "fixed", "runner-up", "radii", "curve"],
)
def test_the_rows_are_those_of_the_model(words, options, model, images, tmp_path):
    certify(model, images, tmp_path / "run", "--seed", "7", "--copies-per-batch", "3", *words.split())
    certificates = smoothed("vit").certify(
        NoisyImageProcessor(size=SIZE, do_normalize=False)(pil_images(6), return_tensors="pt")["pixel_values"],
        n0=5, n=20, seed=7, **options,
    )  # fmt: skip
    assert sorted(results(read_run(tmp_path / "run"))) == list(range(6))
    for index, row in results(read_run(tmp_path / "run")).items():
        assert (row["prediction"], row["radius"]) == (certificates[index].prediction, certificates[index].radius)
        assert row["certified_targets"] == list(certificates[index].certified_targets)


def test_a_run_that_was_cut_off_is_resumed_to_the_same_rows(model, images, tmp_path, capsys):
    certify(model, images, tmp_path / "whole")
    certify(model, images, tmp_path / "cut")
    file = tmp_path / "cut" / "certificates-0.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:2]) + lines[2][:20])  # killed while it wrote the third
    assert certify(model, images, tmp_path / "cut") == 0
    assert results(read_run(tmp_path / "cut")) == results(read_run(tmp_path / "whole"))
    before = file.read_text()
    assert before.startswith("".join(lines[:2]))
    assert certify(model, images, tmp_path / "cut", "--copies-per-batch", "2") == 0
    assert file.read_text() == before  # nothing was left to do
    capsys.readouterr()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sigma": "0.5"}, "sigma was 0.25, is 0.5"),
        ({"n": "30"}, "rule.n was 20, is 30"),
        ({"n0": "6"}, "rule.n0 was 5, is 6"),
        ({"options": ["--seed", "1"]}, "seed was 0, is 1"),
        ({"options": ["--alpha", "0.01"]}, "alpha was 0.001, is 0.01"),
        ({"options": ["--max-images", "4"]}, "with these: dataset.max_images was None, is 4. Use"),
        ({"options": ["--stride", "2"]}, "dataset.stride was 1, is 2"),
        ({"options": ["--dtype", "bfloat16"]}, "dtype was 'float32', is 'bfloat16'"),
        ({"options": ["--channels-last"]}, "channels_last was False, is True"),
        ({"options": ["--compile"]}, "compile was False, is True"),
        ({"options": ["--noise-kind", "gaussian"]}, "noise_kind was 'grid', is 'gaussian'"),
        ({"options": ["--mode", "fixed"]}, "rule.name was 'sequential, union bound', is 'fixed-n'"),
        ({"options": ["--spending"]}, "rule.name was 'sequential, union bound', is 'sequential, error spending'"),
        ({"options": ["--targets", "0.1"]}, "rule.targets was [0.0], is [0.1]"),
    ],
)
def test_a_run_is_not_continued_with_other_settings(change, words, model, images, tmp_path, capsys):
    certify(model, images, tmp_path / "run")
    before = (tmp_path / "run" / "certificates-0.jsonl").read_text()
    capsys.readouterr()
    options = change.pop("options", [])
    assert certify(model, images, tmp_path / "run", *options, **change) == 2
    error = capsys.readouterr().err
    assert words in error and "Use the same settings, or another output folder" in error
    assert "Traceback" not in error
    assert (tmp_path / "run" / "certificates-0.jsonl").read_text() == before


def test_other_weights_or_images_are_other_settings(model, images, tmp_path, capsys):
    certify(model, images, tmp_path / "run")
    smoothed("vit", seed=1).save_pretrained(model)
    assert certify(model, images, tmp_path / "run") == 2
    assert "model.weights_sha256 was" in capsys.readouterr().err
    smoothed("vit").save_pretrained(model)
    parquet_folder(images, count=6, seed=1)
    assert certify(model, images, tmp_path / "run") == 2
    assert "Image 0 of the data set is not the one" in capsys.readouterr().err


def test_stride_and_max_images(model, images, tmp_path):
    assert certify(model, images, tmp_path / "run", "--stride", "2", "--max-images", "2") == 0
    assert sorted(read_run(tmp_path / "run").rows) == [0, 2]
    certify(model, images, tmp_path / "whole")
    assert {index: results(read_run(tmp_path / "whole"))[index] for index in (0, 2)} == results(
        read_run(tmp_path / "run")
    )


def test_another_split(model, images, tmp_path):
    parquet_folder(images, split="validation", count=3)
    assert certify(model, images, tmp_path / "run", "--split", "validation") == 0
    assert len(read_run(tmp_path / "run").rows) == 3


def test_labels_are_matched_by_name(images, tmp_path):
    # The model knows the classes of the data set in another order.
    permuted = ("eel", "cat", "dog")
    smoothed("vit", base=label_maps(permuted)).save_pretrained(tmp_path / "model")
    assert certify(tmp_path / "model", images, tmp_path / "run") == 0
    labels = [row["label"] for _, row in sorted(results(read_run(tmp_path / "run")).items())]
    assert labels == [permuted.index(NAMES[index % 3]) for index in range(6)]


def test_unlabelled_images_are_certified_without_a_table(model, tmp_path, capsys):
    features = datasets.Features({"image": datasets.Image()})
    folder = tmp_path / "unlabelled"
    folder.mkdir()
    datasets.Dataset.from_dict({"image": pil_images(3)}, features=features).to_parquet(folder / "test.parquet")
    assert certify(model, folder, tmp_path / "run") == 0
    out = capsys.readouterr().out
    assert "3 images in " in out and "|" not in out
    assert {row["label"] for row in results(read_run(tmp_path / "run")).values()} == {None}
    assert main(["report", str(tmp_path / "run"), "--output-dir", str(tmp_path)]) == 2
    assert "has no label" in capsys.readouterr().err


def test_a_plain_classifier_with_a_processor(images, tmp_path):
    plain("vit").save_pretrained(tmp_path / "plain")
    NoisyImageProcessor(size=SIZE).save_pretrained(tmp_path / "plain")
    assert certify(tmp_path / "plain", images, tmp_path / "run") == 0
    preprocessing = json.loads((tmp_path / "run" / "run.json").read_text())["model"]["preprocessing"]
    framing = {"size": [SIZE, SIZE], "resize": [SIZE, SIZE], "resample": "bilinear", "channels": 3}
    assert preprocessing == {
        "framing": framing,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "model_size": None,
    }


def test_the_size_of_a_plain_classifier_can_be_given(images, tmp_path):
    plain("vit").save_pretrained(tmp_path / "plain")
    NoisyImageProcessor(size=SIZE).save_pretrained(tmp_path / "plain")
    assert certify(tmp_path / "plain", images, tmp_path / "run", "--size", "8") == 0
    settings = read_run(tmp_path / "run").settings
    assert settings["resolution"] == [3, 8, 8] and settings["model"]["preprocessing"]["model_size"] == [SIZE, SIZE]


def test_a_network_without_an_image_processor_is_certified_once_all_is_said(images, tmp_path, capsys):
    plain().save_pretrained(tmp_path / "bare")
    assert certify(tmp_path / "bare", images, tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert "The certified resolution of" in said and "The normalisation of" in said  # both at once
    assert "Pass --size, the number of pixels per side" in said
    assert "Pass --image-mean 0.5 0.5 0.5 and --image-std 0.5 0.5 0.5, or what it was trained with" in said
    options = ["--size", "16", "--image-mean", "0.5", "--image-std", "0.25", "0.25", "0.25"]
    assert certify(tmp_path / "bare", images, tmp_path / "run", *options) == 0
    settings = read_run(tmp_path / "run").settings["model"]
    assert settings["normalisation"] == {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    assert settings["preprocessing"]["image_std"] == [0.25] * 3
    attack = ["attack", str(tmp_path / "run"), "--steps", "1", "--copies", "1", "--n", "50", "--max-images", "1"]
    assert main(attack) in (0, 1)  # what its checkpoint does not say stands in the record
    assert "certificates broken" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["smoothed", "plain"])
def test_a_normalisation_that_the_checkpoint_states_is_not_replaced(kind, model, images, tmp_path, capsys):
    if kind == "plain":
        plain().save_pretrained(tmp_path / "model")
        NoisyImageProcessor(size=SIZE, image_mean=[0.25] * 3, image_std=[0.5] * 3).save_pretrained(tmp_path / "model")
    assert certify(tmp_path / "model", images, tmp_path / "run", "--image-mean", "0.4") == 2
    said = capsys.readouterr().err
    assert "says itself how its pixels are normalised (image_mean [" in said and "Leave --image-mean out" in said
    assert not (tmp_path / "run").exists()


def test_the_certified_resolution_is_said_before_the_first_draw(images, tmp_path, capsys, monkeypatch):
    plain().save_pretrained(tmp_path / "plain")
    CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}).save_pretrained(
        tmp_path / "plain"
    )

    def no_draws(*args, **kwargs):
        raise ValueError("this is where draws would begin")

    monkeypatch.setattr("hf_smoothing.certification.certify_dataset", no_draws)
    assert certify(tmp_path / "plain", images, tmp_path / "run") == 2
    said = capsys.readouterr().out
    assert (
        "Certified resolution: 3 x 32 x 32 " in said
        and "images are resized until their shortest edge is 40, then the centre is cut out" in said
    )
    assert "Warning: the first image is 16 x 16, and such images are enlarged before the noise" in said
    assert "pass --size 16 with a plain classifier" in said and "from_base_pretrained(..., size=16)" in said
    assert "2.5 times larger" in said and "pass --size 16" in said


@pytest.mark.parametrize("how", [[], ["--streaming"], ["--labels", "by-number"]], ids=["indexed", "stream", "again"])
def test_how_many_images_were_enlarged_is_said_and_recorded(how, model, tmp_path, capsys):
    """Whatever the size of the first one, which is all that is known before the first draw."""
    sizes = [20, 8, 20, 12]
    rows = {"image": [pil_images(1, size)[0] for size in sizes], "label": [0, 1, 2, 0]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))})
    folder = tmp_path / "mixed"
    folder.mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "test.parquet")
    for _ in range(2):  # a resumption reads the images again
        assert certify(model, folder, tmp_path / "run", *how) == 0
        said = capsys.readouterr().out
        assert "Warning" not in said
        assert said.count("2 of 4 images were enlarged before the noise was added (the smallest was 8 x 8)") == 1
        assert read_run(tmp_path / "run").settings["informative"]["enlarged"] == {"images": 2, "smallest": [8, 8]}


def test_enlarged_images_without_labels_are_counted_as_well(model, tmp_path, capsys):
    folder = tmp_path / "bare"
    folder.mkdir()
    for number, size in enumerate((20, 8)):
        pil_images(1, size)[0].save(folder / f"{number}.png")
    assert certify(model, folder, tmp_path / "run", "--split", "train") == 0
    assert "1 of 2 images was enlarged before the noise was added" in capsys.readouterr().out


def test_nothing_is_enlarged_where_images_are_certified_at_their_own_size(images, tmp_path, capsys):
    plain().save_pretrained(tmp_path / "plain")
    CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}).save_pretrained(
        tmp_path / "plain"
    )
    assert certify(tmp_path / "plain", images, tmp_path / "run", "--size", "16") == 0
    said = capsys.readouterr().out
    assert "Certified resolution: 3 x 16 x 16 " in said and "Warning" not in said
    preprocessing = json.loads((tmp_path / "run" / "run.json").read_text())["model"]["preprocessing"]
    assert preprocessing["framing"] == {"size": [16, 16], "resize": 20, "resample": "bicubic", "channels": 3}
    assert preprocessing["model_size"] == [32, 32]
