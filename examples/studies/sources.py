"""Where every figure of the pages comes from: the tables of docs/sources.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from examples.studies.pages import markdown_table
from hf_smoothing.cards import fill_one
from hf_smoothing.records import read_json


MADE = re.compile(r"<!-- table (?P<table>.+?) -->|!\[[^\]]*\]\((?P<picture>figures/[^)]+)\)")


def rebuild(docs: Path) -> None:
    """Fill the page.

    Raises:
        ValueError: If it has no place for a table.
        SystemExit: If a page shows something whose record is not known.
    """
    page = docs / "sources.md"
    text = page.read_text(encoding="utf-8")
    for name, body in (("pages", pages(docs)), ("benchmarks", benchmarks(docs)), ("facts", facts(docs))):
        text = fill_one(text, f"sources {name}", body, page)
    page.write_text(text, encoding="utf-8")


def pages(docs: Path) -> str:
    """Every table and picture that is made, with its record and the command that measured it."""
    rows = []
    for page in sorted(docs.glob("*.md")):
        shown: dict[tuple[str, str], list[str]] = {}
        for match in MADE.finditer(page.read_text(encoding="utf-8")):
            name = match["table"] or match["picture"]
            if not name.startswith("sources "):
                shown.setdefault(source(docs, page.stem, name), []).append(f"`{name.rpartition('/')[2]}`")
        rows += [[page.name, ", ".join(names), record, command] for (record, command), names in shown.items()]
    return markdown_table(["page", "tables and pictures", "record", "measured by"], rows)


def source(docs: Path, page: str, name: str) -> tuple[str, str]:
    """The record of a table or picture, and the command that measured it.

    Raises:
        SystemExit: If it is not known.
    """
    if name.endswith("gallery.png"):
        return f"`results/{page}-gallery.json`", f"`python -m examples.studies.{page} report` with the networks"
    scale = name.split("/")[2] if name.startswith(f"figures/{page}/") and name.count("/") == 3 else name.split()[0]
    if (docs / "results" / f"{page}-{scale}.jsonl").exists():
        config = f"examples/studies/{page}/{scale}.json"
        return f"`results/{page}-{scale}.jsonl`", f"`python -m examples.studies.{page} run --config {config}`"
    own = {
        "adaptive": ("`results/interval.json`", "`examples/adaptive_certified_training.py`, as the page calls it"),
        "interval covering": ("`results/interval.json`", "`tests/benchmarks/interval_covering.py`"),
        "interval dataset": ("`results/guarantee.json`", "`tests/benchmarks/interval_dataset.py`"),
        "bounds": ("`results/linf_frontier.json`", "`tests/benchmarks/interval_tightness.py`"),
        "fronts": ("`results/interval.json`", "`examples/adaptive_certified_training.py`, as the page calls it"),
        "losses": ("`results/linf_frontier.json`", "`tests/benchmarks/interval_losses.py`"),
        "certification": ("`results/certification.json`", "`make bench-certification`"),
        "hardware": (
            "`results/hardware.json` (its part `gpu` noted by hand from the logs of `make gpu` stages), `results/certification.json`",
            "`make gpu`, `make bench-certification`",
        ),
    }
    kind = re.split(r"[-\s.]", name.rpartition("/")[2])[0]
    if name in own or kind in own:
        return own.get(name) or own[kind]
    if page == "architectures":
        return "the table itself", "`python -m tests.support.walk`"
    raise SystemExit(f"The record of {name!r} in {page}.md is not known. Add it to `source` in {Path(__file__).name}.")


def benchmarks(docs: Path) -> str:
    """Every figure of a benchmark, with the command that measured it."""
    rows = []
    for file in sorted((docs / "results").glob("*.json")):
        for key, found in (read_json(file) or {}).items():
            command = found.get("command") if isinstance(found, dict) else None
            if command is not None:
                rows.append([f"`{file.name}`", key, f"`{command}`"])
    return markdown_table(["record", "figure", "measured by"], rows)


def facts(docs: Path) -> str:
    """The figures in prose that were checked by hand."""
    listed: dict[str, list[dict[str, Any]]] = (read_json(docs / "hand_checked.json") or {"pages": {}})["pages"]
    rows = [
        [page, re.sub(r"\s*\|\s*", "; ", fact["says"]).strip("; "), fact["source"]]
        for page, facts in listed.items()
        for fact in facts
    ]
    return markdown_table(["page", "says", "source"], rows)
