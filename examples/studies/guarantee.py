"""The table of the page on how it is tested, from what its benchmark measured."""

from __future__ import annotations

from typing import Any

from examples.studies.pages import markdown_table


def fuzzed(measured: dict[str, Any]) -> str:
    """What became of the inputs of each parser."""
    about = measured.get("fuzzed_parsers", {"parsers": {}})
    rows: list[list[Any]] = [
        [name, f"{one['inputs']:,}", f"{one['accepted']:,}", f"{one['slowest_seconds']:g} s", one["faults"]]
        for name, one in about["parsers"].items()
    ]
    if rows:
        accepted = sum(one["accepted"] for one in about["parsers"].values())
        rows.append(["all", f"{about['value']:,}", f"{accepted:,}", "", about["faults"]])
    return markdown_table(["parser of", "inputs", "of these accepted", "slowest input", "faults"], rows)
