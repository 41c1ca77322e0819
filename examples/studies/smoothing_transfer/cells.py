"""Results as the tables need them, and the one file that keeps them: a line per stage, small enough for a repository."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.studies.pages import keep_records
from examples.studies.stages import Stage
from hf_smoothing.records import read_run
from hf_smoothing.statistics import certified_accuracy


@dataclass(frozen=True)
class Cell:
    """One certification: a model at one sigma on the test images of the study.

    Attributes:
        radii: Certified radius of each image, -1 where the true class was not certified at all, float64 (N,).
        labels: True class of each image, int64 (N,).
        draws: Number of noisy copies used, of all images together.
        clean_accuracy: Clean accuracy of the base classifier on all clean test images.
        settings: Settings of the stage.
        model: Name of the stage that trained it.
    """

    radii: NDArray[np.float64]
    labels: NDArray[np.int64]
    draws: int
    clean_accuracy: float
    settings: dict[str, Any]
    model: str

    @property
    def gains(self) -> NDArray[np.float64]:
        """What each image adds to the average certified radius."""
        return np.maximum(self.radii, 0.0)

    @property
    def acr(self) -> float:
        """Average certified radius."""
        return float(self.gains.mean())

    @property
    def collapsed(self) -> bool:
        """Whether nearly all that is certified is one class: a network that gives one answer to all noise."""
        found = np.bincount(self.labels[self.radii >= 0.0])
        return bool(found.sum() and found.max() > 0.8 * found.sum())

    def accuracy(self, radius: float) -> tuple[float, float, float]:
        """Certified accuracy at a radius with its 95% interval, %."""
        right = np.where(self.radii >= 0.0, 0, -1)
        found = certified_accuracy(right, np.zeros_like(right), self.gains, [radius])
        return tuple(100 * float(x[0]) for x in (found.accuracy, found.lower, found.upper))  # type: ignore[return-value]


def collect(stages: list[Stage], output: Path, file: Path) -> None:
    """Keep the results of all finished stages in one file, with the radii of every certification."""

    def radii(stage: Stage) -> dict[str, Any]:
        if stage.kind != "certify":
            return {}
        run = read_run(output / stage.name / "run")
        rows = [run.rows[index] for index in sorted(run.rows)]
        return {
            "radii": [_floor(row["radius"]) if row["prediction"] == row["label"] else -1 for row in rows],
            "labels": [row["label"] for row in rows],
            "versions": run.settings["versions"],
        }

    keep_records(stages, output, file, radii)


def _floor(radius: float) -> float:
    return float(np.floor(radius * 10_000) / 10_000)


class Records:
    """The stages of a study that are done, by name."""

    def __init__(self, file: Path) -> None:
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        self.stages: dict[str, dict[str, Any]] = {line["stage"]: line for line in lines}

    def cell(
        self, architecture: str, pretraining: str, finetuning: str, sigma: float, seed: int = 0, extra: str = ""
    ) -> Cell | None:
        """A certification, or None where it is missing.

        Args:
            architecture, pretraining, finetuning, sigma, seed: Architecture, pretraining, finetuning, sigma and seed
                of the cell.
            extra: Either "headline", or the protocol.
        """
        parts = [architecture, pretraining, finetuning, *([extra] if extra else []), f"seed{seed}", f"sigma{sigma}"]
        line = self.stages.get("/".join(["certify", *parts]))
        if line is None:
            return None
        model = self.stages[line["result"]["model"]]["result"]
        return Cell(
            np.array(line["radii"]),
            np.array(line["labels"]),
            line["result"]["draws"],
            model["clean_accuracy"],
            line["settings"],
            line["result"]["model"],
        )

    def seeds(self, architecture: str, cell: tuple[str, str], sigma: float, seeds: list[int]) -> dict[int, Cell]:
        """The cell for every seed for which it is done."""
        found = {seed: self.cell(architecture, *cell, sigma, seed) for seed in seeds}
        return {seed: cell for seed, cell in found.items() if cell is not None}
