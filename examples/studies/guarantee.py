"""The tables of the page on how it is tested, from what its benchmarks measured."""

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


ORDERS = {
    "used": "word by word, as a run reads them",
    "draws": "the same word of all draws",
    "images": "the same word of all images",
    "rest": "the bits of the rare look-ups",
    "seeds": "the same word under 256 consecutive seeds",
}


def random_bits(measured: dict[str, Any]) -> str:
    """What published batteries say of the random bits: a row for each battery and order, both orders of the bits of a word in it."""
    groups: dict[tuple[str, str, str], list[tuple[str, dict[str, Any]]]] = {}
    for name, one in measured.get("random_bits", {"value": {}})["value"].items():
        battery, order, halves, seed = name.split(", ")
        groups.setdefault((battery, order, seed), []).append((halves, one))
    rows: list[list[Any]] = [
        [
            battery,
            ORDERS[order] + ("" if seed == "seed 0" else f", {seed}"),
            " and ".join(halves for halves, _ in some),
            sum(one["p_values"] for _, one in some),
            ", ".join(f"{test} {p}" for _, one in some for test, p in one["named"].items()) or "none",
            sum(one["failed"] for _, one in some),
        ]
        for (battery, order, seed), some in groups.items()
    ]
    return markdown_table(
        ["battery", "order of the words", "bits of a word", "p-values", "p-values it names", "failures"], rows
    )
