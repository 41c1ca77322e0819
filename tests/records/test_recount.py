"""A row that the rule of its run could not give is refused, with file, line, index and both values; rows as runs write them are not."""

from __future__ import annotations

import copy
import json
import math
import time

import pytest
import torch

from hf_smoothing.certification import certify_dataset
from hf_smoothing.interval import certify_dataset_linf
from hf_smoothing.records import RunError, RunWriter, read_run, read_settings


WEIGHTS = torch.randn(3, 48, generator=torch.Generator().manual_seed(0))


def linear(pixels):
    return pixels.flatten(1) @ WEIGHTS.T + torch.tensor([0.3, 0.0, 0.0])


IMAGES = [
    {"pixel_values": torch.randint(0, 256, (3, 4, 4), generator=torch.Generator().manual_seed(i), dtype=torch.uint8), "labels": i % 3}
    for i in range(12)
]  # fmt: skip

KINDS = {
    "fixed": {"mode": "fixed", "n": 500},
    "runner-up": {"mode": "fixed", "n": 500, "bound": "runner-up"},
    "targets": {"n": 2000},
    "curve": {"mode": "curve", "n": 2000},
    "spending": {"n": 2000, "spending": True, "targets": [0.0, 0.02, 0.05, 0.1, 0.2]},
    "no selection": {"n": 2000, "n0": 0},
    "label-aware": {"n": 2000, "label_aware": True},
    "float noise": {"n": 1000, "noise_kind": "gaussian"},
    "at the diameter": {"n": 1000, "sigma": 4.0, "dataset": [{**IMAGES[0], "pixel_values": IMAGES[0]["pixel_values"][:, :1, :1]}]},
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    made = {}
    for name, options in KINDS.items():
        options = {"sigma": 0.5, "dataset": IMAGES, "progress": False} | options
        dataset, folder = options.pop("dataset"), tmp_path_factory.mktemp("run")
        classifier = (
            linear if len(dataset) > 1 else lambda x: torch.nn.functional.one_hot(torch.ones(len(x)).long(), 3)
        )
        made[name] = certify_dataset(classifier, dataset, folder, indices=range(0, len(dataset), 2), **options)
    return made


def rewrite(folder, run, change, settings=lambda s: s):
    """The run with its rows as `change` leaves them."""
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps(settings(copy.deepcopy(run.settings))))
    lines = []
    for index in sorted(run.rows):
        row = copy.deepcopy(run.rows[index])
        change(row)
        lines.append(json.dumps(row))
    (folder / "certificates-0.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_rows_as_runs_write_them_are_taken(runs, kind, tmp_path):
    run = runs[kind]
    assert read_run(run.path).rows == run.rows
    assert any(row["radius"] > 0 for row in run.rows.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["radius", "prediction", "p_lower", "votes", "draws"])
def test_a_row_that_its_votes_do_not_give_is_refused(runs, kind, what, tmp_path):
    run = runs[kind]
    target = next(index for index in sorted(run.rows) if run.rows[index]["radius"] > 0)

    def change(row):
        if row["index"] != target:
            return
        if what == "radius":
            row["radius"] *= 0.9
        elif what == "prediction":
            row["prediction"] = (row["prediction"] + 1) % 3
        elif what == "p_lower":
            row["p_lower"] -= 0.01
        elif what == "votes":  # to another class: as many votes, another answer
            row["counts_by_look"] = [
                {str((int(label) + 1) % 3): n for label, n in look.items()} for look in row["counts_by_look"]
            ]
        else:
            row["draws"] += 1

    line = sorted(run.rows).index(target) + 1
    with pytest.raises(
        RunError,
        match=rf"certificates-0.jsonl, line {line}: the row of image {target} is not one of this run: .*remove this line",
    ):
        read_run(rewrite(tmp_path, run, change))


def change_to(**values):
    return lambda row: row.update(values) if row["index"] == 2 else None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_to(radius=5.0), "radius 5.0 is above 1.*, the largest that the rule of this run can certify"),
        (change_to(radius=-0.1), "radius must be a finite number >= 0, got -0.1"),
        (change_to(radius=math.nan), "radius must be a finite number >= 0, got nan"),
        (change_to(radius=math.inf), "radius must be a finite number >= 0, got inf"),
        (change_to(radius="0.5"), "radius must be a finite number >= 0, got '0.5'"),
        (change_to(prediction=-2), "prediction must be a class >= 0, or -1 for an abstention, got -2"),
        (change_to(prediction=1.5), "prediction must be a class"),
        (change_to(prediction=None), "prediction must be a class"),
        (change_to(prediction=-1, radius=0.1), "an abstention .* must have radius 0.0, got 0.1"),
        (change_to(label=-1), "label must be a class >= 0 or null, got -1"),
        (change_to(label=True), "label must be a class"),
        (change_to(certified_targets=[0.1]), r"certified_targets must be the first of the run's targets, \[0.0, 0.25.*got \[0.1\]"),
        (change_to(certified_targets=[0.25, 0.0]), "certified_targets must be the first"),
        (change_to(counts_by_look=[]), "counts_by_look must be a list of 1 to"),
        (change_to(counts_by_look=[{"0": 100}]), "must have at least 2 looks|draws must be the number of votes"),
        (change_to(counts_by_look=[{"0": 101}, {"0": 19}]), "look 1 must have 100 votes, got 101"),
        (change_to(counts_by_look=[{"0": 120, "1": -20}]), "votes must be counts >= 0"),
        (change_to(counts_by_look=[{"x": 100}]), "votes must be an object from classes to counts"),
        (change_to(index=1), "image 1 is not one of this run's images"),
        (change_to(index=999), "image 999 is not one of this run's images"),
        (change_to(index=-4), "image -4 is not one of this run's images"),
    ],
)  # fmt: skip
def test_what_no_row_can_say_is_refused_by_name(runs, change, message, tmp_path):
    with pytest.raises(RunError, match=f"line 2: the row of image (2|1|999|-4) is not one of this run: ({message})"):
        read_run(rewrite(tmp_path, runs["targets"], change))


