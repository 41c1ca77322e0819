"""What the pages say is what the committed records give."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from examples.studies.command import DOCS, main


STUDIES = Path(__file__).resolve().parents[2] / "examples" / "studies"


@pytest.mark.parametrize("study", ["smoothing_transfer", "robustness_transfer", "training_methods"])
def test_the_report_rebuilds_page_and_figures_from_the_records(study, tmp_path):
    (tmp_path / "results").mkdir()
    for name in (f"{study}.md", f"results/{study}.json", f"results/{study}-cpu.jsonl"):
        shutil.copy(DOCS / name, tmp_path / name)
    # Without what the report must write, so that nothing passes because it was copied.
    page = tmp_path / f"{study}.md"
    kept = page.read_text(encoding="utf-8")
    page.write_text(emptied(kept), encoding="utf-8")
    (tmp_path / f"results/{study}.json").unlink()
    given = ["report", "--config", str(STUDIES / study / "cpu.json"), "--output-dir", str(tmp_path / "nowhere")]
    main(f"examples.studies.{study}", None, [*given, "--docs", str(tmp_path)])
    assert page.read_text(encoding="utf-8") == kept
    rebuilt, committed = (json.loads((docs / f"results/{study}.json").read_text()) for docs in (tmp_path, DOCS))
    rebuilt, committed = flat(rebuilt["cpu"]), flat(committed["cpu"])
    assert rebuilt.keys() == committed.keys()
    # Other versions of NumPy and SciPy differ in the last places.
    for place, value in rebuilt.items():
        expected = committed[place]
        assert value == (pytest.approx(expected, rel=1e-9, abs=1e-12) if isinstance(expected, float) else expected)
    drawn = {path.name for path in (tmp_path / "figures" / study / "cpu").iterdir()}
    figures = {path.name for path in (DOCS / "figures" / study / "cpu").iterdir()}
    assert drawn == figures - {"gallery.png"}  # which needs the networks as well


def flat(value, above=()):
    """Every number and text of nested dictionaries and lists, by its place."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if parts is None:
        return {above: value}
    return {place: leaf for key, part in parts for place, leaf in flat(part, (*above, key)).items()}


def emptied(page: str) -> str:
    """The page without what stands between its markers."""
    kept, inside = [], False
    for line in page.splitlines(keepends=True):
        inside = inside and line.strip() != "<!-- end -->"
        if not inside:
            kept.append(line)
        inside = inside or line.startswith("<!-- table ")
    return "".join(kept)
