"""What the pages say is what the committed records give."""

from __future__ import annotations

import json
import re
import shutil

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from examples.studies.command import DOCS
from examples.studies.reports import parts, rebuild
from examples.studies.sources import pages, source


STUDIES = ["smoothing_transfer", "robustness_transfer", "training_methods"]
PAGES = [
    *(f"{study}.md" for study in STUDIES), "interval.md", "certification.md", "how_to/verify.md", "explanation/how_it_is_tested.md", "sources.md",
]  # fmt: skip
DRAWN = ["explanation", "smoothing_transfer/cpu", "robustness_transfer/cpu", "training_methods/cpu", "interval"]
NOISE = {"gallery.png"}  # whose last bits are those of the processor that drew it
CONSTRAINTS = (DOCS.parent / "constraints.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory):
    """A copy of docs/ without what the reports must write, so that nothing passes because it was copied; then rebuilt."""
    docs = tmp_path_factory.mktemp("docs")
    shutil.copytree(DOCS / "results", docs / "results")
    for study in STUDIES:
        file = docs / "results" / f"{study}.json"
        kept = {name: value for name, value in json.loads(file.read_text()).items() if name != "cpu"}
        file.write_text(json.dumps(kept))
    shutil.copy(DOCS / "hand_checked.json", docs)
    for folder in ("how_to", "explanation"):
        (docs / folder).mkdir()
    for page in {path.name for path in DOCS.glob("*.md")} | set(PAGES):
        text = (DOCS / page).read_text(encoding="utf-8")
        (docs / page).write_text(emptied(text) if page in PAGES else text, encoding="utf-8")
    rebuild(docs)
    return docs


def test_all_records_are_used():
    assert set(parts(DOCS)) == {
        *(f"{study}-cpu" for study in STUDIES),
        "interval",
        "certification",
        "one certificate",
        "explanations",
        "sources",
    }
    assert (DOCS.parent / "Makefile").read_text(encoding="utf-8").count("-m examples.studies.reports") == 1


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_rebuilt(rebuilt, page):
    assert (rebuilt / page).read_text(encoding="utf-8") == (DOCS / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("study", [*STUDIES, "interval"])
def test_figures_of_the_tables_are_rebuilt(rebuilt, study):
    made, committed = (flat(json.loads((docs / f"results/{study}.json").read_text())) for docs in (rebuilt, DOCS))
    assert made.keys() == committed.keys()
    # Other versions of NumPy and SciPy differ in the last places.
    for place, value in made.items():
        expected = committed[place]
        assert value == (pytest.approx(expected, rel=1e-9, abs=1e-12) if isinstance(expected, float) else expected)


@pytest.mark.parametrize("folder", DRAWN)
def test_pictures_are_drawn_again(rebuilt, folder):
    made, committed = ({path.name: path for path in (docs / "figures" / folder).iterdir()} for docs in (rebuilt, DOCS))
    assert made.keys() == committed.keys()
    if f"matplotlib=={matplotlib.__version__}\n" in CONSTRAINTS:  # others draw their letters otherwise
        differing = [name for name, path in made.items() if path.read_bytes() != committed[name].read_bytes()]
        assert set(differing) <= NOISE
        for name in differing:
            one, other = (imread(pictures[name]) for pictures in (made, committed))
            assert one.shape == other.shape and np.mean(one != other) < 1e-3


def test_every_picture_is_shown_by_a_page():
    shown = {
        (page.parent / name).resolve()
        for page in DOCS.rglob("*.md")
        for name in re.findall(r"\]\(((?:\.\./)*figures/[^)]+)\)", page.read_text(encoding="utf-8"))
    }
    assert {path.resolve() for path in (DOCS / "figures").rglob("*.*")} == shown


def test_every_picture_is_drawn():
    assert {str(path.parent.relative_to(DOCS / "figures")) for path in (DOCS / "figures").rglob("*.png")} == set(DRAWN)


def test_a_table_without_a_place_is_refused(tmp_path):
    shutil.copytree(DOCS / "results", tmp_path / "results")
    page = (DOCS / "training_methods.md").read_text(encoding="utf-8")
    (tmp_path / "training_methods.md").write_text(re.sub("<!-- table cpu sigma-0.5 -->\n", "", page), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"training_methods.md has no place for sigma-0.5. Add `<!-- table cpu NAME"):
        parts(tmp_path)["training_methods-cpu"]()


def test_a_table_whose_record_is_not_known_is_refused(tmp_path):
    (tmp_path / "guide.md").write_text("<!-- table speed of light -->\n<!-- end -->\n", encoding="utf-8")
    with pytest.raises(
        SystemExit, match=r"The record of 'speed of light' in guide.md is not known. Add it to `source`"
    ):
        pages(tmp_path)
    assert source(DOCS, "interval", "adaptive-mnist networks")[0] == "`results/interval.json`"
    assert source(DOCS, "training_methods", "cpu sigma-0.5")[0] == "`results/training_methods-cpu.jsonl`"


def flat(value, above=()):
    """Every number and text of nested dictionaries and lists, by its place."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inner is None:
        return {above: value}
    return {place: leaf for key, part in inner for place, leaf in flat(part, (*above, key)).items()}


def emptied(page: str) -> str:
    """The page without what stands between its markers."""
    kept, inside = [], False
    for line in page.splitlines(keepends=True):
        inside = inside and line.strip() != "<!-- end -->"
        if not inside:
            kept.append(line)
        inside = inside or line.startswith("<!-- table ")
    return "".join(kept)
