"""The tables that carry the claims: paired comparisons of the same images and noise, over the seeds that both sides have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.studies.pages import markdown_table
from examples.studies.smoothing_transfer.cells import Records
from examples.studies.smoothing_transfer.formats import Table, difference, p_value, ratio, value
from examples.studies.smoothing_transfer.plan import folder, rule
from hf_smoothing.certification import make_rule
from hf_smoothing.statistics import l2_radius, paired_difference, paired_ratio, sequential_lower_bound


@dataclass(frozen=True)
class _Side:
    """One side of a comparison.

    Attributes:
        images: Contribution of each image to the measure, mean over seeds.
        seeds: The measure for each seed.
        collapsed: Whether a seed gives one answer to nearly all that it certifies.
    """

    images: NDArray[np.float64]
    seeds: list[float]
    collapsed: bool

    def text(self, measure: str) -> str:
        values = [value(one, measure) for one in self.seeds]
        mean = f"**{value(float(np.mean(self.seeds)), measure)}**" + ("†" if self.collapsed else "")
        return mean if len(values) == 1 else f"{mean} ({', '.join(values)})"


class Comparisons:
    """The tables that compare models of the study."""

    def __init__(self, config: dict[str, Any], records: Records) -> None:
        self.config, self.records = config, records
        self.sigmas, self.seeds = config["sigmas"], config["seeds"]

    def claim_one(self, architecture: str) -> Table:
        """Clean-only finetuning after mixture pretraining against mixture finetuning, and against clean pretraining."""
        rows: list[list[Any]] = []
        figures: dict[str, Any] = {}
        cells = {"clean_finetuning": ("mixture", "clean"), "mixture_finetuning": ("mixture", "mixture"), "clean_pretraining": ("clean", "clean")}  # fmt: skip
        for sigma in self.sigmas:
            seeds, sides = self.sides(architecture, sigma, *cells.values())
            for measure in sides[0] if sides else ():
                light, full, floor = (side[measure] for side in sides)
                if not full.images.any():
                    continue
                kept = paired_ratio(light.images, full.images)
                above = paired_difference(light.images, floor.images)
                texts = [side.text(measure) for side in (light, full, floor)]
                texts.append(", ".join(self._same_way(architecture, sigma, measure)))
                floor_text = value(self.one_class(sigma, measure), measure)
                rows.append([sigma, measure, *texts, floor_text, ratio(kept), difference(above, measure), p_value(above.p_value), len(seeds)])  # fmt: skip
                figures.setdefault(str(sigma), {})[measure] = {
                    "ratio": kept.value, "low": kept.low, "high": kept.high, "seeds": seeds, "one_class": self.one_class(sigma, measure),
                    **{name: side[measure].images.mean() for name, side in zip(cells, sides, strict=True)},
                }  # fmt: skip
        head = ["sigma", "measure", "mixture → clean", "mixture → mixture", "clean → clean", "clean → clean, by the way of the first (seed 0)", "one class for all", "first / second", "first - third", "p", "seeds"]  # fmt: skip
        return markdown_table(head, rows), figures

    def _same_way(self, architecture: str, sigma: float, measure: str) -> list[str]:
        """Clean pretraining finetuned as the mixture backbone was in its chosen candidate, if another was chosen for it."""
        first = self.records.cell(architecture, "mixture", "clean", sigma)
        way = first.model.split("/")[4] if first is not None else ""
        cell = self.records.cell(architecture, "clean", "clean", sigma, extra=way)
        own = self.records.cell(architecture, "clean", "clean", sigma)
        if cell is None and own is not None and own.model.split("/")[4] == way:
            return ["the same"]
        if cell is None:
            return []
        found = cell.acr if measure == "ACR" else float((cell.radii >= float(measure.removeprefix("r = "))).mean())
        return [value(found, measure) + ("†" if cell.collapsed else "")]

    def claims_two_and_three(self, architecture: str) -> Table:
        """One mixture model against the matched single-sigma pipeline at each sigma."""
        rows: list[list[Any]] = []
        figures: dict[str, Any] = {}
        more = self.config["more_finetuning"] if self.config["architectures"][architecture]["grid"] == "full" else []
        for finetuning in ("mixture", *more):
            for sigma in self.sigmas:
                seeds, sides = self.sides(
                    architecture, sigma, ("mixture", folder(finetuning)), (str(sigma), str(sigma))
                )
                for measure in sides[0] if sides else ():
                    one, matched = (side[measure] for side in sides)
                    found = paired_difference(one.images, matched.images)
                    rows.append([finetuning, sigma, measure, one.text(measure), matched.text(measure), difference(found, measure), p_value(found.p_value), len(seeds)])  # fmt: skip
                    figures.setdefault(finetuning, {}).setdefault(str(sigma), {})[measure] = {
                        "difference": found.value, "low": found.low, "high": found.high, "p": found.p_value, "seeds": seeds,
                        "one_model": one.images.mean(), "matched": matched.images.mean(),
                    }  # fmt: skip
        head = [
            "mixture model finetuned on",
            "sigma",
            "measure",
            "one model",
            "matched single sigma",
            "difference",
            "p",
            "seeds",
        ]
        return markdown_table(head, rows), figures

    def sides(
        self, architecture: str, sigma: float, *cells: tuple[str, str]
    ) -> tuple[list[int], list[dict[str, _Side]]]:
        """Seeds that all cells have, and each cell's measures over these."""
        found = [self.records.seeds(architecture, cell, sigma, self.seeds) for cell in cells]
        common = sorted(set.intersection(*(set(cell) for cell in found)))
        sides = []
        for cell in found if common else ():
            chosen = [cell[seed] for seed in common]
            collapsed = any(c.collapsed for c in chosen)
            columns = {
                f"r = {s * sigma:g}": [(c.radii >= s * sigma).astype(float) for c in chosen] for s in (0.5, 1.0)
            }
            columns["ACR"] = [c.gains for c in chosen]
            sides.append(
                {k: _Side(np.mean(v, axis=0), [float(x.mean()) for x in v], collapsed) for k, v in columns.items()}
            )
        return common, sides

    def one_class(self, sigma: float, measure: str) -> float:
        """What a network reaches that answers the most frequent class of the test images to everything."""
        return float(self.one_class_of_each(sigma, measure).mean())

    def one_class_of_each(self, sigma: float, measure: str) -> NDArray[np.float64]:
        """The same for each image: 0 for those of other classes."""
        labels = next(np.array(line["labels"]) for line in self.records.stages.values() if line["kind"] == "certify")
        its_own: NDArray[np.float64] = np.where(labels == np.bincount(labels).argmax(), 1.0, 0.0)
        return its_own * self._radius_of_a_constant(sigma) if measure == "ACR" else its_own

    def _radius_of_a_constant(self, sigma: float) -> float:
        """The radius at which the rule stops where every draw gives the same class."""
        settings = rule(self.config["certification"] | {"sigma": sigma})
        looks = make_rule(**settings).looks  # type: ignore[union-attr]
        for k in range(1, len(looks) + 1):
            p_lower = sequential_lower_bound(looks[:k], looks, settings["alpha"]).max()
            radius = float(l2_radius(p_lower, sigma))
            if radius >= settings["targets"][-1]:
                return radius
        return float(settings["targets"][-1])
