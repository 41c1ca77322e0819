"""Whether the rows of a run are what its rule gives for the votes that they record. NumPy and SciPy only, never torch.

A run folder is plain text that people edit, join and copy. A row that its own rule could not give is found here, before it becomes a figure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hf_smoothing import statistics
from hf_smoothing.records.rows import TOLERANCE, Look, Row, Terms, read_looks, row_fault, terms_of, unfinished_fault
from hf_smoothing.records.shape import is_number, shown
from hf_smoothing.statistics import ABSTAIN
from hf_smoothing.units import diameter


@dataclass
class Counted:
    """Rows whose votes can be counted again: their indices, and the votes of each stage, as (class, votes) pairs."""

    indices: list[int] = field(default_factory=list)
    votes: list[list[Look]] = field(default_factory=list)


def faults(
    settings: Mapping[str, Any], rows: Mapping[int, Row], partials: Mapping[int, Row]
) -> Iterator[tuple[int, str]]:
    """(index, what is wrong) of rows that the run could not have written, the plain ones first.

    Args:
        settings: Content of `run.json`.
        rows: Finished rows by index.
        partials: Unfinished rows.
    """
    terms = terms_of(settings)
    counted = Counted()
    for index, row in rows.items():
        fault = row_fault(index, row, terms)
        if fault is None and "counts_by_look" in row and terms.stage_ends:
            fault, looks = read_looks(row, terms)
            counted.indices.append(index)
            counted.votes.append(looks)
        if fault is not None:
            yield index, fault
            return  # what follows reads the rows by their meaning
    for index, row in partials.items():
        if (fault := unfinished_fault(index, row, terms)) is not None:
            yield index, fault
            return
    if counted.indices:
        yield from _recounted(settings, rows, counted, terms)


def _recounted(
    settings: Mapping[str, Any], rows: Mapping[int, Row], counted: Counted, terms: Terms
) -> Iterator[tuple[int, str]]:
    """Rows whose answer, radius, bounds or targets are not those of their votes."""
    rule, aware = settings["rule"], bool(settings.get("label_aware"))
    least = 2 if rule["n0"] else 1
    short = [index for index, looks in zip(counted.indices, counted.votes, strict=True) if len(looks) < least]
    if short:
        yield short[0], f"a finished row must have at least {least} looks, got {len(rows[short[0]]['counts_by_look'])}"
        return
    tops = [
        _top(rows[index], looks, rule["n0"], aware)
        for index, looks in zip(counted.indices, counted.votes, strict=True)
    ]
    if None in tops:
        yield counted.indices[tops.index(None)], "a label-aware row must have a label"
        return
    claims = claims_of(settings, counted.votes, [top or 0 for top in tops], terms)
    for place, index in enumerate(counted.indices):
        row = rows[index]
        given = {
            "prediction": tops[place] if claims.answered[place] else ABSTAIN,
            "radius": float(claims.radius[place]),
            "p_lower": float(claims.p_lower[place]),
            "p_upper": None if claims.p_upper is None else float(claims.p_upper[place]),
            "certified_targets": list(terms.targets[: int(claims.reached[place])]),
        }
        for key, value in given.items():
            said: Any = row.get(key, value)
            near = is_number(said) and is_number(value) and abs(said - value) <= TOLERANCE * max(1.0, abs(value))
            if said != value and not (near and key != "prediction"):
                yield index, f"{key} is {shown(said)}, but the votes of this row give {value!r}"
                return


def _top(row: Row, looks: Sequence[Look], n0: int, aware: bool) -> int | None:
    """The class under test: the lowest of those with most votes, as argmax chooses."""
    if aware:
        return row.get("label")
    votes = dict(looks[0])
    if not n0:
        for look in looks[1:]:
            for label, count in look.items():
                votes[label] = votes.get(label, 0) + count
    return min(votes, key=lambda label: (-votes[label], label))


def claims_of(
    settings: Mapping[str, Any], looks: Sequence[Sequence[Look]], tops: Sequence[int], terms: Terms
) -> statistics.Claims:
    """What the rule of a run claims of images.

    Args:
        settings: Content of `run.json`.
        looks: The votes of each stage of each image.
        tops: The class under test of each image.
        terms: The terms of the run.
    """
    fixed = settings["rule"]["name"] == "fixed-n"
    return (_fixed if fixed else _sequential)(settings, looks, tops, terms)


def _fixed(
    settings: Mapping[str, Any], looks: Sequence[Sequence[Look]], tops: Sequence[int], terms: Terms
) -> statistics.Claims:
    successes = [look[1].get(top, 0) for look, top in zip(looks, tops, strict=True)]
    others = [
        max((n for k, n in look[1].items() if k != top), default=0) for look, top in zip(looks, tops, strict=True)
    ]
    return statistics.fixed_claims(
        np.array(successes), np.array(others), n=settings["rule"]["n"], alpha=settings["alpha"], sigma=settings["sigma"], bound=settings["bound"],
        slack=settings.get("total_variation", 0.0), diameter=diameter(settings["resolution"]),
    )  # fmt: skip


def _sequential(
    settings: Mapping[str, Any], looks: Sequence[Sequence[Look]], tops: Sequence[int], terms: Terms
) -> statistics.Claims:
    rule = settings["rule"]
    first, ends = (1 if rule["n0"] else 0), tuple(rule["looks"])
    successes = np.full((len(looks), len(ends)), -1, dtype=np.int64)
    for place, (stages, top) in enumerate(zip(looks, tops, strict=True)):
        total = 0
        for k, look in enumerate(stages[first:]):
            total += look.get(top, 0)
            successes[place, k] = total
    common = {
        "level": statistics.sequential_level(settings["alpha"], rule["n0"], bool(settings.get("label_aware"))),
        "sigma": settings["sigma"],
        "spending": rule["name"].endswith("spending"),
        "slack": settings.get("total_variation", 0.0),
    }
    boundaries = statistics.target_boundaries(terms.targets, ends, **common)
    return statistics.sequential_claims(
        successes, boundaries, targets=terms.targets, looks=ends, diameter=diameter(settings["resolution"]), **common
    )
