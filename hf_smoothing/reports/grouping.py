"""Which runs may stand in one table, and the line under it."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from hf_smoothing.records import Run, plain_name
from hf_smoothing.records.shape import is_whole
from hf_smoothing.spelling import has_names, match_names, number_of


PUBLISHED_LOG = "published log"
"""Name of the rule of a log, which names no data set."""


@dataclass(frozen=True)
class Conditions:
    """What runs must have in common to stand in one table; different models and noise levels may.

    Attributes:
        norm, bound, rounding: Norm, bound and rounding of the radii; `rounding` is None where the run does not state
            it.
        rule, draws: Name of the rule, and its whole numbers as (name, value).
        covers_run: Whether interval bounds hold for runs of the network in its own dtype, as the name of their rule says as well; None without such bounds.
        alpha: Failure probability of one certificate; None if it is not stated, "deterministic" if there is none.
        data: Name of the data set with its split, which need not be the same.
        content: A hash of what was certified, with the split.
        labelling: Distinguishes groups of runs that have only the labels of their images apart; 0 of a run alone.
        num_images, left_out: Images asked for, None where that is not known yet, and those left out since they cannot be read.
        noise_kind, resolution: Noise kind and resolution of the noise; None and () without noise.
        label_aware: Whether the true label was tested only.
    """

    norm: str
    bound: str
    rounding: str | None
    rule: str
    draws: tuple[tuple[str, int], ...]
    covers_run: bool | None
    alpha: float | str | None
    data: str = field(compare=False)
    content: str
    labelling: int
    num_images: int | None
    left_out: int
    noise_kind: str | None
    resolution: tuple[int, ...]
    label_aware: bool

    @classmethod
    def of(cls, run: Run, content: str | None = None, labelling: int = 0) -> Conditions:
        """The conditions of a run; what `comparable` finds of it among others is given."""
        s = run.settings
        rule = s.get("rule", {})
        return cls(
            norm=str(s.get("norm")),
            bound=s.get("bound", ""),
            rounding=s.get("rounding"),
            rule=str(rule.get("name")),
            draws=tuple((key, value) for key, value in rule.items() if is_whole(value)),
            covers_run=rule.get("covers_run"),
            alpha="deterministic" if s.get("deterministic") else s.get("alpha"),
            data=_called(run),
            content=content or _content(run, [run]),
            labelling=labelling,
            num_images=run.images_asked,
            left_out=_left_out(run),
            noise_kind=s.get("noise_kind"),
            resolution=tuple(s.get("resolution", ())) if "noise_kind" in s else (),
            label_aware=bool(s.get("label_aware")),
        )

    @property
    def short_hash(self) -> str:
        """The beginning of the hash of what was certified."""
        return self.content.split(" ")[0][:8]

    def __str__(self) -> str:
        """The line under a table."""
        draws = ", ".join(f"{key} = {value:,}" for key, value in self.draws)
        if isinstance(self.alpha, str):
            alpha = self.alpha
        else:
            alpha = "alpha not stated" if self.alpha is None else f"alpha = {self.alpha}"
        images = "images" if self.num_images is None else f"{self.num_images} images"
        of = "" if self.num_images is None else f" of {self.num_images + self.left_out}"
        missing = f", {self.left_out}{of} left out since they cannot be read" if self.left_out else ""
        parts = [
            " ".join(filter(None, (self.norm, self.bound, "radii"))) + (f", {self.rounding}" if self.rounding else ""),
            f"{self.rule} ({draws})" if draws else self.rule,
            alpha,
            f"{images} of {self.data} ({self.short_hash}){missing}",
        ]
        if self.noise_kind is not None:
            parts.append(f"noise {self.noise_kind} at {'x'.join(map(str, self.resolution))}")
        if self.label_aware:
            parts.append("LABEL-AWARE: for evaluation only, no certificates")
        return "; ".join(parts)


def comparable(runs: Iterable[Run]) -> dict[Conditions, list[Run]]:
    """The runs by what those of one table must have in common; tables and their runs in the order given, which decides nothing else.

    The images of a run that is not finished are those of another that has certified the same ones. No two runs of a table have
    different labels: what is missing agrees with everything, so that agreeing with one run of a table is not enough.
    """
    runs = list(runs)
    # Longest first, since they differ from most others; any order would do that does not come from the command line.
    ordered = sorted(runs, key=lambda run: (-len(run.rows), str(run.path)))
    images = [*_distinct(ordered, _asked_images)]
    joined: dict[Conditions, dict[Any, Run]] = {}
    conditions = {}
    for run in ordered:
        common, labels = Conditions.of(run, _content(run, images)), _labels(run)
        # A run with the same labels is in no other table than the first that had them.
        while labels not in (known := joined.setdefault(common, {})) and any(
            _other_label(run, member) is not None for member in known.values()
        ):
            common = replace(common, labelling=common.labelling + 1)
        known[labels] = run
        conditions[id(run)] = common
    groups: dict[Conditions, list[Run]] = {}
    for run in runs:
        groups.setdefault(conditions[id(run)], []).append(run)
    return groups


_WORDS = {"data": "data set", "content": "images", "num_images": "number of images", "label_aware": "label-aware"}


def differing(groups: Mapping[Conditions, Sequence[Run]]) -> str:
    """In what the conditions of groups differ, such as "alpha: 0.001 / 0.01; n: 100 / 1000", in their order."""
    facts = [_facts(common) for common in groups]
    keys = dict.fromkeys(key for one in facts for key in one)
    parts = []
    for key in keys:
        values = list(dict.fromkeys(_shown_fact(one.get(key)) for one in facts))
        # Equal images under two names are one data set.
        if len(values) > 1 and (key != _WORDS["data"] or len({common.content for common in groups}) > 1):
            parts.append(f"{key}: {' / '.join(values[:4])}{' / ...' if len(values) > 4 else ''}")
    return "; ".join(filter(None, [*parts, _other_labels(list(groups.values()))]))


def _facts(common: Conditions) -> dict[str, Any]:
    named = {
        one.name: getattr(common, one.name)
        for one in fields(common)
        if one.name not in ("draws", "content", "labelling")
    }
    words = {_WORDS.get(key, key.replace("_", " ")): value for key, value in named.items()}
    return words | dict(common.draws) | {"images": common.short_hash}


def _shown_fact(value: Any) -> str:
    text = "not stated" if value in (None, "", "None", ()) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _other_labels(groups: Sequence[Sequence[Run]]) -> str:
    """The first image that runs of two groups have with different labels."""
    for one, another in itertools.combinations([[*_distinct(group, _labels)] for group in groups], 2):
        for first, second in itertools.product(one, another):
            if (index := _other_label(first, second)) is not None:
                return f"labels of idx {index}: {' / '.join(_label_text(run, index) for run in (first, second))}"
    return ""


def _other_label(first: Run, second: Run) -> int | None:
    """The first image that two runs have with different labels; None where there is none, or one of them has no label.

    Where both say what their classes are called, the same name is the same label whatever its number, as in models that order their
    classes differently. A class whose name the other run lacks (a synonym, a translation) is the class of the same number, unless
    that one's name is found elsewhere.
    """
    first, second = sorted(
        (first, second), key=lambda run: run.class_names
    )  # the answer must not depend on which is first
    same = _same_class(tuple(first.class_names), tuple(second.class_names))
    found = set(same.values())
    for index in sorted(first.rows.keys() & second.rows.keys()):
        label, other = first.rows[index].get("label"), second.rows[index].get("label")
        if label is None or other is None:
            continue
        if other != same.get(label, None if label in found else label):
            return index
    return None


@functools.lru_cache(maxsize=64)
def _same_class(names: tuple[str, ...], others: tuple[str, ...]) -> dict[int, int]:
    """Number of a class among the first -> that of the same name among the others; empty where either has no names, or both the same.

    Numbers alone are no names, counted from 0 or from 1, unless both have the same ones in another order.
    """
    if names == others or not (sorted(names) == sorted(others) or (_says_names(names) and _says_names(others))):
        return {}
    return {number: target for number, (target, _) in match_names(names, others, range(len(names)), None).items()}


def _says_names(names: Sequence[str]) -> bool:
    return has_names(names) and any(number_of(name) is None for name in names)


def _label_text(run: Run, index: int) -> str:
    label, names = run.rows[index]["label"], run.class_names
    return f"{label} ({names[label]})" if label < len(names) else str(label)


def _called(run: Run) -> str:
    """Name of a run's data set with its split."""
    data = run.settings.get("dataset", {})
    if _is_log(run):
        return "an unknown data set with labels"
    return (plain_name(data["id"]) if data.get("id") else "data set") + _split(run)


