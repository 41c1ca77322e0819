"""The schemas of the record format, against run folders: those that are committed, and new ones of every kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hf_smoothing import certify_dataset
from hf_smoothing.interval import certify_dataset_linf
from hf_smoothing.records import FORMAT
from hf_smoothing.records.rows import ROW_KEYS, UNFINISHED_KEYS
from hf_smoothing.records.shape import CHECKS, REQUIRED
from tests.support.schema import faults


ROOT = Path(__file__).resolve().parents[2]
RUN, ROW = (
    json.loads((ROOT / "docs" / "reference" / f"{name}.schema.json").read_text(encoding="utf-8"))
    for name in ("run", "row")
)
COMMITTED = sorted(path.parent for path in ROOT.glob("model_cards/*/records/**/run.json"))


def settings_of(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for file in folder.glob("certificates-*.jsonl") for line in file.read_text().splitlines()]


def check(folder: Path) -> None:
    settings, rows = settings_of(folder), rows_of(folder)
    assert not list(faults(RUN, settings))
    assert settings.keys() <= RUN["properties"].keys()
    assert settings["rule"].keys() <= RUN["properties"]["rule"]["properties"].keys()
    assert rows and not [fault for row in rows for fault in faults(ROW, row)]


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda path: "-".join(path.parts[-3:]))
def test_committed_runs(folder):
    check(folder)


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return {"pixel_values": torch.full((3, 4, 4), 60 * index, dtype=torch.uint8), "labels": index % 2}


def two_classes(pixels):
    first = pixels.flatten(1).mean(1)
    return torch.stack([0.4 - first, first - 0.4], dim=1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "curve", "spending": True},
        {"mode": "fixed"},
        {"mode": "fixed", "bound": "runner-up"},
        {"label_aware": True},
        {"noise_kind": "gaussian", "n0": 0},
    ],
    ids=lambda options: ", ".join(map(str, options.values())) or "default",
)
def test_new_runs(tmp_path, options):
    certify_dataset(two_classes, Images(), tmp_path / "run", sigma=0.25, n=200, seed=0, **options)
    check(tmp_path / "run")


def test_a_new_run_of_interval_bounds(tmp_path):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2)).eval()
    certify_dataset_linf(network, Images(), tmp_path / "run", largest=0.1)
    check(tmp_path / "run")


def test_the_format_is_that_of_the_code():
    assert RUN["properties"]["format"]["const"] == FORMAT


def test_rows_and_settings_of_another_kind_are_found():
    settings, row = settings_of(COMMITTED[0]), rows_of(COMMITTED[0])[0]
    for change in (
        {"norm": "l1"},
        {"sigma": 64},
        {"alpha": "0.001"},
        {"resolution": [3, 32]},
        {"rule": {"name": "?"}},
    ):
        assert list(faults(RUN, settings | change)), change
    assert list(faults(RUN, {key: value for key, value in settings.items() if key != "rule"}))
    for change in (
        {"radius": -1.0},
        {"prediction": 1.5},
        {"counts_by_look": [{"0": -1}]},
        {"more": 1},
        {"partial": True},
    ):
        assert list(faults(ROW, row | change)), change
    with pytest.raises(KeyError):
        list(faults({"format": "date"}, 1))


def test_what_a_run_must_say_is_what_its_reader_asks():
    """Or a record that lacks it would end in a KeyError of whoever relies on it."""
    rule = RUN["properties"]["rule"]["required"]
    for method, part in (("randomized-smoothing", RUN["then"]), ("interval-bounds", RUN["else"])):
        said = {*RUN["required"], *part["required"]} - {"format", "method"}
        inner = {f"rule.{key}" for key in (*rule, *part["properties"]["rule"]["required"])}
        assert {*REQUIRED[method]} == said | inner and {*REQUIRED[method]} <= CHECKS.keys(), method
        assert ROW_KEYS[method] >= {*ROW["required"], *ROW["else"]["required"]} - {"index"}, method
    assert {*ROW["required"], *ROW["then"]["required"]} - {"index"} == UNFINISHED_KEYS