def test_certified_targets_that_the_votes_do_not_give_are_refused(runs, tmp_path):
    for kind in ("targets", "spending", "label-aware"):
        with pytest.raises(RunError, match=r"certified_targets is \[\], but the votes of this row give \[0.0"):
            read_run(rewrite(tmp_path, runs[kind], lambda row: row.update(certified_targets=[])))


def test_more_rows_than_images_are_refused(runs, tmp_path):
    run = runs["fixed"]

    def fewer(settings):
        del settings["dataset"]["selection"]
        return settings | {"num_images": 5}

    with pytest.raises(
        RunError, match="has 6 finished images, but its run.json says 5. Were files of another run copied into it"
    ):
        read_run(rewrite(tmp_path, run, lambda row: None, fewer))


def test_rows_of_another_run_are_refused(runs, tmp_path):
    """The same images with another rule: each row is well formed, and none is this run's."""
    folder = rewrite(tmp_path, runs["fixed"], lambda row: None)
    (folder / "certificates-0.jsonl").write_text((runs["targets"].path / "certificates-0.jsonl").read_text())
    with pytest.raises(RunError, match="not one of this run"):
        read_run(folder)


def test_unfinished_rows_are_checked(runs, tmp_path):
    folder = rewrite(tmp_path, runs["targets"], lambda row: None)
    partial = {
        "index": 4, "label": 1, "partial": True, "draws": 110, "num_labels": 3, "counts_by_look": [{"0": 100}, {"0": 10}], "seconds": 0.1,
        "image_sha256": "4",
    }  # fmt: skip
    file = folder / "certificates-0.jsonl"
    lines = file.read_text().splitlines()
    for change, message in (
        ({}, None),
        ({"counts_by_look": [{"0": 100}, {"0": 21}], "draws": 121}, "look 2 must have 20 votes, got 21"),
        ({"counts_by_look": [{"0": 90}, {"0": 20}]}, "look 1 must have 100 votes, got 90"),
        ({"draws": 50}, "draws must be the number of votes, 110, got 50"),
        ({"index": 3}, "image 3 is not one of this run's images"),
        ({"num_labels": "3"}, "num_labels must be a number of classes above 0, got '3'"),
        ({"num_labels": 2, "counts_by_look": [{"2": 100}, {"0": 10}]}, "num_labels must be a number of classes above 2, got 2"),
        ({"label": "1"}, "label must be a class"),
        ({"seconds": None}, "seconds must be a number"),
        *(({key: ...}, f"{key} is missing") for key in ("draws", "label", "num_labels", "counts_by_look", "seconds", "image_sha256")),
    ):  # fmt: skip
        said = {key: value for key, value in (partial | change).items() if value is not ...}
        file.write_text("\n".join([*lines[:2], *lines[3:], json.dumps(said)]) + "\n")
        if message is None:
            assert read_run(folder).partials.keys() == {4}
        else:
            with pytest.raises(RunError, match=f"line 6: the row of image [34] is not one of this run: {message}"):
                read_run(folder)


def test_deterministic_rows_are_checked(tmp_path):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3)).eval()
    run = certify_dataset_linf(network, IMAGES[:3], tmp_path / "run", largest=0.1, progress=False)
    assert read_run(run.path).rows == run.rows
    for values, message in (
        ({"radius": 0.2}, "radius 0.2 is above 0.1"),
        ({"radius": -1}, "radius must be"),
        ({"index": 7}, "image 7 is not one"),
    ):
        folder = rewrite(tmp_path / "other", run, change_to(**values))
        with pytest.raises(RunError, match=message):
            read_run(folder)


