"""The tables of the report, from the records alone. Each method gives (Markdown, figures for the JSON file)."""

from __future__ import annotations

from typing import Any

import numpy as np

from examples.studies.pages import markdown_table
from examples.studies.smoothing_transfer.cells import Records
from examples.studies.smoothing_transfer.comparisons import Comparisons
from examples.studies.smoothing_transfer.formats import Table, both, number, percent
from examples.studies.smoothing_transfer.plan import CLAIM_CELLS, folder
from examples.studies.smoothing_transfer.verdicts import Verdicts


COHEN: dict[float, dict[float, float]] = {
    0.25: {0.0: 76.7, 0.25: 61.2, 0.5: 42.2, 0.75: 25.1},
    0.5: {0.0: 65.7, 0.25: 54.9, 0.5: 42.8, 0.75: 32.5, 1.0: 22.0, 1.25: 14.1, 1.5: 8.3},
    1.0: {0.0: 47.1, 0.25: 40.9, 0.5: 33.8, 0.75: 27.7, 1.0: 22.1, 1.25: 17.2, 1.5: 13.3, 1.75: 9.7, 2.0: 6.6},
}
"""Published: ResNet-110, one model per sigma, n = 100,000, all 10,000 test images (arXiv 1902.02918, recomputed from its logs)."""
COHEN_ACR = {0.25: "0.424, every radius", 0.5: "0.525, every radius", 1.0: "0.511, every radius"}
MISMATCH = {"0.25": (33.4, 0.191), "0.5": (65.2, 0.538), "1.0": (43.6, 0.503)}
"""Published models certified at sigma 0.5: % at r = 0 and ACR by training sigma (500 images, recomputed from the same logs)."""


