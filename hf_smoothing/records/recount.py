"""Whether the rows of a run are what its rule gives for the votes that they record. NumPy and SciPy only, never torch.

A run folder is plain text that people edit, join and copy. A row that its own rule could not give is found here, before it becomes a figure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hf_smoothing import statistics
from hf_smoothing.records.shape import is_number, is_whole, settings_fault, shown
from hf_smoothing.statistics import ABSTAIN
from hf_smoothing.units import diameter


Row = Mapping[str, Any]
Look = dict[int, int]

TOLERANCE = 1e-6
"""Between versions of SciPy; far below what is printed."""
CLASS = re.compile(r"0|[1-9][0-9]{0,17}")
"""The number of a class as a run writes it, so that no class is counted under two names."""


@dataclass(frozen=True)
class Terms:
    """What the settings of a run say that its rows must keep to; what they do not say is not asked.

    Attributes:
        selection: Indices of the run's images.
        ceiling: Upper limit of every radius.
        targets: Target radii.
        stage_ends: Draws at the end of each stage, where votes can be counted again.
    """

    selection: range | frozenset[int] | None = None
    ceiling: float = math.inf
    targets: tuple[float, ...] = ()
    stage_ends: tuple[int, ...] = ()


@dataclass
class Counted:
    """Rows whose votes can be counted again: their indices, and the votes of each stage, as (class, votes) pairs."""

    indices: list[int] = field(default_factory=list)
    votes: list[list[Look]] = field(default_factory=list)


def terms_of(settings: Mapping[str, Any]) -> Terms:
    """The terms of a run, from its settings."""
    rule = settings.get("rule")
    rule = rule if isinstance(rule, dict) else {}
    images = settings.get("informative")
    selection = images.get("indices") if isinstance(images, dict) else None
    return Terms(
        selection=range(*selection["range"]) if isinstance(selection, dict) else None if selection is None else frozenset(selection),
        ceiling=ceiling(settings),
        targets=tuple(rule.get("targets", ())),
        stage_ends=_stage_ends(settings, rule),
    )  # fmt: skip


def _stage_ends(settings: Mapping[str, Any], rule: Mapping[str, Any]) -> tuple[int, ...]:
    """Ends of the stages; none where the settings do not say all that counting again takes."""
    # Also of settings that lost their method: rows do not escape by that.
    if "resolution" not in settings or settings_fault({**settings, "method": "randomized-smoothing"}) is not None:
        return ()
    n0, n = rule["n0"], rule["n"]
    if rule["name"] == "fixed-n":
        return (n0, n0 + n)
    return ((n0,) if n0 else ()) + tuple(n0 + k for k in rule["looks"])


def ceiling(settings: Mapping[str, Any]) -> float:
    """The largest radius that a run with these settings can certify; inf where they do not say enough."""
    rule = settings.get("rule")
    rule = rule if isinstance(rule, dict) else {}
    if settings.get("norm") == "linf":
        return min(1.0, float(rule.get("largest", 1.0)))
    shape = settings.get("resolution")
    farthest = diameter(shape) if shape else math.inf
    n, alpha, sigma = rule.get("n"), settings.get("alpha"), settings.get("sigma")
    if settings.get("norm") != "l2" or n is None or alpha is None or sigma is None:
        return farthest
    name, slack = str(rule.get("name")), settings.get("total_variation", 0.0)
    if name.startswith("sequential"):
        level = statistics.sequential_level(alpha, rule.get("n0", 0), settings.get("label_aware", False))
        return min(farthest, statistics.sequential_ceiling(n, level, sigma, slack))
    if name == "fixed-n" and settings.get("bound") == "runner-up":
        best = statistics.fixed_claims(n, 0, n=n, alpha=alpha, sigma=sigma, bound="runner-up", slack=slack)
        return min(farthest, float(best.radius))
    return min(farthest, float(statistics.max_radius(n, alpha, sigma)))


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
        fault = _fault(index, row, terms)
        if fault is None and "counts_by_look" in row and terms.stage_ends:
            fault, looks = _read_looks(row, terms)
            counted.indices.append(index)
            counted.votes.append(looks)
        if fault is not None:
            yield index, fault
            return  # what follows reads the rows by their meaning
    for index, row in partials.items():
        fault = _index_fault(index, terms)
        if fault is None and "counts_by_look" in row and terms.stage_ends:
            fault, _ = _read_looks(row, terms, partial=True)
        if fault is not None:
            yield index, fault
            return
    if counted.indices:
        yield from _recounted(settings, rows, counted, terms)


def _index_fault(index: int, terms: Terms) -> str | None:
    if index < 0 or (terms.selection is not None and index not in terms.selection):
        return f"image {index} is not one of this run's images"
    return None


def _fault(index: int, row: Row, terms: Terms) -> str | None:
    """What no row of this run can say, whatever its votes."""
    if (fault := _index_fault(index, terms)) is not None:
        return fault
    label: Any = row.get("label")
    prediction: Any = row.get("prediction")
    radius: Any = row.get("radius")
    if label is not None and not (is_whole(label) and label >= 0):
        return f"label must be a class >= 0 or null, got {shown(label)}"
    if "prediction" in row and not (is_whole(prediction) and prediction >= ABSTAIN):
        return f"prediction must be a class >= 0, or {ABSTAIN} for an abstention, got {shown(prediction)}"
    if "radius" in row:
        if not (is_number(radius) and 0.0 <= radius < math.inf):
            return f"radius must be a finite number >= 0, got {shown(radius)}"
        if radius > terms.ceiling * (1.0 + TOLERANCE):
            return f"radius {radius!r} is above {terms.ceiling:.6g}, the largest that the rule of this run can certify"
        if prediction == ABSTAIN and radius > 0.0:
            return f"an abstention ({ABSTAIN} under prediction) must have radius 0.0, got {shown(radius)}"
    certified = row.get("certified_targets")
    if certified is not None and (
        not isinstance(certified, list) or tuple(certified) != terms.targets[: len(certified)]
    ):
        return (
            f"certified_targets must be the first of the run's targets, {list(terms.targets)}, got {shown(certified)}"
        )
    return None


def _read_looks(row: Row, terms: Terms, partial: bool = False) -> tuple[str | None, list[Look]]:
    """(what is wrong, the votes of each stage)."""
    recorded, ends = row["counts_by_look"], terms.stage_ends
    if not isinstance(recorded, list) or not 0 < len(recorded) <= len(ends):
        return f"counts_by_look must be a list of 1 to {len(ends)} stages, got {shown(recorded)}", []
    looks: list[Look] = []
    total = 0
    for number, votes in enumerate(recorded):
        if not isinstance(votes, dict) or not all(map(CLASS.fullmatch, votes)):
            return f"votes must be an object from classes to counts, got {shown(votes)}", []
        if not all(is_whole(count) and count >= 0 for count in votes.values()):
            return f"votes must be counts >= 0, got {shown(votes)}", []
        look = {int(label): count for label, count in votes.items()}
        cast, total = sum(look.values()), total + sum(look.values())
        due = ends[number] - (ends[number - 1] if number else 0)
        if cast != due and not (partial and cast < due and number == len(recorded) - 1):
            return f"look {number + 1} must have {due} votes, got {cast}", []
        looks.append(look)
    if row.get("draws") != total:
        return f"draws must be the number of votes, {total}, got {shown(row.get('draws'))}", []
    return None, looks


def _recounted(
    settings: Mapping[str, Any], rows: Mapping[int, Row], counted: Counted, terms: Terms
) -> Iterator[tuple[int, str]]:
    """Rows whose answer, radius, bounds or targets are not those of their votes."""
    rule, aware = settings["rule"], bool(settings.get("label_aware"))
    fixed = rule.get("name") == "fixed-n"
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
    claims = (_fixed if fixed else _sequential)(settings, counted.votes, [top or 0 for top in tops], terms)
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
