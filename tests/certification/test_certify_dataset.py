"""The rows of a run over a data set are the certificates, wherever it was interrupted, and other settings do not continue it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from hf_smoothing.certification import certify, certify_dataset
from hf_smoothing.noise import MAX_IMAGES, GridStream
from hf_smoothing.records import RunError, read_run
from hf_smoothing.reports import report
from tests.support.classifiers import (
    RUN,
    SEQUENTIAL,
    Constant,
    Failing,
    Linear,
    Ranges,
    Watched,
    random_dataset,
    random_images,
    results,
)


# Float images on purpose; where that is no purpose, the library warns.
pytestmark = pytest.mark.filterwarnings("ignore:noise_kind='auto' draws float32 noise")


DATASET = random_dataset(6)


@pytest.mark.parametrize("noise", ["auto", "gaussian"])
def test_rows_are_the_certificates(tmp_path, kind, noise):
    classifier, arguments, whole = kind
    pixels = torch.stack([item["pixel_values"] for item in DATASET])
    made = certify(
        classifier, pixels, noise_kind=noise, seed=0, **{k: v for k, v in arguments.items() if k != "progress"}
    )
    run = whole if noise == "auto" else certify_dataset(classifier, DATASET, tmp_path, **arguments, noise_kind=noise)
    assert sorted(run.rows) == list(range(6))
    for certificate in made:
        row = run.rows[certificate.index]
        assert "partial" not in row
        assert row["certified_targets"] == list(certificate.certified_targets)
        assert row["label"] == DATASET[certificate.index]["labels"]
        for key in ("prediction", "radius", "p_lower", "draws"):
            assert row[key] == getattr(certificate, key)
        looks = [{str(k): count for k, count in enumerate(look) if count} for look in certificate.counts_by_look]
        assert row["counts_by_look"] == looks
        assert row["seconds"] >= 0


GRID = {
    "noise_kind": "grid",
    "noise_dtype": "whole steps of 1/255",
    "noise_drawn_by": "counters, the same on every device",
    "total_variation": GridStream(0, (1, 4, 4), sigma=0.5).total_variation,
    "threat_model": "perturbed images that are 8-bit at the certified resolution",
}
GAUSSIAN = {
    "noise_kind": "gaussian",
    "noise_dtype": "float32",
    "noise_drawn_by": f"CPU {torch.backends.cpu.get_cpu_capability()}",
    "threat_model": "any perturbed image, if floating-point rounding is neglected",
}
FLOATS = [{"pixel_values": image, "labels": 0} for image in random_images(6)]


@pytest.mark.parametrize(
    ("dataset", "options", "rule", "noise"),
    [
        (DATASET, {}, {"name": "fixed-n", "n0": 10, "n": 300}, GRID),
        (DATASET, {"noise_kind": "gaussian"}, {"name": "fixed-n", "n0": 10, "n": 300}, GAUSSIAN),
        (FLOATS, {}, {"name": "fixed-n", "n0": 10, "n": 300}, GAUSSIAN),
        (
            DATASET,
            {"mode": "targets", "targets": [0.0, 0.5], "n": 100, "noise_kind": "grid"},
            {
                "name": "sequential, union bound",
                "n0": 10,
                "n": 100,
                "targets": [0.0, 0.5],
                "looks": [20, 30, 45, 67, 100],
                "futility_quantile": 0.97,
            },
            GRID,
        ),
        (
            DATASET,
            {"mode": "targets", "spending": True, "n0": None, "label_aware": True, "n": 20},
            {
                "name": "sequential, error spending",
                "n0": 0,
                "n": 20,
                "targets": [0.0, 0.25],
                "looks": [20],
                "futility_quantile": 0.97,
            },
            GRID,
        ),
    ],
    ids=["fixed", "gaussian", "floats", "targets", "label-aware"],
)
def test_run_file_says_what_decides_the_result(tmp_path, dataset, options, rule, noise):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    description = {"model": {"id": "tiny"}, "dataset": {"id": "noise", "split": "test"}, "note": "x"}
    settings = {**RUN, "seed": 7, "alpha": 0.01, "dtype": "bfloat16", **options}
    certify_dataset(model, dataset, tmp_path, **settings, indices=[4, 2], description=description)
    content = json.loads((tmp_path / "run.json").read_text())
    expected = {
        "method": "randomized-smoothing",
        "norm": "l2",
        "rule": rule,
        "sigma": 0.5,
        "alpha": 0.01,
        "bound": "one-sided",
        "label_aware": options.get("label_aware", False),
        **noise,
        "dtype": "bfloat16",
        "channels_last": False,
        "compile": False,
        "device_kind": "cpu",
        "resolution": [1, 4, 4],
        "seed": 7,
        "num_images": 2,
        "note": "x",
    }
    assert {key: content[key] for key in expected} == expected
    assert (content["model"]["id"], content["dataset"]["split"]) == ("tiny", "test")
    assert len(content["model"]["weights_sha256"]) == len(content["dataset"]["sha256"]) == 64
    assert content["model"]["weights_dtype"] == "float32"
    assert content["versions"]["torch"] == torch.__version__
    assert {"created", "informative"} <= set(content)


@pytest.mark.parametrize("batches", [0, 1, 2, 7, 20, 60, 115])
def test_interrupted_run_keeps_its_rows_says_so_and_resumes(tmp_path, kind, batches):
    classifier, arguments, whole = kind
    # The last number is that of the last batch but one.
    if arguments is SEQUENTIAL:
        batches = batches * sum(row["draws"] for row in whole.rows.values()) // (6 * 310)
    with pytest.raises(KeyboardInterrupt) as interrupt:
        certify_dataset(Failing(classifier, batches), DATASET, tmp_path, **arguments)
    kept = read_run(tmp_path)
    assert f"Interrupted: {len(kept.rows)} of 6 images are done and kept in {tmp_path}" in str(interrupt.value)
    assert "The same command resumes" in str(interrupt.value)
    resumed = certify_dataset(classifier, DATASET, tmp_path, **{**arguments, "copies_per_batch": 7})
    assert results(resumed) == results(whole)


def test_nothing_is_done_twice(tmp_path, kind):
    classifier, arguments, whole = kind
    draws = {index: row["draws"] for index, row in whole.rows.items()}
    failing = Failing(classifier, sum(draws.values()) * 6 // 10 // 16)
    with pytest.raises(KeyboardInterrupt):
        certify_dataset(failing, DATASET, tmp_path, **arguments, partial_seconds=0)
    before = read_run(tmp_path)
    assert before.rows
    assert before.partials, "some image must be unfinished for this to be a test"
    watched = Watched(classifier)
    resumed = certify_dataset(watched, DATASET, tmp_path, **arguments)
    done = sum(row["draws"] for row in [*before.partials.values(), *before.rows.values()])
    assert sum(watched.sizes) == sum(draws.values()) - done
    assert results(resumed) == results(whole)
    watched.batches.clear()
    certify_dataset(watched, DATASET, tmp_path, **arguments)
    assert watched.batches == []


def test_many_interruptions_in_a_row(tmp_path, kind):
    classifier, arguments, whole = kind
    random = np.random.default_rng(5)
    interruptions, run = 0, None
    while run is None and interruptions < 200:
        try:
            failing = Failing(classifier, int(random.integers(1, 30)))
            run = certify_dataset(failing, DATASET, tmp_path, **arguments, partial_seconds=0)
        except KeyboardInterrupt:
            interruptions += 1
            file = tmp_path / "certificates-0.jsonl"
            content = file.read_bytes()
            file.write_bytes(content[: max(0, len(content) - int(random.integers(0, 40)))])
    assert run is not None, "every resumption must get further"
    assert interruptions > 3
    assert results(run) == results(whole)
    assert run.partials == {}


def test_order_and_company_do_not_matter(tmp_path, kind):
    classifier, arguments, whole = kind
    run = certify_dataset(classifier, DATASET, tmp_path, **arguments, indices=[5, 0, 3])
    assert results(run) == {index: results(whole)[index] for index in (5, 0, 3)}


def test_labels_never_influence_a_certificate(tmp_path, kind):
    classifier, arguments, whole = kind
    unlabelled = [{"pixel_values": item["pixel_values"]} for item in DATASET]
    run = certify_dataset(classifier, unlabelled, tmp_path, **arguments)
    assert [{**row, "label": None} for row in results(whole).values()] == list(results(run).values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0.25}, "sigma was 0.5, is 0.25"),
        ({"alpha": 0.01}, "alpha was 0.001, is 0.01"),
        ({"n": 200}, "rule.n was 300, is 200"),
        ({"n0": 20}, "rule.n0 was 10, is 20"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"dtype": "bfloat16"}, "dtype was 'float32', is 'bfloat16'"),
        ({"channels_last": True}, "channels_last was False, is True"),
        ({"compile": True}, "compile was False, is True"),
        ({"mode": "targets"}, "rule.name was 'fixed-n', is 'sequential, union bound'"),
        ({"bound": "runner-up"}, "bound was 'one-sided', is 'runner-up'"),
        ({"noise_kind": "gaussian"}, "noise.kind was 'grid', is 'gaussian'"),
        ({"indices": [0, 1]}, "num_images was 6, is 2"),
        ({"classifier": nn.Flatten().eval()}, "model.weights_sha256 was None, is"),
        ({"description": {"model": {"id": "x"}}}, "model.id was None, is 'x'"),
    ],
)
def test_resuming_with_other_settings_is_refused(tmp_path, change, message):
    with pytest.raises(KeyboardInterrupt):
        certify_dataset(Failing(Ranges(), 1), DATASET, tmp_path, **RUN)
    with pytest.raises(RunError, match=f"cannot be resumed with these: .*{message}"):
        certify_dataset(**{"classifier": Ranges(), "dataset": DATASET, "output_dir": tmp_path, **RUN, **change})


def test_the_order_of_indices_decides_nothing(tmp_path, kind):
    classifier, arguments, whole = kind
    with pytest.raises(KeyboardInterrupt):
        certify_dataset(Failing(classifier, 3), DATASET, tmp_path, **arguments, indices=[4, 0, 3])
    run = certify_dataset(classifier, DATASET, tmp_path, **arguments, indices=[3, 4, 0])
    assert run.settings["dataset"]["selection"] == [0, 3, 4]
    assert results(run) == {index: results(whole)[index] for index in (0, 3, 4)}
    cure = r"num_images was 3, is 4 \(a run keeps its images: certify further ones alone into another folder\)"
    with pytest.raises(RunError, match=cure):
        certify_dataset(classifier, DATASET, tmp_path, **arguments, indices=[0, 3, 4, 5])


def _named(model, dataset):
    return {"description": {"model": {"id": model}, "dataset": {"id": dataset, "split": "test"}}}


def test_a_path_with_bytes_that_are_no_characters_is_recorded_and_reported(tmp_path):
    folder = tmp_path / "run\udcff"
    for _ in range(2):  # and resumed
        run = certify_dataset(Ranges(), DATASET, folder, **RUN, **_named("m\udce9", "d\udce9/"))
    assert (run.settings["model"]["id"], run.settings["dataset"]["id"]) == ("m?", "d?/")
    report([folder], output_dir=tmp_path / "out\udcff", html=True)
    report([folder], output_dir=tmp_path / "out\udcff", html=True, names=["n\udcff"])
    assert "| n? " in (tmp_path / "out\udcff" / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("labelled", [True, False], ids=["labels", "labels come later"])
@pytest.mark.parametrize(
    ("model", "dataset"), [("nets/a/", "data/b/"), ("../nets/a", "/else/data/b"), ("copy", "copy")]
)
def test_a_run_goes_on_wherever_its_network_and_images_lie(tmp_path, model, dataset, labelled):
    """A hash of the content decides, and the report makes one table."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    images = DATASET if labelled else [{"pixel_values": item["pixel_values"]} for item in DATASET]
    certify_dataset(network, images, tmp_path / "run", **RUN, **_named("nets/a", "data/b"))
    file = tmp_path / "run" / "certificates-0.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))
    run = certify_dataset(network, DATASET, tmp_path / "run", **RUN, **_named(model, dataset))
    assert (run.settings["model"]["id"], run.settings["dataset"]["id"]) == ("nets/a", "data/b")
    certify_dataset(network, DATASET, tmp_path / "other", **RUN, **_named(model, dataset))
    assert report([tmp_path / "run", tmp_path / "other"]).count("| model") == 1
    others = random_dataset(6, seed=1)
    labels = [{**item, "labels": 0} for item in DATASET]
    for changed, said in (
        (others, "Image 0 of the data set is not the one"),
        (labels, "but the label changed: it has label 0 here"),
        (others[:5], "num_images was 6, is 5"),
    ):
        with pytest.raises(RunError, match=said):
            certify_dataset(network, changed, tmp_path / "run", **RUN, **_named("nets/a", "data/c"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": [0.0, 0.25]}, r"rule.targets was \[0.0, 0.25, 0.5\], is \[0.0, 0.25\]"),
        ({"n": 301}, "rule.n was 300, is 301"),
        ({"n0": 11}, "rule.n0 was 10, is 11"),
        ({"spending": True}, "rule.name was 'sequential, union bound', is 'sequential, error spending'"),
        ({"label_aware": True, "n0": None}, "label_aware was False, is True"),
    ],
)
def test_resuming_with_another_sequential_rule_is_refused(tmp_path, change, message):
    with pytest.raises(KeyboardInterrupt):
        certify_dataset(Failing(Linear(), 1), DATASET, tmp_path, **SEQUENTIAL)
    with pytest.raises(RunError, match=f"cannot be resumed with these: .*{message}"):
        certify_dataset(Linear(), DATASET, tmp_path, **{**SEQUENTIAL, **change})


