"""The page on how the library is tested names tests that exist, in the files that it links."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "how_it_is_tested.md"
TEXT = PAGE.read_text(encoding="utf-8")
LINK = re.compile(r"\]\((\.\./\.\./tests/[^)]+\.py)\)([^\[|]*)")
"""A file of tests, and what is said of it up to the next one."""


def named(text: str) -> dict[Path, list[str]]:
    return {(PAGE.parent / file).resolve(): re.findall(r"`(test_\w+)`", said) for file, said in LINK.findall(text)}


def missing(text: str) -> list[str]:
    found = []
    for file, names in named(text).items():
        if not file.exists():
            found.append(str(file))
            continue
        there = {
            node.name for node in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)
        }
        found += [f"{file.name}: {name}" for name in names if name not in there]
    return found


def test_every_named_test_exists():
    assert missing(TEXT) == []
    assert len(named(TEXT)) > 15
    # None is named outside of the place that is checked.
    assert len(re.findall(r"`test_\w+`", TEXT)) == sum(map(len, named(TEXT).values()))


def test_a_test_that_is_gone_is_named():
    text = "[a](../../tests/records/test_torn.py): `test_torn_at_every_byte`, `test_no_such`; [b](../../tests/gone/test_x.py)"
    assert missing(text) == ["test_torn.py: test_no_such", str(ROOT / "tests" / "gone" / "test_x.py")]


def test_every_row_has_a_test():
    rows = re.findall(
        r"^\| (?!claim|---)(.*) \|$", TEXT.partition("## Claims")[2].partition("\n## ")[0], flags=re.MULTILINE
    )
    assert len(rows) > 15
    assert [row for row in rows if "/tests/" not in row.split("|")[2]] == []
    assert {len(row.split("|")) for row in rows} == {5}


@pytest.fixture
def tested(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    for name in [name for name in sys.modules if name.startswith("_extensions")]:
        monkeypatch.delitem(sys.modules, name)
    from _extensions import tested

    return tested


def test_what_the_site_counts_is_there(tested):
    pytest.importorskip("sphinx")
    places = re.findall(r"<!-- tests: (\w+) -->", TEXT)
    assert sorted(places) == sorted(tested.MADE)
    assert "`test_mix_golden`" in tested.golden()
    for error in ("bounds too cautious", "loses a corner"):
        assert error in tested.planted()
    *_, total = tested.counts().splitlines()
    assert int(total.split("|")[2].replace(",", "")) > 1500
    functions = ast.parse("@pytest.mark.slow\ndef test_a(): ...\ndef test_b(): ...").body
    assert [tested.is_slow(function) for function in functions] == [True, False]
