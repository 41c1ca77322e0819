"""Every measured figure of the cards follows from the records beside them, and the records belong to the weights."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from scipy.stats import beta

from examples.studies import hardware
from hf_smoothing import SmoothedClassifier
from hf_smoothing.certification.structure import weights_sha256
from model_cards.linf import LINF
from model_cards.records import BACKBONES, ROWS, SIGMAS, kept, verdicts, write
from tests.support.processes import ROOT


@pytest.fixture
def copy(tmp_path):
    """The cards and the published figures, in a folder of their own."""
    for name in {*ROWS, *BACKBONES, *LINF}:
        target = tmp_path / "model_cards" / name
        shutil.copytree(ROOT / "model_cards" / name, target)
    results = tmp_path / "docs" / "results"
    results.mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "results" / "published_cifar10.json", results)
    shutil.copy(ROOT / "README.md", tmp_path)
    return tmp_path


def test_the_cards_are_rebuilt_from_the_records(copy):
    write(copy)
    for name in {*ROWS, *BACKBONES, *LINF}:
        page = f"model_cards/{name}/README.md"
        assert (copy / page).read_text() == (ROOT / page).read_text(), page
    for other in ("docs/results/strong_models.json", "README.md"):
        assert (copy / other).read_text() == (ROOT / other).read_text(), other


def test_a_changed_row_is_refused(copy):
    file = copy / "model_cards" / "resnet-mixture-cifar10" / "records" / "sigma-0.25" / "certificates-0.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    first = next(row for row in rows if row["radius"] > 0.5)
    first["radius"] *= 2
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match="is not one of this run"):
        write(copy)


def test_a_card_without_a_place_is_refused(copy):
    page = copy / "model_cards" / "resnet-mixture" / "README.md"
    page.write_text(page.read_text().replace("<!-- table cifar10 -->", ""))
    with pytest.raises(ValueError, match=r"must have one place `<!-- table cifar10 -->`"):
        write(copy)


def test_the_certified_weights_are_the_shipped_ones():
    model = SmoothedClassifier.from_pretrained(ROOT / "model_cards" / "resnet-mixture-cifar10")
    for sigma in SIGMAS:
        run = kept(ROOT / "model_cards" / "resnet-mixture-cifar10" / "records" / f"sigma-{sigma}")
        assert run.finished and len(run.rows) == 500
        assert run.settings["model"]["weights_sha256"] == weights_sha256(model)
        assert run.settings["num_images"] == 500 and run.settings["rule"]["n"] == 100_000
        assert not run.settings["label_aware"]


def test_verdicts_say_what_the_intervals_say():
    """From the rows, with bounds of its own: where the interval lies above, contains or lies below the published figure."""
    theirs = json.loads((ROOT / "docs" / "results" / "published_cifar10.json").read_text())
    for row in (rows[0] for rows in ROWS.values()):
        for line, sigma in zip(verdicts(ROOT, row).splitlines(), SIGMAS, strict=True):
            run = kept(ROOT / "model_cards" / row.records.format(sigma))
            images, found = len(run.rows), {"above": [], "contains": [], "below": []}
            figures = theirs["strides"][str(run.settings["dataset"]["stride"])][sigma]["certified_accuracy"]
            for radius, figure in zip(theirs["radii"], figures, strict=False):
                if radius in run.settings["rule"]["targets"]:
                    right = [one for one in run.rows.values() if one["prediction"] == one["label"]]
                    k = sum(one["radius"] >= radius for one in right)
                    low = 100 * beta.ppf(0.025, k, images - k + 1) if k else 0.0
                    high = 100 * beta.ppf(0.975, k + 1, images - k) if k < images else 100.0
                    found["above" if low > figure else "below" if high < figure else "contains"].append(f"{radius:g}")
            words = {
                "above": "lies above the published figure at",
                "below": "lies below the published figure at",
                "contains": "contains it at",
            }
            for where, radii in found.items():
                said = re.search(rf"{words[where]} r = ([\d., ]+?)(?:;|\.$)", line)
                assert (said[1] if said else "") == ", ".join(radii), (line, where)


def test_the_tables_of_the_hardware_page_follow_from_the_records(copy):
    for name in ("hardware.json", "certification.json"):
        shutil.copy(ROOT / "docs" / "results" / name, copy / "docs" / "results")
    text = (ROOT / "docs" / "hardware.md").read_text()
    (copy / "docs" / "hardware.md").write_text(re.sub(r"(-->\n)\|.*?(<!-- end)", r"\1\2", text, flags=re.DOTALL))
    assert (copy / "docs" / "hardware.md").read_text() != text
    hardware.write(copy)
    assert (copy / "docs" / "hardware.md").read_text() == text, "a record is newer than the page: make reports"


def test_every_card_has_a_page_in_the_documentation():
    cards = {path.parent.name for path in (ROOT / "model_cards").glob("*/README.md")}
    assert {path.stem for path in (ROOT / "docs" / "models").glob("*.md")} == cards | {"index"}


@pytest.mark.parametrize("name", sorted({*ROWS, *BACKBONES, *LINF}))
def test_the_code_of_a_card_runs(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "model_cards" / name / "README.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, f"{name}/README.md", "exec"), {})
