"""The figures of one run over the images that are finished."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hf_smoothing import statistics
from hf_smoothing.records import Run, RunError, check_method, plain_name
from hf_smoothing.reports.tested import Tested
from hf_smoothing.statistics import DEFAULT_RADII, exact_text


@dataclass(frozen=True)
class Measured:
    """The figures of one run.

    Attributes:
        run: The run folder or published log.
        name: Name to show.
        curve: Certified accuracy at the radii of the table.
        average_radius: Average certified radius.
        abstention: Share of abstentions.
    """

    run: Run
    name: str
    curve: statistics.CertifiedAccuracy
    average_radius: float
    abstention: float

    @property
    def settings(self) -> dict[str, Any]:
        """Of the run."""
        return self.run.settings

    @functools.cached_property
    def tested(self) -> Tested:
        """The radii of which the run says anything."""
        return Tested.of(self.settings)

    def label(self, name: str) -> str:
        """What a legend says for the run: the name, and the sigma where there is one."""
        return name if self.settings.get("deterministic") else f"{name}, sigma {sigma_text(self.settings)}"


def measure(run: Run, thresholds: Sequence[float] = DEFAULT_RADII, name: str | None = None) -> Measured:
    """The figures of a run over the images that are finished.

    Args:
        run: Run from `read_run` or `read_published_log`.
        thresholds: Radii of the table.
        name: Name to show; the model's id by default.

    Raises:
        RunError: If nothing is finished, images have no label, or the run does not say how it was certified.
    """
    check_method(run)
    predictions, references, certified = columns(run)
    curve = statistics.certified_accuracy(predictions, references, certified, thresholds)
    return Measured(
        run=run,
        name=_name_of(run, name),
        curve=curve,
        average_radius=statistics.average_certified_radius(predictions, references, certified),
        abstention=statistics.abstention_rate(predictions),
    )


def names_of(runs: Sequence[Run], names: Sequence[str | None] | None = None) -> list[str]:
    """What to call the model of each run: two networks never have one name, but the beginnings of the hashes of their weights beside it.

    Networks with the same weights have those of their answers to fixed images, where another activation or normalisation makes them two.

    Args:
        runs: The runs.
        names: Names to show, one for each; the ids of the models by default.
    """
    wanted = names or [None] * len(runs)
    called = [_name_of(run, name) for run, name in zip(runs, wanted, strict=True)]
    networks = networks_of(runs)
    members: dict[str, dict[int, Run]] = {}
    for name, first in zip(called, networks, strict=True):
        members.setdefault(name, {})[id(first)] = first
    return [
        _distinguished(name, first, [*members[name].values()]) for name, first in zip(called, networks, strict=True)
    ]


def _distinguished(name: str, network: Run, others: Sequence[Run]) -> str:
    weights, asked = _asked(network)
    if weights is None:
        return name
    parts = [f"weights {weights[:8]}"] if len({_asked(one)[0] for one in others}) > 1 else []
    if sum(_asked(one) == (weights, asked) for one in others) > 1:
        parts.append(f"answers {hashlib.sha256(repr(_answers(network)).encode()).hexdigest()[:8]}")
    return f"{name} ({', '.join(parts)})" if parts else name


def networks_of(runs: Sequence[Run]) -> list[Run]:
    """For each run the first one of the same network: with its weights, and at one resolution with answers to fixed images that only rounding moves."""
    firsts: dict[Any, list[Run]] = {}
    found = []
    for run in runs:
        known = firsts.setdefault(_asked(run), [])
        first = next((one for one in known if _same_answers(one, run)), None)
        if first is None:
            known.append(first := run)
        found.append(first)
    return found


def _asked(run: Run) -> tuple[str | None, tuple[int, ...]]:
    """The weights of a run, and the shape of the images that they were asked about."""
    return run.settings.get("model", {}).get("weights_sha256"), tuple(run.settings.get("resolution", ()))


def _answers(run: Run) -> list[list[float]]:
    found: list[list[float]] = run.settings.get("model", {}).get("probe_logits", [])
    return found


def _same_answers(first: Run, second: Run) -> bool:
    """Whether the logits for all images of both lie within what half precision may move them, or less where both were run alike."""
    alike = all(
        first.settings.get(key) == second.settings.get(key) for key in ("dtype", "device_kind", "deterministic")
    )
    share = 0.005 if alike else 0.1
    return all(
        abs(a - b) <= share * (max(one + other) - min(one + other))
        for one, other in zip(_answers(first), _answers(second), strict=False)
        for a, b in zip(one, other, strict=False)
    )


def _name_of(run: Run, name: str | None) -> str:
    return plain_name(name or run.settings.get("model", {}).get("id") or run.path.name)


def columns(run: Run) -> tuple[list[int], list[int], list[float]]:
    """Predictions, labels and radii of a run, ordered by index.

    Raises:
        RunError: If there are no rows, or rows lack what is needed.
    """
    if not run.rows:
        raise RunError(f"{run.path} has no finished image yet.")
    rows = [run.rows[index] for index in sorted(run.rows)]
    for row in rows:
        missing = {"prediction", "radius", "label"} - row.keys()
        if missing:
            raise RunError(f"{run.path}: the row of image {row['index']} lacks {', '.join(sorted(missing))}.")
        if row["label"] is None:
            raise RunError(
                f"{run.path}: image {row['index']} has no label, so accuracy cannot be measured. "
                "Give the command of the run again, on a labelled split and with the column of the labels if its name is unusual: labels are added without a draw."
            )
    return [r["prediction"] for r in rows], [r["label"] for r in rows], [float(r["radius"]) for r in rows]


def sigma_text(settings: dict[str, Any]) -> str:
    """The noise level of a run, as tables and legends print it."""
    if settings.get("deterministic"):
        return "none"
    return "?" if settings.get("sigma") is None else exact_text(settings["sigma"])
