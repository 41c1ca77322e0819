"""The figures of one run over the images that are finished."""

from __future__ import annotations

import functools
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

    Args:
        runs: The runs.
        names: Names to show, one for each; the ids of the models by default.
    """
    wanted = names or [None] * len(runs)
    called = [_name_of(run, name) for run, name in zip(runs, wanted, strict=True)]
    weights = [run.settings.get("model", {}).get("weights_sha256") for run in runs]
    networks = {name: {w for one, w in zip(called, weights, strict=True) if one == name} for name in called}
    return [
        f"{name} (weights {known[:8]})" if known is not None and len(networks[name]) > 1 else name
        for name, known in zip(called, weights, strict=True)
    ]


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
