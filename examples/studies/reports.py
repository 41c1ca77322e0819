"""Rebuild every page, record and figure that follows from the committed records: `make reports`.

    python -m examples.studies.reports [--docs docs]

What needs a clock is left as it is: what benchmarks measure.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from examples.studies import benchmarks, explanations, one_certificate, sources, tradeoff
from examples.studies.command import DOCS, main


def parts(docs: Path) -> dict[str, Callable[[], None]]:
    """What is rebuilt, by name: each study at each scale that has records, and the pages on interval bounds, certification and sources."""
    records = sorted((docs / "results").glob("*-*.jsonl"))
    studies: dict[str, Callable[[], None]] = {file.stem: partial(_study, file.stem, docs) for file in records}
    pages = {
        "interval": tradeoff.rebuild,
        "certification": benchmarks.rebuild,
        "one certificate": one_certificate.draw,
        "explanations": explanations.draw,
        "sources": sources.rebuild,
    }
    return studies | {name: partial(made, docs) for name, made in pages.items()}


def _study(name: str, docs: Path) -> None:
    """The report of one study from its records alone.

    Raises:
        SystemExit: If the records are not those of the configuration, or its page lacks a place for a table.
    """
    study, _, scale = name.rpartition("-")
    config = Path(__file__).with_name(study) / f"{scale}.json"
    with tempfile.TemporaryDirectory() as nowhere:
        given = ["report", "--config", str(config), "--output-dir", nowhere, "--docs", str(docs)]
        main(f"examples.studies.{study}", None, given)
        left = Path(nowhere) / "report.md"
        if left.exists():
            headings = [line[3:] for line in left.read_text(encoding="utf-8").splitlines() if line.startswith("## ")]
            raise SystemExit(
                f"{study}.md has no place for {', '.join(headings)}. Add `<!-- table {scale} NAME -->` and `<!-- end -->`, on lines of their own."
            )


def rebuild(docs: Path) -> None:
    """All parts, one after the other."""
    for part in parts(docs).values():
        part()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=Path, default=DOCS, help="Folder of pages, results and figures.")
    rebuild(parser.parse_args().docs)
