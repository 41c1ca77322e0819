"""Which runs may stand in one table, and the line under it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from hf_smoothing.records import Run, plain_name


@dataclass(frozen=True)
class Conditions:
    """What runs must have in common to stand in one table; different models and noise levels may.

    Attributes:
        norm, bound, rounding: Norm, bound and rounding of the radii; `rounding` is None where the run does not state
            it.
        rule, draws: Name of the rule, and its whole numbers as (name, value).
        alpha: Failure probability of one certificate; None if it is not stated, "deterministic" if there is none.
        data: Name of the data set with its split, which need not be the same.
        content: A hash of what was certified, with the split, or the whole name where there is no hash of all images.
        num_images, left_out: Images asked for, None where that is not known yet, and those left out since they cannot be read.
        noise_kind, resolution: Noise kind and resolution of the noise; None and () without noise.
        label_aware: Whether the true label was tested only.
    """

    norm: str
    bound: str
    rounding: str | None
    rule: str
    draws: tuple[tuple[str, int], ...]
    alpha: float | str | None
    data: str = field(compare=False)
    content: str
    num_images: int | None
    left_out: int
    noise_kind: str | None
    resolution: tuple[int, ...]
    label_aware: bool

    @classmethod
    def of(cls, run: Run, others: Iterable[Run] = ()) -> Conditions:
        """The conditions of a run; of one that is not finished, the images are those of another that has certified the same ones."""
        s = run.settings
        rule = s.get("rule", {})
        data, content = _data(run, others)
        return cls(
            norm=str(s.get("norm")),
            bound=s.get("bound", ""),
            rounding=s.get("rounding"),
            rule=str(rule.get("name")),
            draws=tuple((key, value) for key, value in rule.items() if isinstance(value, int)),
            alpha="deterministic" if s.get("deterministic") else s.get("alpha"),
            data=data,
            content=content,
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
    """The runs by what those of one table must have in common, in the order given."""
    groups: dict[Conditions, list[Run]] = {}
    runs = list(runs)
    for run in runs:
        groups.setdefault(Conditions.of(run, runs), []).append(run)
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
    return "; ".join(filter(None, [*parts, _other_labels([runs[0] for runs in groups.values()])]))


def _facts(common: Conditions) -> dict[str, Any]:
    named = {one.name: getattr(common, one.name) for one in fields(common) if one.name not in ("draws", "content")}
    words = {_WORDS.get(key, key.replace("_", " ")): value for key, value in named.items()}
    return words | dict(common.draws) | {"images": common.short_hash}


def _shown_fact(value: Any) -> str:
    text = "not stated" if value in (None, "", "None", ()) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _other_labels(runs: Sequence[Run]) -> str:
    """The first image that two runs have with different labels."""
    for index in sorted(set.intersection(*(set(run.rows) for run in runs))):
        labels = dict.fromkeys(run.rows[index].get("label") for run in runs)
        if len(labels) > 1 and None not in labels:
            return f"labels of idx {index}: {' / '.join(map(str, labels))}"
    return ""


def _data(run: Run, others: Iterable[Run]) -> tuple[str, str]:
    """Name of a run's data set with its split, and a hash of what was certified."""
    data = run.settings.get("dataset", {})
    if "labels_sha256" in data:  # a log, which names no data set
        return "an unknown data set with labels", data["labels_sha256"]
    split = f" {data['split']}" if data.get("split") else ""
    called = plain_name(data["id"]) if data.get("id") else ""
    if "stream_sha256" not in data:
        alike = (other.settings["dataset"]["sha256"] for other in others if _begins_as(run, other))
        known = data.get("sha256") or next(alike, None)
        name = f"{called or 'data set'}{split}"
        return name, f"{known}{split}" if known else f"{data.get('beginning_sha256') or 'unknown'} {name}"
    # A stream has no hash of its own before it ends; what its rows keep distinguishes it from others.
    rows = ",".join(f"{index} {run.rows[index].get('image_sha256')}" for index in sorted(run.rows))
    return f"{called or 'a stream'}{split}", hashlib.sha256(rows.encode()).hexdigest()


def _begins_as(run: Run, other: Run) -> bool:
    """Whether all images that a run has certified so far are those of another run, which has the hash of all."""
    if "sha256" not in other.settings.get("dataset", {}) or not run.rows:
        return False
    hashes = (
        (row.get("image_sha256"), other.rows.get(index, {}).get("image_sha256")) for index, row in run.rows.items()
    )
    return all(mine is not None and mine == theirs for mine, theirs in hashes)


def _left_out(run: Run) -> int:
    return len(run.settings.get("informative", {}).get("unreadable", ()))
