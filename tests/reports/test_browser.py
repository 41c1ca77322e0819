"""`report --html`: one page that needs no other file."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from datasets import load_dataset
from PIL import Image

from hf_smoothing import PixelDataset, certify_dataset
from hf_smoothing.certification.noise_kinds import THREAT_MODELS
from hf_smoothing.cli import main
from hf_smoothing.html_page import thumbnail
from hf_smoothing.records import read_run
from hf_smoothing.reports import browser, report
from hf_smoothing.reports.browser import guarantee
from hf_smoothing.reports.images import SORT
from tests.support.tiny import label_maps, smoothed
from tests.support.written_runs import LINF, SEQUENTIAL, SETTINGS, written_run


def test_the_page_holds_what_the_report_says(tmp_path, capsys):
    run = written_run(tmp_path / "run", model={"id": "<tiny>"})
    assert main(["report", str(run), "--output-dir", str(tmp_path), "--thresholds", "0", "0.25", "--html"]) == 0
    assert "report.html, with the curves" in capsys.readouterr().out
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "<tiny>" not in page and "&lt;tiny&gt;" in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    for cell in ("50.0 (6.8-93.2)", "25.0"):  # two of four right, one of four abstained
        assert f"<td>{cell}</td>" in page
    assert [page.count(f"<td>{outcome}</td>") for outcome in ("right", "wrong", "abstained")] == [2, 1, 1]
    assert page.count("<img") == 2 and "class='images'" in page
    assert "implies an l-infinity radius of r / 27.72" in page
    assert (tmp_path / "report.md").read_text().count("50.0 (6.8-93.2)") == 2


def test_what_was_not_tested_is_a_dash(tmp_path):
    run = written_run(tmp_path / "run", rule=SEQUENTIAL)
    report([run], thresholds=[0.0, 3.0], output_dir=tmp_path, html=True)
    assert "<td>-</td>" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_groups_that_must_not_be_compared_have_sections_of_their_own(tmp_path):
    runs = [written_run(tmp_path / name, alpha=alpha) for name, alpha in (("a", 0.001), ("b", 0.01))]
    report(runs, output_dir=tmp_path, names=["one", "other"], html=True)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.findall("<h2>(.*?)</h2>", page) == ["one", "other"]
    assert "with probability at most 0.001." in page and "with probability at most 0.01." in page


def noise_facts(kind):
    """What a run says of its noise."""
    return {"noise_kind": kind, "threat_model": THREAT_MODELS[kind]}


@pytest.mark.parametrize(
    ("changes", "says", "not_says"),
    [
        ({}, "each certificate is wrong with probability at most 0.001", "no certificates"),
        ({"label_aware": True}, "they are no certificates", "alters the answer"),
        ({"deterministic": True, "norm": "linf"}, "No change of linf length", "probability"),
        (
            {"alpha": None},
            "unless its certificate is wrong: how probable that is, is not stated. Radii are as",
            "at most",
        ),
        (
            {"alpha": None, "rounding": "rounded to 3 digits as published"},
            "Radii are rounded to 3 digits as",
            "at most",
        ),
        (
            noise_facts("grid"),
            "0.001. This holds for perturbed images that are 8-bit at the certified resolution.",
            "neglected",
        ),
        (
            noise_facts("gaussian"),
            "This holds for any perturbed image, if floating-point rounding is neglected. A",
            "8-bit",
        ),
        (
            {**LINF, "rule": {"covers_run": True}},
            "This holds for runs of the network in its own dtype, whatever",
            "real",
        ),
        ({**LINF, "rule": {"covers_run": False}}, "the rounding of a float32 run is not covered.", "runs of"),
    ],
)
def test_the_guarantee_is_that_of_the_run(changes, says, not_says):
    said = guarantee(SETTINGS | changes)
    assert says in said and not_says not in said


def certified(tmp_path, shape=(3, 32, 32)):
    """A run of four images of a folder, and the folder."""
    data = tmp_path / "data"
    random = np.random.default_rng(0)
    for k in range(4):
        (data / "test" / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (*shape[1:], 3), dtype=np.uint8)).save(
            data / "test" / "ab"[k % 2] / f"{k}.png"
        )
    images = PixelDataset(load_dataset(str(data), split="test"), shape[1:])
    certify_dataset(
        lambda x: torch.stack([x.mean((1, 2, 3)), 0.5 + 0 * x.mean((1, 2, 3))], 1), images, tmp_path / "run", sigma=0.25, n=20, seed=0,
        progress=False, description={"dataset": {"id": "data", "split": "test"}},
    )  # fmt: skip
    return tmp_path / "run", data


def test_the_page_shows_the_images_of_the_data_set(tmp_path):
    run, data = certified(tmp_path)
    out = tmp_path / "out"
    assert main(["report", str(run), "--html", "--dataset", str(data), "--output-dir", str(out)]) == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    shown = re.findall(r"class='thumbnail' alt='' src='data:image/png;base64,([^']+)'> (\d+)<", page)
    files = sorted((data / "test").rglob("*.png"))  # the order of the data set: by class
    assert [index for _, index in shown] == ["0", "1", "2", "3"]
    for (encoded, _), file in zip(shown, files, strict=True):
        assert np.array_equal(
            np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded)))), np.asarray(Image.open(file))
        )
    counted = re.findall(r"value='(\w+)' checked> \1 \((\d+)\)", page)
    assert sum(int(count) for _, count in counted) == 4
    assert all(page.count(f"<tr data-outcome='{kind}'>") == int(count) for kind, count in counted)


def test_the_configuration_of_a_run_is_not_asked_of_another_data_set(tmp_path):
    """The same images in a folder, where the run read them from a data set with configurations and a column of its own."""
    run, data = certified(tmp_path)
    record = json.loads((run / "run.json").read_text())
    record["dataset"] |= {"id": "owner/data", "config": "plain", "image_column": "img"}
    (run / "run.json").write_text(json.dumps(record))
    assert main(["report", str(run), "--html", "--dataset", str(data), "--output-dir", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "report.html").read_text().count("class='thumbnail'") == 4


def test_other_images_are_not_shown_for_those_of_the_run(tmp_path, capsys):
    run, data = certified(tmp_path)
    Image.new("RGB", (32, 32)).save(data / "test" / "b" / "1.png")
    assert main(["report", str(run), "--html", "--dataset", str(data), "--output-dir", str(tmp_path / "out")]) == 2
    assert "image 2 is another one or missing. Pass the data set that was certified" in capsys.readouterr().err
    assert main(["report", str(run), "--dataset", str(data), "--output-dir", str(tmp_path / "out")]) == 2
    assert "Add --html." in capsys.readouterr().err


def test_large_images_are_shown_small():
    kept = re.search("base64,([^']+)", thumbnail(np.zeros((3, 200, 100), dtype=np.uint8)))
    assert Image.open(io.BytesIO(base64.b64decode(kept[1]))).size == (32, 64)
    assert "base64" in thumbnail(np.zeros((1, 8, 8), dtype=np.uint8))


def test_a_page_needs_a_folder(tmp_path):
    with pytest.raises(ValueError, match="`html` needs `output_dir`, the folder of the page, got None"):
        report([written_run(tmp_path / "run")], html=True)


def test_an_empty_histogram_is_left_out(tmp_path):
    """Of draws, which rows of interval bounds do not have."""
    report([written_run(tmp_path / "run", **LINF)], output_dir=tmp_path, html=True)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    found = re.findall("<figcaption>Number of images by (.*?)</figcaption>", page)
    assert found == ["certified radius of images that are right"]


def test_the_page_is_for_people(tmp_path):
    """No hash of a part of a network, no dash of Markdown, and counts on the axis of draws."""
    config = {f"base_config.part{number}": "5feceb66ffc86f38" for number in range(20)}
    run = written_run(
        tmp_path / "run", rule=SEQUENTIAL, model={"id": "net", "weights_sha256": "ab" * 32, "config": config}
    )
    report([run], thresholds=[0.0, 0.25, 5.0], output_dir=tmp_path, html=True)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "5feceb66ffc86f38" not in page and "<td>20 parts, in run.json</td>" in page
    assert "ab" * 32 in page
    assert "<p>Not tested: " in page and "- Not tested" in (tmp_path / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("draws", "ticks"),
    [
        ((120, 300, 1_000, 1_100), ["200", "500", "1,000"]),
        ((120, 300), ["150", "200", "250", "300"]),
        ((164, 400), ["200", "300", "400"]),
        ((1_000, 1_010), ["950", "1,000", "1,050", "1,100"]),
        ((100, 100_000), ["100", "1,000", "10,000", "100,000"]),
    ],
    ids=str,
)
def test_a_histogram_holds_all_images_on_an_axis_for_people(draws, ticks, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(browser, "picture", lambda figure, caption: figures.append(figure) or "")
    run = written_run(tmp_path / "run", rule=SEQUENTIAL)

    def read(path):
        found = read_run(path)
        for row, count in zip(found.rows.values() if path == run else (), itertools.cycle(draws), strict=False):
            row["draws"] = count
        return found

    monkeypatch.setattr("hf_smoothing.reports.page.read_run", read)
    report([run, written_run(tmp_path / "fixed", [(0, 0, 0.5)] * 4)], output_dir=tmp_path, html=True)
    (drawn,), (*_, radii) = (figure.axes for figure in figures[1::2])  # each after a figure of its curves
    assert drawn.get_xscale() == "log" and drawn.get_xlim()[0] < min(draws) and drawn.get_xlim()[1] > max(draws)
    assert [text.get_text() for text in drawn.get_xticklabels()] == ticks
    assert radii.get_xlim()[0] < 0.5 < radii.get_xlim()[1]  # a single radius has room around it


def test_classes_have_their_names(tmp_path):
    """Those that were recorded, whatever stands in the model's folder by now; without any, and with names like LABEL_0, numbers."""
    smoothed("vit", base=label_maps(("red", "blue", "green"))).save_pretrained(tmp_path / "model")
    for number, (names, found) in enumerate([
        (["cat", "dog", "<eel>"], "dog (1)"),
        (["LABEL_0", "LABEL_1", "LABEL_2"], "1"),
        (None, "1"),
    ]):  # fmt: skip
        recorded = {"informative": {"class_names": names}} if names else {}
        run = written_run(tmp_path / f"run{number}", model={"id": str(tmp_path / "model")}, **recorded)
        assert main(["report", str(run), "--html", "--output-dir", str(tmp_path)]) == 0
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert f"<td>{found}</td>" in page and "<eel>" not in page


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
@pytest.mark.parametrize(
    "cells",
    [
        ["-", "-", "0", "0.5", "3", "12"],
        ["-", "0.00000", "0.00784", "0.03137"],
        ["-", "3", "10", "cat (0)", "dog (1)", "eel (10)"],
        ["abstained", "right", "wrong"],
    ],
)
def test_a_column_has_one_order_whatever_it_holds(cells, tmp_path):
    """The script's own order of every two cells: a dash is the smallest, numbers are below names."""
    order = re.search(r"const rank = .*?(?=document)", SORT, re.DOTALL)[0]
    pairs = list(itertools.product(range(len(cells)), repeat=2))
    asked = f"{order}console.log(JSON.stringify({json.dumps([[cells[a], cells[b]] for a, b in pairs])}.map(([a, b]) => Math.sign(order(a, b)))))"
    found = json.loads(subprocess.run(["node", "-e", asked], capture_output=True, check=True, timeout=60).stdout)
    assert found == [0 if cells[a] == cells[b] else (a > b) - (a < b) for a, b in pairs]
