"""What a row of a run may say at all, whatever its votes: its image, its radius, and votes that are those of its stages. Never torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hf_smoothing import statistics
from hf_smoothing.records.shape import is_number, is_whole, settings_fault, shown
from hf_smoothing.statistics import ABSTAIN
from hf_smoothing.units import diameter


Row = Mapping[str, Any]
Look = dict[int, int]

TOLERANCE = 1e-6
"""Between versions of SciPy; far below what is printed."""
MOST_CLASSES = 2**20
"""Of an unfinished row, whose votes are counted in an array of so many."""
SAID = ("label", "prediction", "radius", "seconds", "image_sha256")
ROW_KEYS = {
    "randomized-smoothing": frozenset({*SAID, "p_lower", "certified_targets", "draws", "counts_by_look"}),
    "interval-bounds": frozenset(SAID),
}
"""Method -> what each of its finished rows says beside the index: without its votes none could be counted again."""
UNFINISHED_KEYS = frozenset({"label", "draws", "num_labels", "counts_by_look", "seconds", "image_sha256"})
"""What each unfinished row says, from which its image goes on."""
CLASS = re.compile(r"0|[1-9][0-9]{0,17}")
"""The number of a class as a run writes it, so that no class is counted under two names."""


@dataclass(frozen=True)
class Terms:
    """What the settings of a run say that its rows must keep to; what they do not say is not asked.

    Attributes:
        keys: What each finished row says.
        unfinished_keys: What each unfinished row says.
        selection: Indices of the run's images.
        ceiling: Upper limit of every radius.
        targets: Target radii.
        stage_ends: Draws at the end of each stage, where votes can be counted again.
    """

    keys: frozenset[str] = frozenset()
    unfinished_keys: frozenset[str] = frozenset()
    selection: range | frozenset[int] | None = None
    ceiling: float = math.inf
    targets: tuple[float, ...] = ()
    stage_ends: tuple[int, ...] = ()


def terms_of(settings: Mapping[str, Any]) -> Terms:
    """The terms of a run, from its settings."""
    rule = settings.get("rule")
    rule = rule if isinstance(rule, dict) else {}
    images = settings.get("dataset")
    selection = images.get("selection") if isinstance(images, dict) else None
    known = settings.get("method") in ROW_KEYS
    return Terms(
        keys=ROW_KEYS[settings["method"]] if known else frozenset(),
        unfinished_keys=UNFINISHED_KEYS if known else frozenset(),
        selection=range(*selection["range"]) if isinstance(selection, dict) else None if selection is None else frozenset(selection),
        ceiling=ceiling(settings),
        targets=tuple(rule.get("targets", ())),
        stage_ends=_stage_ends(settings, rule),
    )  # fmt: skip


def _stage_ends(settings: Mapping[str, Any], rule: Mapping[str, Any]) -> tuple[int, ...]:
    """Ends of the stages; none where the settings do not say all that counting again takes."""
    # Also of settings that lost their method: rows do not escape by that.
    if settings_fault({**settings, "method": "randomized-smoothing"}) is not None:
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
    if name == "fixed-n":
        bound = "runner-up" if settings.get("bound") == "runner-up" else "one-sided"
        best = statistics.fixed_claims(n, 0, n=n, alpha=alpha, sigma=sigma, bound=bound, slack=slack)
        return min(farthest, float(best.radius))
    return min(farthest, float(statistics.max_radius(n, alpha, sigma)))


def common_fault(index: int, row: Row, terms: Terms, keys: frozenset[str]) -> str | None:
    """What is wrong with what finished and unfinished rows say, or None.

    Args:
        index, row, terms: The row.
        keys: What such a row must say.
    """
    if index < 0 or (terms.selection is not None and index not in terms.selection):
        return f"image {index} is not one of this run's images"
    if missing := sorted(keys - row.keys()):
        return f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    label: Any = row.get("label")
    if label is not None and not (is_whole(label) and label >= 0):
        return f"label must be a class >= 0 or null, got {shown(label)}"
    if not (is_number(row.get("seconds", 0)) and row.get("seconds", 0) >= 0):
        return f"seconds must be a number >= 0, got {shown(row['seconds'])}"
    if not isinstance(row.get("image_sha256", ""), str):
        return f"image_sha256 must be text, got {shown(row['image_sha256'])}"
    return None


def unfinished_fault(index: int, row: Row, terms: Terms) -> str | None:
    """What no unfinished row of this run can say."""
    fault = common_fault(index, row, terms, terms.unfinished_keys)
    if fault is not None or not terms.unfinished_keys:
        return fault
    if not terms.stage_ends:
        return "it is unfinished, which none is without votes"
    fault, looks = read_looks(row, terms, partial=True)
    most = max((label for look in looks for label in look), default=0)
    if fault is None and not (is_whole(row["num_labels"]) and most < row["num_labels"] <= MOST_CLASSES):
        fault = f"num_labels must be a number of classes above {most}, got {shown(row['num_labels'])}"
    return fault


def row_fault(index: int, row: Row, terms: Terms) -> str | None:
    """What no finished row of this run can say, whatever its votes."""
    if (fault := common_fault(index, row, terms, terms.keys)) is not None:
        return fault
    prediction: Any = row.get("prediction")
    radius: Any = row.get("radius")
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


def read_looks(row: Row, terms: Terms, partial: bool = False) -> tuple[str | None, list[Look]]:
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
