"""A run that is kept: the finished rows, under names of its own, as good as the run itself."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch

from hf_smoothing import certify_dataset
from hf_smoothing.records import RunError, keep_run, read_run
from hf_smoothing.reports import report
from tests.support.tiny import smoothed


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    pixels = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = [{"pixel_values": image, "labels": index % 2} for index, image in enumerate(pixels)]
    certify_dataset(smoothed("resnet", size=8).eval(), images, folder, sigma=0.5, n=300, progress=False)
    return folder


def test_the_copy_reports_what_the_run_does(run, tmp_path):
    keep_run(run, tmp_path / "kept", model="owner/model", dataset="owner/images")
    before, kept = read_run(run), read_run(tmp_path / "kept")
    assert kept.rows == before.rows and not kept.partials
    assert kept.settings["model"]["id"] == "owner/model" and kept.settings["dataset"]["id"] == "owner/images"
    assert kept.settings["model"]["weights_sha256"] == before.settings["model"]["weights_sha256"]
    assert str(run) not in (tmp_path / "kept" / "run.json").read_text()
    named = report([run], names=["a"]).replace("images of data set", "images of owner/images")
    assert report([tmp_path / "kept"], names=["a"]) == named
    lines = (tmp_path / "kept" / "certificates-0.jsonl").read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == list(range(6))


def test_what_cannot_be_kept_is_said(run, tmp_path):
    keep_run(run, tmp_path / "kept")
    with pytest.raises(RunError, match=r"kept exists: a copy must go to a new folder"):
        keep_run(run, tmp_path / "kept")
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / "run.json").write_text((run / "run.json").read_text())
    finished = [line for line in (run / "certificates-0.jsonl").read_text().splitlines() if "prediction" in line]
    (cut / "certificates-0.jsonl").write_text("\n".join(finished[:4]) + "\n")
    with pytest.raises(RunError, match="must be finished to be kept, got 4 of 6 images in .*cut. Resume it, or"):
        keep_run(cut, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("file", ["certificates-0.jsonl", "run.json"])
def test_a_full_disk_leaves_no_part_of_a_copy(file, run, tmp_path, monkeypatch):
    def full(source, target):
        if Path(target).name == file:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(source, target)

    rename = os.replace
    with monkeypatch.context() as patched:
        patched.setattr("os.replace", full)
        with pytest.raises(OSError, match=rf"{file} cannot be written \(No space left on device\)"):
            keep_run(run, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    keep_run(run, tmp_path / "kept")
