"""A measured number of a page is made by the build, or stands in the list of hand-checked facts with its source."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[2]
LIST = json.loads((ROOT / "docs" / "hand_checked.json").read_text(encoding="utf-8"))
ALL = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("docs/**/*.md"), ROOT / "README.md", *ROOT.glob("model_cards/**/README.md"))
)
COVERED = [page for page in ALL if page not in LIST["exempt"]]
NUMBER = r"[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)"
UNIT = r"(?:%| times\b|x\b| points?\b| (?:milli)?seconds?\b| minutes?\b| hours?\b| m?s\b| [KMG]i?B\b)"
FIGURE = re.compile(
    rf"(?<![\w.,/^]){NUMBER}{UNIT}"  # with a unit
    rf"|(?<![\w.,/^]){NUMBER} [(\[]{NUMBER}(?:-|, ){NUMBER}[)\]]"  # with an interval
    r"|(?<![\w.,/^])[-+]?\d?\.\d{3,}(?!\w)"  # three decimals or more
    r"|(?<![\w.,/^])[-+]\d*\.\d+(?!\w)"  # a difference
)
MADE = re.compile(r"<!-- (?!end)[^>]*-->.*?<!-- end -->", re.DOTALL)
CODE = re.compile(r"^```.*?^```$|^---\n.*?^---$|\]\([^)]*\)|`[^`\n]*`", re.DOTALL | re.MULTILINE)


def blank(found: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", found[0])


def untraced(text: str, says: list[str]) -> list[str]:
    """Figures outside code, generated blocks and the phrases of the list, each with its line."""
    known = [range(match.start(), match.end()) for one in says for match in re.finditer(re.escape(one), text)]
    left = CODE.sub(blank, MADE.sub(blank, text))
    return [
        f"line {text.count(chr(10), 0, match.start()) + 1}: {match[0]}"
        for match in FIGURE.finditer(left)
        if not any(match.start() in place and match.end() - 1 in place for place in known)
    ]


@pytest.mark.parametrize("page", COVERED)
def test_every_figure_is_made_or_listed(page):
    says = LIST["settings"] + [fact["says"] for fact in LIST["pages"].get(page, [])]
    assert not untraced((ROOT / page).read_text(encoding="utf-8"), says)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It keeps 88% of it.", ["line 1: 88%"]),
        ("\nIt is 1.9 times as fast, 2.5x, in 3,084 s.", ["line 2: 1.9 times", "line 2: 2.5x", "line 2: 3,084 s"]),
        (
            "| 43.5 (41.3-45.7) | +0.021 [+0.010, +0.031] |",
            ["line 1: 43.5 (41.3-45.7)", "line 1: +0.021 [+0.010, +0.031]"],
        ),
        ("an ACR of 0.219, which is +.02 more", ["line 1: 0.219", "line 1: +.02"]),
        ("<!-- table cpu a -->\n88%\n<!-- end --> `5%` [5%](a-5.5%)\n```\n7 s\n```\n", ["line 3: 5%"]),
        ("sigma 0.25, 250 images, n = 10,000, 8.8/255, 3 seeds, 2.13.0, arXiv 2307.13078", []),
        ("with 95% intervals, the listed 7 points and 8 points", ["line 1: 8 points"]),
    ],
)
def test_what_a_figure_is(text, found):
    assert untraced(text, ["95% interval", "the listed 7 points"]) == found


def test_the_list_is_in_use_and_its_sources_exist():
    assert set(LIST["exempt"]) < set(ALL)
    assert set(LIST["pages"]) <= set(ALL)
    for page, facts in LIST["pages"].items():
        text = (ROOT / page).read_text(encoding="utf-8")
        for fact in facts:
            assert fact["says"] in text, f"{page} no longer says {fact['says']!r}"
            assert untraced(fact["says"], []), f"{fact['says']!r} has no figure"
            path, _, key = fact["source"].partition(": ")
            if re.match(r"(docs|hf_smoothing|examples|model_cards)/", path):
                assert (ROOT / path).exists(), path
                assert not key or key in json.loads((ROOT / path).read_text(encoding="utf-8")), fact["source"]
