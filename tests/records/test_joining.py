"""Runs of parts of the images, as one: a run that was cut off, and those that certified what it lacked."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from hf_smoothing import certify_dataset
from hf_smoothing.records import RunError, joined, keep_run, read_run
from hf_smoothing.reports import measure
from tests.support.tiny import smoothed


IMAGES = 6


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A whole run, the same cut off after two images, and one of the other four."""
    folder = tmp_path_factory.mktemp("runs")
    pixels = torch.randint(0, 256, (IMAGES, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = [{"pixel_values": image, "labels": index % 2} for index, image in enumerate(pixels)]
    model = smoothed("resnet", size=8).eval()
    for name, indices in {"whole": range(IMAGES), "rest": range(2, IMAGES), "more": range(1, 3)}.items():
        certify_dataset(model, images, folder / name, sigma=0.5, n=300, indices=indices, progress=False)
    certify_dataset(
        model, images, folder / "other seed", sigma=0.5, n=300, seed=1, indices=range(2, IMAGES), progress=False
    )
    certify_dataset(
        smoothed("resnet", size=8, seed=1).eval(), images, folder / "other weights", sigma=0.5, n=300, indices=range(2, IMAGES), progress=False,
    )  # fmt: skip
    shutil.copytree(folder / "whole", folder / "cut")
    rows = [
        line
        for line in (folder / "whole" / "certificates-0.jsonl").read_text().splitlines()
        if json.loads(line)["index"] < 2
    ]
    (folder / "cut" / "certificates-0.jsonl").write_text("\n".join(rows) + "\n")
    return folder


def test_a_run_and_another_of_what_it_lacks_are_the_whole_run(runs):
    cut = read_run(runs / "cut")
    assert not cut.finished
    found = joined([cut, read_run(runs / "rest")])
    whole = read_run(runs / "whole")
    assert found.finished and found.images_sha256 == whole.images_sha256

    def told(run):
        return {k: {name: value for name, value in row.items() if name != "seconds"} for k, row in run.rows.items()}

    assert told(found) == told(whole)
    assert measure(found).curve.accuracy == pytest.approx(measure(whole).curve.accuracy)
    device = whole.settings["informative"]["device"]
    assert found.settings["informative"]["device"] == f"{device} (2 images), {device} (4 images)"
    assert joined([whole]).rows == whole.rows


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("more", "must be of different images, got image 1 in .*more"),
        ("whole", "must be of different images, got image 0"),
        ("other seed", "must agree in seed, got 0 in .*cut and 1 in .*other seed"),
        ("other weights", "must agree in model.weights_sha256"),
    ],
)
def test_what_does_not_belong_together_is_refused(runs, other, said):
    with pytest.raises(RunError, match=said):
        joined([read_run(runs / "cut"), read_run(runs / other)])


def test_finished_runs_of_parts_are_one_finished_run(runs):
    some = read_run(runs / "more")
    others = read_run(runs / "whole")
    for index in some.rows:
        del others.rows[index]
    found = joined([some, others])
    assert some.finished and found.finished and len(found.rows) == found.images_asked == IMAGES
    assert "2 of 2" in some.progress and "6 of 6" in found.progress
    with pytest.raises(RunError, match="at least one"):
        joined([])


def test_a_part_is_kept_only_if_that_is_asked_for(runs, tmp_path):
    with pytest.raises(RunError, match="Resume it, or pass unfinished=True if others complete it"):
        keep_run(runs / "cut", tmp_path / "cut")
    keep_run(runs / "cut", tmp_path / "cut", unfinished=True)
    keep_run(runs / "rest", tmp_path / "rest")
    found = joined([read_run(tmp_path / "cut"), read_run(tmp_path / "rest")])
    assert sorted(found.rows) == list(range(IMAGES))
