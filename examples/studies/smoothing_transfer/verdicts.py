"""The claims and the unexpected results of the study, each with the interval that carries it or does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from examples.studies.pages import markdown_table
from examples.studies.smoothing_transfer.comparisons import Comparisons
from examples.studies.smoothing_transfer.formats import Table, ratio
from examples.studies.smoothing_transfer.plan import folder
from examples.studies.verdicts import MISSING, across, verdict
from hf_smoothing.statistics import Paired, paired_difference, paired_ratio


Cell = tuple[str, str]
"""Pretraining and finetuning."""
CALLED = {"resnet": "ResNet, 3 epochs of pretraining", "shipped": "ResNet, 16 epochs", "vit": "small ViT, 5 epochs"}


@dataclass(frozen=True)
class Row:
    """A comparison at every sigma.

    Attributes:
        about: What is compared.
        found: Its differences, one for each sigma.
        factor: 100 for points, 1 for radii, 0 for a ratio.
    """

    about: str
    found: list[Paired | None]
    factor: float = 1.0

    def texts(self) -> list[str]:
        """A verdict for each sigma; a ratio has none."""
        if self.factor:
            return [verdict(one, self.factor) for one in self.found]
        return [MISSING if one is None else ratio(one) for one in self.found]


class Verdicts:
    """Tables of verdicts, a column per sigma."""

    def __init__(self, config: dict[str, Any], compare: Comparisons) -> None:
        self.config, self.compare, self.sigmas = config, compare, config["sigmas"]
        self.records = compare.records

    def all(self) -> dict[str, Table]:
        """By the names of their markers."""
        architectures = self.config["architectures"]
        full = [name for name, about in architectures.items() if about["grid"] == "full"]
        first = [row for name in architectures for row in self.claim_one(name)]
        others = [row for name in full for row in self.claims_two_and_three(name)]
        leads = [row for name in full for row in self.leads(name)]
        return {"claims": self._table([*first, *others]), "leads": self._table(leads)}

    def summary(self) -> str:
        """A sentence for each claim: what its intervals carry."""
        lines = ["1. **Clean images are enough?** ACR of mixture → clean, minus what one class for all certifies:"]
        for name in self.config["architectures"]:
            found = [self._above_floor(name, ("mixture", "clean"), sigma, "ACR") for sigma in self.sigmas]
            kept = [self._kept(name, sigma) for sigma in self.sigmas]
            if any(found):
                of = ", ".join(MISSING if one is None else ratio(one) for one in kept)
                lines.append(
                    f"   {CALLED.get(name, name)}: {self._said(found)}; {of} of the ACR of mixture → mixture."
                )
        for number, question in ((2, "One model for all noise levels?"), (3, "On par with one model per level?")):
            rows = [
                row for name, about in self.config["architectures"].items() if about["grid"] == "full"
                for row in self.claims_two_and_three(name) if row.about.startswith(f"{number}.")
            ]  # fmt: skip
            said = " ".join(f"{row.about[3:]}: {self._said(row.found)}." for row in rows if any(row.found))
            lines.append(f"{number}. **{question}** {said[:1].upper()}{said[1:]}")
        return "\n".join(lines)

    def _said(self, found: list[Paired | None]) -> str:
        return across({f"sigma {sigma}": one for sigma, one in zip(self.sigmas, found, strict=True)})

    def _table(self, rows: list[Row]) -> Table:
        measured = [row for row in rows if any(row.found)]
        head = ["comparison", *(f"sigma {sigma}" for sigma in self.sigmas)]
        figures = {row.about: [one and asdict(one) for one in row.found] for row in measured}
        return markdown_table(head, [[row.about, *row.texts()] for row in measured]), figures

    def claim_one(self, name: str) -> Iterator[Row]:
        """What finetuning on clean images keeps, and whether it is more than one class for all certifies."""
        called = f"1. {CALLED.get(name, name)}"
        yield Row(f"{called}: ACR of mixture → clean, of that of mixture → mixture", [self._kept(name, sigma) for sigma in self.sigmas], 0.0)  # fmt: skip
        for cell in (("mixture", "clean"), ("clean", "clean")):
            about = f"{called}: {' → '.join(cell)} minus one class for all"
            yield Row(f"{about}, ACR", [self._above_floor(name, cell, sigma, "ACR") for sigma in self.sigmas])
            yield Row(f"{about}, % at sigma/2", [self._above_floor(name, cell, sigma, f"r = {sigma / 2:g}") for sigma in self.sigmas], 100.0)  # fmt: skip

    def _kept(self, name: str, sigma: float) -> Paired | None:
        _, sides = self.compare.sides(name, sigma, ("mixture", "clean"), ("mixture", "mixture"))
        light, full = (side["ACR"].images for side in sides) if sides else (np.zeros(0), np.zeros(0))
        return paired_ratio(light, full) if full.any() else None

    def _above_floor(self, name: str, cell: Cell, sigma: float, measure: str) -> Paired | None:
        _, sides = self.compare.sides(name, sigma, cell)
        return (
            paired_difference(sides[0][measure].images, self.compare.one_class_of_each(sigma, measure))
            if sides
            else None
        )

    def claims_two_and_three(self, name: str) -> Iterator[Row]:
        """One mixture model minus the matched single-sigma models."""
        more = self.config["more_finetuning"]
        for finetuning in ("mixture", *more):
            claim = 3 if more.get(finetuning, {}).get("arguments") else 2  # those trained longer are of claim 3
            found = [self._matched(name, sigma, folder(finetuning)) for sigma in self.sigmas]
            yield Row(f"{claim}. mixture → {finetuning} minus matched single sigma, ACR", found)

    def _matched(self, name: str, sigma: float, finetuning: str) -> Paired | None:
        _, sides = self.compare.sides(name, sigma, ("mixture", finetuning), (str(sigma), str(sigma)))
        return paired_difference(sides[0]["ACR"].images, sides[1]["ACR"].images) if sides else None

    def leads(self, name: str) -> Iterator[Row]:
        """Cells of the grid and of the ablation against each other, first seed: ACR."""
        pairs: dict[str, tuple[Cell, Cell]] = {
            f"1.0 → {finetuning} minus mixture → {finetuning}": (("1.0", finetuning), ("mixture", finetuning))
            for finetuning in ("mixture", "clean")
        }
        for other in self.config["ablation"]:
            about = f"pretrained on {other}, minus uniform, clean 0.25 (the mixture); both → clean"
            pairs[about] = ((folder(other), "clean"), ("mixture", "clean"))
        pairs |= {
            "clean → clean minus none → clean": (("clean", "clean"), ("none", "clean")),
            "clean → mixture minus mixture → mixture": (("clean", "mixture"), ("mixture", "mixture")),
            "none → 1.0 minus 1.0 → mixture": (("none", "1.0"), ("1.0", "mixture")),
        }
        for about, (first, second) in pairs.items():
            yield Row(about, [self._first_seed(name, sigma, first, second) for sigma in self.sigmas])
        ways = {"whole 0.03, batch norm frozen": "whole 0.03", "last two stages": "last stage"}
        for way, other in ways.items():
            cells = [
                self._first_seed(name, s, ("mixture", "clean"), ("mixture", "clean"), (way, other))
                for s in self.sigmas
            ]
            yield Row(f"mixture → clean: {way}, minus {other}", cells)

    def _first_seed(
        self, name: str, sigma: float, first: Cell, second: Cell, ways: tuple[str, str] = ("", "")
    ) -> Paired | None:
        cells = [
            self.records.cell(name, *cell, sigma, extra=folder(way))
            or (self._chosen(name, cell, sigma, way) if way else None)
            for cell, way in zip((first, second), ways, strict=True)
        ]
        return None if cells[0] is None or cells[1] is None else paired_difference(cells[0].gains, cells[1].gains)

    def _chosen(self, name: str, cell: Cell, sigma: float, way: str) -> Any:
        """The cell itself, if this was the candidate chosen for it."""
        found = self.records.cell(name, *cell, sigma)
        return found if found is not None and found.model.split("/")[4] == folder(way) else None