def _split(run: Run) -> str:
    split = run.settings.get("dataset", {}).get("split")
    return f" {split}" if split else ""


def _is_log(run: Run) -> bool:
    return bool(run.settings.get("rule", {}).get("name") == PUBLISHED_LOG)


def _content(run: Run, others: Iterable[Run]) -> str:
    """A hash of what was certified, with the split: of an unfinished run that of another which has the same images."""
    if _is_log(run):  # labels are all that can be known of its data, and enough to distinguish data sets
        return _hash(run, "label")
    whole = run.images_sha256 or next(
        filter(None, (other.images_sha256 for other in others if other.finished and _same_images(run, other))), None
    )
    if whole is None and not run.hashed_rows:
        return f"unknown {_called(run)}"
    if whole is None:  # nobody has all of them: the hash of the first that has begun the same
        whole = _hash(next((other for other in others if _same_images(run, other)), run), "image_sha256")
    return f"{whole}{_split(run)}"


def _distinct(runs: Iterable[Run], facts: Callable[[Run], Any]) -> Iterable[Run]:
    """The first of the runs with each of these facts, so that runs are compared in pairs only where they differ."""
    found: dict[Any, Run] = {}
    for run in runs:
        found.setdefault(facts(run), run)
    return found.values()


def _labels(run: Run) -> tuple[Any, ...]:
    """What `_other_label` looks at."""
    return _hash(run, "label"), *run.class_names


def _asked_images(run: Run) -> tuple[Any, ...]:
    """What `_same_images` looks at."""
    return _hash(run, "image_sha256"), str(run.settings.get("dataset", {}).get("selection")), run.finished


def _same_images(run: Run, other: Run) -> bool:
    """Whether two runs have asked for the same images, as far as their rows tell; a finished one must have all that the other has."""
    common = run.rows.keys() & other.rows.keys()
    if not common or (other.finished and len(common) < len(run.rows)):
        return False
    pairs = [(run.rows[index].get("image_sha256"), other.rows[index].get("image_sha256")) for index in common]
    asked, theirs = (one.settings.get("dataset", {}).get("selection") for one in (run, other))
    return (other.finished or asked == theirs) and all(mine is not None and mine == hers for mine, hers in pairs)


def _hash(run: Run, key: str) -> str:
    rows = "\n".join(f"{index} {run.rows[index].get(key)}" for index in sorted(run.rows))
    return hashlib.sha256(rows.encode()).hexdigest()


def _left_out(run: Run) -> int:
    return len(run.settings.get("informative", {}).get("unreadable", ()))