def test_weights_and_buffers_are_part_of_the_run(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.BatchNorm1d(3)).eval()
    certify_dataset(model, DATASET, tmp_path, **RUN)
    model[2].running_mean[0] += 1e-6
    with pytest.raises(RunError, match="model.weights_sha256 was"):
        certify_dataset(model, DATASET, tmp_path, **RUN)


# --- Refused before anything is written: a wrong folder would refuse the corrected call ------------------------------


class Huge:
    """A data set longer than one run can address, without its images."""

    def __len__(self) -> int:
        return MAX_IMAGES + 1

    def __getitem__(self, index: int):
        return DATASET[0]


def missing(key: str) -> list[dict]:
    return [{k: v for k, v in item.items() if k != key} for item in DATASET]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": []}, "There is no image to certify: the data set has 0"),
        ({"indices": []}, "There is no image to certify: the data set has 6 and the selection is empty"),
        (
            {"indices": [0, 6]},
            r"`indices` must be numbers of images of the data set, in \[0, 6\), got 6. .* the last is 5",
        ),
        ({"indices": [-1]}, r"counted from 0, got -1. The last is len\(dataset\) - 1"),
        ({"indices": [2, 0, 2]}, r"`indices` must name each image once, got 2 2 times. Pass sorted\(set\(indices\)\)"),
        ({"indices": [0.5]}, "`indices` must be whole numbers, those of images, got 0.5. Images are counted from 0"),
        ({"indices": [None]}, "`indices` must be whole numbers, those of images, got None. .* such as"),
        ({"indices": np.array([[0, 1]])}, "`indices` must be whole numbers, those of images, got array"),
        ({"indices": [True] * 6}, r"got a mask of 6 truth values. Pass where it is true: numpy.flatnonzero\(mask\)"),
        ({"indices": np.arange(6) > 2}, "got a mask of 6 truth values"),
        ({"indices": torch.arange(6) > 2}, "got a mask of 6 truth values"),
        ({"dataset": Huge(), "indices": [0, MAX_IMAGES]}, f"must be below {MAX_IMAGES}"),
        ({"n": 9}, "`n` must be at least 10"),
        ({"mode": "targets", "n": 9}, "`n` must be at least 10"),
        ({"targets": [0.1]}, "belong to the sequential rules, but mode is 'fixed'"),
        ({"mode": "targets", "targets": [9.0]}, "Target radius 9 is out of reach"),
        ({"mode": "targets", "bound": "runner-up"}, "Use mode='fixed'"),
        ({"noise_kind": "laplace"}, "`noise_kind` must be one of"),
        ({"noise_kind": "grid", "dataset": FLOATS}, "Grid noise certifies 8-bit images"),
        ({"sigma": -1.0}, "`sigma` must be a positive noise"),
        ({"classifier": nn.Flatten()}, "must be in eval mode to be certified"),
        ({"dtype": "int8"}, "`dtype` must be one of"),
        ({"copies_per_batch": 0}, "`copies_per_batch` must be at least 1"),
        ({"partial_seconds": -1}, "`partial_seconds` must be a number of seconds, at least 0, got -1"),
        ({"dataset": [*DATASET, {"pixel_values": torch.full((1, 4, 4), 2.5)}]}, "`image 6` must hold pixels"),
        ({"dataset": [*DATASET, *random_dataset(1, (1, 5, 5))]}, "must have one size and channel count"),
        ({"dataset": missing("pixel_values")}, "pixel_values"),
        ({"description": {"sigma": 9.0}}, "`description`"),
    ],
)
def test_bad_arguments_leave_no_folder_behind(tmp_path, change, message):
    arguments = {"classifier": Ranges(), "dataset": DATASET, "output_dir": tmp_path / "run", **RUN, **change}
    with pytest.raises((TypeError, ValueError), match=message):
        certify_dataset(**arguments)
    assert not (tmp_path / "run").exists()