class Tables:
    """The tables of the report, by the names of their markers."""

    def __init__(self, config: dict[str, Any], records: Records) -> None:
        self.config, self.records = config, records
        self.sigmas, self.seeds = config["sigmas"], config["seeds"]
        self.compare = Comparisons(config, records)
        self.verdicts = Verdicts(config, self.compare)

    def all(self) -> dict[str, Table]:
        """Every table by the name of its marker in the report."""
        made = self.verdicts.all()
        for name, about in self.config["architectures"].items():
            made[f"claim1-{name}"] = self.compare.claim_one(name)
            cells = {tuple(cell) for cell in about.get("cells", CLAIM_CELLS)}
            if {(str(sigma), str(sigma)) for sigma in self.sigmas} <= cells:
                made |= {
                    f"claims23-{name}": self.compare.claims_two_and_three(name),
                    f"compute-{name}": self.compute(name),
                }
            if about["grid"] == "full":
                made |= {
                    f"grid-{name}": self.grid(name),
                    f"mismatch-{name}": self.mismatch(name),
                    f"protocols-{name}": self.protocols(name),
                    f"ablation-{name}": self.ablation(name),
                    f"headline-{name}": self.headline(name),
                }
        return made

    def scale(self, name: str) -> str:
        """What the caption of a table says of how it was measured."""
        r = self.config["headline" if name.startswith("headline") else "certification"]
        step = r["targets_every"] if "targets_every" in r else f"sigma/{r['targets_per_sigma']}"
        seeds = "" if name.startswith("claim") else f" Seed {self.seeds[0]} only."
        return (
            f"Scale: {self.config['scale']}; {10_000 // r['stride']} CIFAR-10 test images, every {r['stride']}th; network in bfloat16; n at most {r['n']:,}, alpha {r['alpha']}"
            f"{', label-aware' if r['label_aware'] else ''}, one-sided, grid noise; targets every {step} up to {r['targets_up_to']} sigma, so that "
            f"ACR, the average certified radius, hardly counts more than that.{seeds}"
        )

    def compute(self, architecture: str) -> Table:
        """Images seen by one mixture pipeline and by one pipeline per sigma, and minutes at the median speed of stages that ran through."""
        rows: list[list[Any]] = []
        figures: dict[str, Any] = {}
        pipelines = {"one mixture model": ["mixture"]}
        pipelines |= {
            f"one mixture model, finetuned on {name}": ["mixture", folder(name)]
            for name in self.config["more_finetuning"]
        }
        pipelines["one model per sigma"] = [str(sigma) for sigma in self.sigmas]
        for name, cells in pipelines.items():
            row: list[str] = [name]
            figures[name] = {}
            for kind in ("pretrain", "finetune"):
                done = [(stage, line["result"]) for stage, line in self.records.stages.items() if line["kind"] == kind]
                same = [
                    r
                    for stage, r in done
                    if stage.split("/")[1] == architecture and r.get("resumed") is False and r["images"]
                ]
                images = sum(r["images"] for stage, r in done if self._belongs(stage, architecture, cells, kind))
                minutes = (
                    images * float(np.median([r["seconds"] / r["images"] for r in same])) / 60
                    if same
                    else float("nan")
                )
                row.append(f"{images:,} / {minutes:.1f}")
                figures[name][kind] = {"images": images, "minutes": minutes}
            rows.append(row)
        return markdown_table(
            [
                "",
                "pretraining: images / minutes at the median speed",
                "finetuning, all candidates: images / minutes at the median speed",
            ],
            rows,
        ), figures

    def _belongs(self, stage: str, architecture: str, cells: list[str], kind: str) -> bool:
        parts = stage.split("/")
        if parts[1] != architecture or parts[2] not in cells or parts[-1] != f"seed{self.seeds[0]}":
            return False
        finetuned = cells[1:] if cells[0] == "mixture" and len(cells) > 1 else [parts[2]]
        return kind == "pretrain" or parts[3] in finetuned

    def grid(self, architecture: str) -> Table:
        """Pretraining x finetuning at every sigma."""
        rows: list[list[Any]] = []
        figures: dict[str, Any] = {}
        noises = list(self.config["noises"])
        for sigma in self.sigmas:
            for pretraining in ["none", *noises]:
                cells = [self.records.cell(architecture, pretraining, finetuning, sigma) for finetuning in noises]
                rows.append([sigma, pretraining, *(both(cell, sigma) for cell in cells)])
                figures[f"{sigma}/{pretraining}"] = {
                    f: {"accuracy": c.accuracy(sigma / 2)[0], "acr": c.acr, "collapsed": c.collapsed}
                    for f, c in zip(noises, cells, strict=True) if c
                }  # fmt: skip
            floor = f"{100 * self.compare.one_class(sigma, ''):.1f} / {number(self.compare.one_class(sigma, 'ACR'))}"
            rows.append([sigma, "one class for all", *[floor] * len(noises)])
        return markdown_table(["sigma", "pretrained on \\ finetuned on", *noises], rows), figures

    def mismatch(self, architecture: str) -> Table:
        """Each single-sigma model and the mixture at sigma .5, beside the published models."""
        rows: list[list[Any]] = []
        figures: dict[str, Any] = {}
        for name in [str(sigma) for sigma in self.sigmas] + ["mixture"]:
            cell = self.records.cell(architecture, name, name, 0.5)
            if cell is not None:
                published = MISMATCH.get(name, ("", ""))
                rows.append(
                    [name, percent(cell.accuracy(0.0)), percent(cell.accuracy(0.5)), number(cell.acr), *published]
                )
                figures[name] = {"accuracy": cell.accuracy(0.0)[0], "acr": cell.acr}
        head = ["trained at", "r = 0, %", "r = 0.5, %", "ACR", "published r = 0, %", "published ACR, not cut off"]
        return markdown_table(head, rows), figures

    def protocols(self, architecture: str) -> Table:
        """Ways of finetuning the mixture backbone on clean images."""
        about = self.config["architectures"][architecture]
        rows: list[list[Any]] = []
        figures: dict[str, Any] = {}
        chosen = self.records.cell(architecture, "mixture", "clean", self.sigmas[0])
        for name in [*about["clean_candidates"], *about["protocols"]]:
            place = folder(name)
            stage = self.records.stages.get(f"finetune/{architecture}/mixture/clean/{place}/seed{self.seeds[0]}")
            if stage is None or "diverged" in stage["result"]:
                continue
            is_chosen = chosen is not None and chosen.model.split("/")[4] == place
            cells = [self.records.cell(architecture, "mixture", "clean", s, extra=place) for s in self.sigmas]
            if is_chosen:
                cells = [self.records.cell(architecture, "mixture", "clean", s) for s in self.sigmas]
            clean, scores = stage["result"]["clean_accuracy"], stage["result"]["selection"]
            score = f"{100 * np.mean(list(scores.values())):.1f}"
            texts = [both(cell, sigma) for cell, sigma in zip(cells, self.sigmas, strict=True)]
            rows.append([name + (" (chosen)" if is_chosen else ""), f"{100 * clean:.1f}", score, *texts])
            figures[name] = {"clean_accuracy": clean, "held_out": scores, "acr": [c and c.acr for c in cells]}
        full = [self.records.cell(architecture, "mixture", "mixture", sigma) for sigma in self.sigmas]
        if rows and full[0] is not None:
            texts = [both(cell, sigma) for cell, sigma in zip(full, self.sigmas, strict=True)]
            rows.append(["*for comparison: the mixture, whole*", f"{100 * full[0].clean_accuracy:.1f}", "", *texts])
        head = [
            "finetuning on clean images",
            "clean accuracy, %",
            "held-out score, %",
            *(f"sigma {s}" for s in self.sigmas),
        ]
        return markdown_table(head, rows), figures

    def ablation(self, architecture: str) -> Table:
        """Other mixtures in pretraining."""
        kinds = self.config["ablation_finetuning"]
        rows: list[list[Any]] = []
        figures: dict[str, Any] = {}
        for name in ["mixture", *self.config["ablation"]]:
            row: list[Any] = ["uniform, clean 0.25 (the mixture)" if name == "mixture" else name]
            for finetuning in kinds:
                cells = [self.records.cell(architecture, folder(name), finetuning, sigma) for sigma in self.sigmas]
                row += [both(cell, sigma) for cell, sigma in zip(cells, self.sigmas, strict=True)]
                figures[f"{name} -> {finetuning}"] = [c and c.acr for c in cells]
            if any(row[1:]):
                rows.append(row)
        head = ["pretraining mixture", *(f"→ {kind}, {s}" for kind in kinds for s in self.sigmas)]
        return markdown_table(head, rows if len(rows) > 1 else []), figures

    def headline(self, architecture: str) -> Table:
        """The draws of the papers, beside the published one-model-per-sigma ResNet-110."""
        rows: list[list[Any]] = []
        figures: dict[str, Any] = {}
        radii = sorted({r for row in COHEN.values() for r in row})
        for sigma in self.sigmas:
            ours: list[list[Any]] = []
            for pretraining, finetuning in self.config["headline"]["cells"]:
                cell = self.records.cell(architecture, pretraining, finetuning, sigma, extra="headline")
                if cell is not None:
                    found = {r: cell.accuracy(r) for r in COHEN[sigma]}
                    texts = [percent(found[r]) if r in found else "" for r in radii]
                    ours.append([sigma, f"{pretraining} → {finetuning}", *texts, number(cell.acr)])
                    figures[f"{sigma}/{pretraining}/{finetuning}"] = {
                        "acr": cell.acr,
                        "accuracy": {str(r): f for r, f in found.items()},
                    }
            if ours:
                rows += [
                    [
                        sigma,
                        "ResNet-110 at this sigma (published)",
                        *(COHEN[sigma].get(r, "") for r in radii),
                        COHEN_ACR[sigma],
                    ],
                    *ours,
                ]
        return markdown_table(["sigma", "model", *(f"r = {r:g}" for r in radii), "ACR"], rows), figures
