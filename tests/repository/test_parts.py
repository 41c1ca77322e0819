"""Parts of a card's run, as one: a run that was cut off, and those that certified what it lacked."""

from __future__ import annotations

import itertools
import json
import shutil

import pytest
import torch

from hf_smoothing import certify_dataset
from hf_smoothing.records import RunError, keep_run, read_run
from model_cards.parts import joined, read_parts
from tests.support.classifiers import results
from tests.support.tiny import smoothed


IMAGES = 6


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A whole run, the same cut off after two images, and others of the rest."""
    folder = tmp_path_factory.mktemp("runs")
    pixels = torch.randint(0, 256, (IMAGES, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = [{"pixel_values": image, "labels": index % 2} for index, image in enumerate(pixels)]
    model, other = (smoothed("resnet", seed, size=8).eval() for seed in (0, 1))

    def certified(name, indices, model=model, **changes):
        settings = {"sigma": 0.5, "n": 300, "noise_kind": "grid"} | changes
        certify_dataset(model, images, folder / name, indices=indices, progress=False, **settings)

    certified("whole", range(IMAGES))
    certified("rest", range(2, IMAGES))
    certified("first half", [2, 4])
    certified("second half", [3, 5])
    certified("too much", range(1, IMAGES))
    certified("other seed", range(2, IMAGES), seed=1)
    certified("other weights", range(2, IMAGES), model=other)
    certified("float", range(IMAGES), noise_kind="gaussian")
    for name in ("whole", "float"):
        shutil.copytree(folder / name, folder / f"{name}, cut")
        lines = (folder / name / "certificates-0.jsonl").read_text().splitlines()
        kept = [line for line in lines if json.loads(line)["index"] < 2]
        (folder / f"{name}, cut" / "certificates-0.jsonl").write_text("\n".join(kept) + "\n")
    return folder


@pytest.mark.parametrize("rest", [["rest"], ["first half", "second half"]])
def test_the_parts_are_the_whole_run_in_any_order(runs, rest):
    whole = read_run(runs / "whole")
    device = whole.settings["informative"]["device"]
    for order in itertools.permutations(["whole, cut", *rest]):
        found = joined([read_run(runs / name) for name in order])
        assert found.finished and found.images_sha256 == whole.images_sha256
        assert results(found) == results(whole)
        assert found.settings["informative"]["device"].startswith(f"{device} (2 images), {device} (")


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (["whole"], "Exactly one of the parts must have been cut off, got 0 of 1"),
        (["whole, cut", "whole, cut"], "got 2 of 2"),
        (["whole, cut"], "must have the 6 images of .*, got 2"),
        (["whole, cut", "first half"], "must have the 6 images of .*, got 4"),
        (["whole, cut", "too much"], "must be of different images, got image 1 in .*too much"),
        (["whole, cut", "rest", "first half"], "must be of different images, got image 2"),
        (["whole, cut", "other seed"], "must agree in seed, got 0 in .*cut and 1 in .*other seed"),
        (["whole, cut", "other weights"], "must agree in model.weights_sha256"),
        (["float, cut", "rest"], "must have grid noise and a network with weights"),
    ],
)
def test_what_does_not_belong_together_is_refused(runs, parts, said):
    with pytest.raises(RunError, match=said):
        joined([read_run(runs / name) for name in parts])


def test_parts_are_kept_and_read_from_one_folder(runs, tmp_path):
    with pytest.raises(RunError, match="Resume it, or pass unfinished=True to keep a part"):
        keep_run(runs / "whole, cut", tmp_path / "all" / "a")
    keep_run(runs / "whole, cut", tmp_path / "all" / "a", unfinished=True, dataset="images")
    keep_run(runs / "rest", tmp_path / "all" / "b", dataset="images")
    (tmp_path / "all" / "note.txt").write_text("no run")
    assert results(read_parts(tmp_path / "all")) == results(read_run(runs / "whole"))
    assert results(read_parts(runs / "rest")) == results(read_run(runs / "rest"))