def test_nan_logits_name_the_image_of_the_data_set(tmp_path):
    def classifier(pixels):
        return torch.where(pixels.mean((1, 2, 3), keepdim=True).flatten(1) > 0.9, torch.nan, Linear()(pixels))

    bright = [*DATASET[:3], {"pixel_values": torch.ones(1, 4, 4), "labels": 0}]
    with pytest.raises(ValueError, match="nan logits for noisy copies of image 3"):
        certify_dataset(classifier, bright, tmp_path, **{**RUN, "sigma": 0.05})


def test_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(OSError, match=r"The output folder .*file/run cannot be written .* Choose another one"):
        certify_dataset(Constant(), DATASET, tmp_path / "file" / "run", **RUN)


def test_numbers_of_numpy_are_recorded_as_numbers(tmp_path, whole):
    numbers = {"sigma": np.float32(0.5), "n0": np.int64(10), "n": np.int64(300), "indices": np.arange(6)}
    run = certify_dataset(Ranges(), DATASET, tmp_path, **{**RUN, **numbers})
    assert results(run) == results(whole)


def test_progress_counts_draws_and_outcomes(tmp_path, capsys, monkeypatch):
    certify_dataset(Constant(), DATASET, tmp_path / "log", **{**RUN, "progress": True})
    *more, line = capsys.readouterr().err.splitlines()
    assert more == [] and line.startswith("Certifying at sigma 0.5: 1,860 of 1,860 draws in ")
    assert line.endswith(", images 6/6, certified 6, abstained 0")
    monkeypatch.setattr("hf_smoothing.progress.bars_are_seen", lambda: True)
    certify_dataset(Constant(), DATASET, tmp_path / "terminal", **{**RUN, "progress": True})
    error = capsys.readouterr().err
    assert (
        "Certifying at sigma 0.5: 100%" in error
        and "1.86k/1.86k" in error
        and "images=6/6, certified=6, abstained=0" in error
    )