def test_settings_that_say_little_ask_little(tmp_path):
    with RunWriter(tmp_path, {"anything": 1}) as writer:
        writer.append({"index": 3, "radius": 100.0, "counts_by_look": "none"})
    assert read_run(tmp_path).rows[3]["radius"] == 100.0


def test_ten_thousand_rows_are_read_in_seconds(runs, tmp_path):
    run = runs["targets"]
    folder = rewrite(
        tmp_path, run, lambda row: None, lambda s: s | {"num_images": None, "dataset": {}, "informative": {}}
    )
    rows = list(run.rows.values())
    lines = [json.dumps(rows[i % len(rows)] | {"index": i}) for i in range(10_000)]
    (folder / "certificates-0.jsonl").write_text("\n".join(lines) + "\n")
    began = time.process_time()
    assert len(read_run(folder).rows) == 10_000
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("alpha", "0.001", "alpha is '0.001'"),
        ("sigma", None, "sigma is missing"),
        ("bound", None, "bound is missing"),
        ("label_aware", "no", "label_aware is 'no'"),
        ("noise_kind", "Grid", "noise_kind is 'Grid'"),
        ("rule", None, "rule is missing"),
        ("rule.name", "foo", "rule.name is 'foo'"),
        ("rule.n0", None, "rule.n0 is missing"),
        ("rule.n", "200", "rule.n is '200'"),
    ],
)
def test_settings_that_no_run_writes_are_refused_by_name(runs, tmp_path, key, value, words):
    def change(settings):
        place = settings["rule"] if key.startswith("rule.") else settings
        place.pop(key.removeprefix("rule."))
        if value is not None:
            place[key.removeprefix("rule.")] = value
        return settings

    folder = rewrite(tmp_path, runs["targets"], lambda row: None, change)
    with pytest.raises(RunError, match=f"run.json is not as a run writes it: {words}"):
        read_run(folder)


SAID = [
    "label",
    "prediction",
    "radius",
    "p_lower",
    "certified_targets",
    "draws",
    "counts_by_look",
    "seconds",
    "image_sha256",
]


@pytest.mark.parametrize("key", SAID)
def test_a_row_without_what_each_run_writes_is_refused(runs, key, tmp_path):
    """Without its votes, or what settles them, a row would escape the count."""
    with pytest.raises(RunError, match=f"line 1: the row of image 0 is not one of this run: {key} is missing"):
        read_run(rewrite(tmp_path, runs["fixed"], lambda row: row.pop(key)))


@pytest.mark.parametrize("key", ["resolution", "dtype", "model", "dataset", "seed", "versions"])
def test_settings_without_what_each_run_writes_are_refused(runs, key, tmp_path):
    folder = rewrite(tmp_path, runs["fixed"], lambda row: None, lambda s: {k: v for k, v in s.items() if k != key})
    for read in (read_run, read_settings):
        with pytest.raises(RunError, match=f"run.json is not as a run writes it: {key} is missing"):
            read(folder)


def smoothing(folder, images):
    return certify_dataset(linear, images, folder, sigma=0.5, mode="fixed", n=500, progress=False)


def bounds(folder, images):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3)).eval()
    torch.nn.init.constant_(network[1].weight, 0.1)
    torch.nn.init.zeros_(network[1].bias)
    return certify_dataset_linf(network, images, folder, largest=0.1, progress=False)


@pytest.mark.parametrize("certified", [smoothing, bounds])
def test_rows_of_other_images_than_those_stated_are_refused(certified, tmp_path):
    """Each row is well formed, and all were made with the same settings."""
    others = [{**image, "pixel_values": 255 - image["pixel_values"]} for image in IMAGES[:4]]
    run, other = certified(tmp_path / "a", IMAGES[:4]), certified(tmp_path / "b", others)
    file = run.path / "certificates-0.jsonl"
    mine, theirs = ({index: json.dumps(one.rows[index]) for index in sorted(one.rows)} for one in (run, other))
    stated, found = run.images_sha256[:8], other.images_sha256[:8]
    file.write_text("\n".join(theirs.values()) + "\n")
    with pytest.raises(
        RunError, match=rf"images that its run.json states \({stated}\), got those of others \({found}\)"
    ):
        read_run(run.path)
    file.write_text("\n".join([mine[0], mine[1], theirs[2], theirs[3]]) + "\n")
    with pytest.raises(RunError, match="files of another run copied into it"):
        read_run(run.path)
    file.write_text("\n".join([theirs[0], theirs[1]]) + "\n")
    assert read_run(run.path).images_sha256 is None, "what is stated is of rows that are gone"
    with pytest.raises(RunError, match="Image 0 of the data set is not the one"):
        certified(run.path, IMAGES[:4])
    file.write_text("\n".join([mine[0], mine[1]]) + "\n")
    assert certified(run.path, IMAGES[:4]).rows.keys() == run.rows.keys()
