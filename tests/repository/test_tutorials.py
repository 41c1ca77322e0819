"""The tutorials: what they show is what was recorded, their notebooks are made from them, and they run in an empty folder."""

from __future__ import annotations

import json
import re

import pytest

from examples.studies.tutorials import NAMES, NOTEBOOKS, Part, expected, first_cell, notebook, parts, read, run
from tests.support.processes import ROOT


RECORD = json.loads((ROOT / "docs" / "results" / "tutorials.json").read_text(encoding="utf-8"))
STEPS = ("python", "command")


def test_all_tutorials_are_known():
    assert sorted(NAMES) == sorted(path.stem for path in (ROOT / "docs" / "tutorials").glob("*.md"))
    assert set(RECORD) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_those_of_the_record(name):
    page = read(name)
    shown = expected(page)
    assert shown
    assert len(RECORD[name]["printed"]) == sum(part.kind in STEPS for part in page)
    for step, text in shown:
        assert text.strip("\n") in RECORD[name]["printed"][step]


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_takes_minutes(name):
    """On one core; under five minutes, and two cores are faster."""
    assert RECORD[name]["cpu_seconds"] < 300


@pytest.mark.parametrize("name", NAMES)
def test_what_the_numbers_say_is_said_of_numbers_that_are_shown(name):
    text = (ROOT / "docs" / "tutorials" / f"{name}.md").read_text(encoding="utf-8")
    told = text.partition("What the numbers say")[2].partition("\n## ")[0]
    printed = "\n".join(RECORD[name]["printed"])
    figures = re.findall(
        r"(?<![\w.])\d+\.\d+(?!\w)", re.sub(r"alpha|r = [\d.]+|radius [\d.]+|at most [\d.]+|up to [\d.]+", "", told)
    )
    assert told
    assert not [figure for figure in figures if figure not in printed]


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_are_made_from_the_pages(name):
    committed = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))
    assert committed == notebook(name), "run python -m examples.studies.tutorials notebooks"


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_one(name):
    made = notebook(name)
    assert (made["nbformat"], made["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in made["cells"]}) == len(made["cells"])
    first = next(cell for cell in made["cells"] if cell["cell_type"] == "code")
    assert "%pip install" in "".join(first["source"])
    assert not any(cell.get("outputs") for cell in made["cells"])
    links = re.findall(r"\]\((?!\w+:|#)([^)#]+)", "".join(line for cell in made["cells"] for line in cell["source"]))
    assert not [link for link in links if not (NOTEBOOKS / link).exists()]


def steps_of(made: dict) -> list[Part]:
    """What a reader of the notebook runs after the first cell."""
    found = []
    for cell in made["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code" and "%pip install" not in text:
            found.append(Part("command", text.replace("!", "")) if text.startswith("!") else Part("python", text))
    return found


def test_the_first_cell_brings_what_the_page_needs():
    plain = first_cell([Part("python", "x = 1\n")])
    assert "[plots]" in plain and "%cd" not in plain
    more = first_cell([Part("python", "from hf_smoothing.interval.export import export_run\nopen('model_cards/x')\n")])
    assert "[plots,export]" in more and "\n%cd ../..\n" in more
    assert "%cd" not in first_cell([Part("text", "See [the card](../../model_cards/x.md).\n")])


def test_a_page_in_pieces():
    page = parts("# A\n\n```text\nno step\n```\n\n```python\nx = 1\n```\n\n```\nls\n```\n\n```output\na\n```\n")
    assert [part.kind for part in page] == ["text", "python", "command", "output"]
    assert expected(page) == [(1, "a\n")]


def test_steps_share_their_names_and_what_they_print_is_kept(tmp_path):
    page = [
        Part("python", "x = 2\nprint(x)\n"),
        Part("command", "echo three > file\ncat file\n"),
        Part("python", "print(x + 2)\n"),
    ]
    assert [text.strip() for text in run(page, tmp_path)] == ["2", "three", "4"]
    with pytest.raises(RuntimeError, match="A block of the tutorial fails"):
        list(run([Part("python", "1 / 0\n")], tmp_path))
    assert not (tmp_path / "model_cards").exists()
    assert list(run([Part("command", "ls model_cards/README.md\n")], tmp_path)) == ["model_cards/README.md\n"]


def test_a_model_you_have(tmp_path):
    """The short one, from its notebook; the radii within what another processor may change."""
    first, second, one = (text.strip() for text in run(steps_of(notebook("a_model_you_have")), tmp_path))
    assert [first, one] == [RECORD["a_model_you_have"]["printed"][step].strip() for step in (0, 2)]
    recorded = RECORD["a_model_you_have"]["printed"][1].strip()
    assert [line.split(":")[0] for line in second.splitlines()] == [
        line.split(":")[0] for line in recorded.splitlines()
    ]
    radii = [float(found) for found in re.findall(r"radius ([\d.]+)", second)]
    assert radii == pytest.approx([float(found) for found in re.findall(r"radius ([\d.]+)", recorded)], abs=0.05)


def figures_near_the_record(name: str, printed: list[str]) -> None:
    """A table with the rows of the record, and figures near them: each is of 100 images, with an interval of 10 points to either side."""
    recorded = RECORD[name]["printed"]
    assert len(printed) == len(recorded)
    made, known = accuracies(printed[-1]), accuracies(recorded[-1])
    assert known and made.keys() == known.keys()
    for row, values in known.items():
        assert made[row] == pytest.approx(values, abs=15.0)


def accuracies(printed: str) -> dict[str, list[float]]:
    """Certified accuracy in % by row of a table, at the radii of its columns."""
    rows = [line.split("|") for line in printed.splitlines() if re.match(r"\|.*\(\d", line)]
    return {row[1].strip(): [float(cell.split("(")[0]) for cell in row[3:] if "(" in cell] for row in rows}


def test_tables_are_read():
    assert accuracies(RECORD["your_images"]["printed"][-1]) == {"runs/mine": [54.0, 40.0, 23.0]}
    assert accuracies(RECORD["train_at_a_tradeoff"]["printed"][-1])["small"] == [59.0, 43.0, 29.0]


@pytest.mark.slow
def test_l_infinity(tmp_path):
    """From its notebook, in a minute; the certificates of the trained network within what another processor may change."""
    pytest.importorskip("onnx")
    printed = list(run(steps_of(notebook("linf")), tmp_path))
    radii = [
        [float(found) for found in re.findall(r"radius ([\d.]+)", text[0])]
        for text in (printed, RECORD["linf"]["printed"])
    ]
    assert len(radii[0]) == 4 and radii[0] == pytest.approx(radii[1], abs=0.001)
    assert "5 claims written" in printed[2]
    figures_near_the_record("linf", printed)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["your_images", "train_at_a_tradeoff"])
def test_a_notebook_runs_in_an_empty_folder(tmp_path, name):
    """As a reader does it, from the first cell to the last."""
    figures_near_the_record(name, list(run(steps_of(notebook(name)), tmp_path)))
