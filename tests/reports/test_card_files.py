"""What `write_card` and a training leave of a card that somebody has written: all but what they promise to change, also where the disk is full."""

import errno
import json
import os
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from hf_smoothing.card_file import CardFile, node_of_value
from hf_smoothing.records import read_run
from hf_smoothing.reports.card import measured_for, write_card
from hf_smoothing.reports.card_results import ENTRIES, other_benchmarks
from tests.support.written_runs import written_run


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "resnet"}))
    return folder


@pytest.fixture
def run(tmp_path):
    return read_run(written_run(tmp_path / "run"))


OWN = """\
# keep this
language: no   # Norwegian
datasets: [on]
version: 1.10
date: 2024-01-01
# of the next
tags: [on, "1.10"]
other: {a: 0x10, b: [yes]}
license: mit
# at the end
"""


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_metadata_is_kept_as_it_is_written(ending, model, run):
    page = model / "README.md"
    page.write_bytes(f"---\n{OWN}---\n# T\n".replace("\n", ending).encode())
    write_card(model, [run])
    content = page.read_bytes().decode()
    assert content.count("\r\n") == (content.count("\n") if ending == "\r\n" else 0)
    head = CardFile(page).metadata
    kept = [line for line in OWN.splitlines() if not line.startswith("tags")]
    assert [line for line in head.splitlines() if line in kept] == kept
    words = {token.value for token in yaml.scan(head) if isinstance(token, yaml.ScalarToken) and token.plain}
    assert {"no", "on", "1.10", "0x10", "yes", "certified_accuracy"} <= words
    write_card(model, [run])
    assert page.read_bytes().decode() == content


@pytest.mark.parametrize(
    "head",
    [
        "",
        "{}",
        "{license: mit, tags: [a]}",
        "tags: a",
        "tags:",
        "tags: &a [x]\nother: *a",
        "license: mit\ntags:\n- a\n\n",
    ],
)
def test_metadata_of_any_shape_takes_another_key(head, tmp_path):
    page = tmp_path / "README.md"
    page.write_text(f"---\n{head}\n---\n# T\n")
    card, before = CardFile(page), yaml.safe_load(head) or {}
    card.put("tags", node_of_value(["b"]))
    card.put("new", node_of_value("no"))
    card.save()
    assert ModelCard.load(page).text == "# T\n"
    assert yaml.safe_load(CardFile(page).metadata) == before | {"tags": ["b"], "new": "no"}


INDEX = """\
model-index:
- name: one
  results:
  - task: {type: image-classification}
    dataset: {type: cifar10, name: c}
    metrics: [{type: accuracy, value: 0.90}]
- name: two
  description: kept
  results:
  - task: {type: image-classification}
    dataset: {type: mnist, name: m}
    metrics: [{type: accuracy, value: 0.1}, {type: certified_accuracy, value: 7}]
"""


@pytest.mark.parametrize(("name", "named"), [(None, ["one", "two"]), ("one", ["one", "two"]), ("x", ["one", "x"])])
def test_each_model_of_an_index_keeps_its_results(name, named, model, run):
    page = model / "README.md"
    page.write_text(f"---\n{INDEX}---\n# T\n")
    write_card(model, [run], name=name, thresholds=[0.0])
    one, two = yaml.safe_load(CardFile(page).metadata)["model-index"]
    assert [one["name"], two["name"]] == named and two["description"] == "kept"
    mine, other = (one, two) if name == "one" else (two, one)
    assert [m["value"] for r in mine["results"] for m in r["metrics"]] == [0.9 if name == "one" else 0.1, 50.0]
    assert len(other["results"]) == 1 and "value: 0.90" in page.read_text()


def test_results_for_one_benchmark_leave_those_for_others(model, run, tmp_path):
    write_card(model, [run], benchmark="a/x")
    first = (model / ENTRIES).read_text()
    write_card(model, [run], benchmark="b/y")
    assert (model / ENTRIES).read_text() == first + first.replace("a/x", "b/y")
    write_card(model, [run], benchmark="a/x")
    assert sorted(re.findall("id: (./.)", (model / ENTRIES).read_text())) == ["a/x"] * 5 + ["b/y"] * 5
    assert other_benchmarks(model, measured_for([run])) == []
    changed = read_run(written_run(tmp_path / "b", [(0, 0, 0.9)] * 4))
    write_card(model, [changed], benchmark="a/x")
    assert other_benchmarks(model, measured_for([changed])) == ["b/y"]


@pytest.mark.parametrize("file", ["README.md", ENTRIES])
def test_a_full_disk_leaves_the_card_and_the_results(file, model, run, monkeypatch):
    write_card(model, [run], benchmark="a/x")
    (model / "README.md").write_text(own := "# Mine\n" + "words " * 1000)
    before = (model / ENTRIES).read_text()

    def full(source, target):
        if Path(target) == model / file:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        rename(source, target)

    rename = os.replace
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="What stood there is kept"):
        write_card(model, [run], benchmark="a/x")
    assert ((model / "README.md").read_text(), (model / ENTRIES).read_text()) == (own, before)
    assert not list(model.rglob("*.tmp"))


def test_files_that_cannot_be_read_are_explained(model, run):
    page = model / "README.md"
    page.write_bytes("# Café\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"README.md must be text in UTF-8, got byte 0xe9 at place 5\. Save it"):
        write_card(model, [run])
    page.write_text("---\n1: a\n---\n")
    with pytest.raises(ValueError, match="must begin with metadata that the Hub can read"):
        write_card(model, [run])
    page.write_text("# T")
    (model / ENTRIES).parent.mkdir()
    (model / ENTRIES).write_text("[")
    with pytest.raises(ValueError, match=r"certified_accuracy.yaml must be YAML, .* Correct or remove it\."):
        write_card(model, [run], benchmark="a/x")
    assert page.read_text() == "# T"


def test_names_of_a_run_are_no_marks_of_a_place(model, tmp_path):
    facts = {"id": "a <!-- end -->", "split": "<!-- table use -->", "sha256": "0" * 64}
    one = read_run(written_run(tmp_path / "run", dataset=facts))
    write_card(model, [one])
    once = (model / "README.md").read_text()
    write_card(model, [one])
    assert (model / "README.md").read_text() == once
