"""The tables of the report, from the records alone. Each function gives (Markdown, figures for the JSON file)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from cells import Records
from numpy.typing import NDArray
from plan import folder

from hf_smoothing.statistics import paired_difference, paired_ratio, round_down


Table = tuple[str, dict[str, Any]]

COHEN = {
    0.25: {0.0: 76.7, 0.25: 61.2, 0.5: 42.2, 0.75: 25.1, "acr": 0.424},
    0.5: {0.0: 65.7, 0.25: 54.9, 0.5: 42.8, 0.75: 32.5, 1.0: 22.0, 1.25: 14.1, 1.5: 8.3, "acr": 0.525},
    1.0: {0.0: 47.1, 0.25: 40.9, 0.5: 33.8, 0.75: 27.7, 1.0: 22.1, 1.25: 17.2, 1.5: 13.3, 1.75: 9.7, 2.0: 6.6, "acr": 0.511},
}  # fmt: skip
"""Published: ResNet-110, one model a sigma, n = 100,000, all 10,000 test images (arXiv 1902.02918, recomputed from its logs)."""
MISMATCH = {"0.25": (33.4, 0.191), "0.5": (65.2, 0.538), "1.0": (43.6, 0.503)}
"""Published models certified at sigma 0.5: % at r = 0 and ACR by training sigma (500 images, recomputed from the same logs)."""


@dataclass(frozen=True)
class _Side:
    """One side of a comparison.

    Attributes:
        images: what each image adds, mean over seeds.
        seeds: the measure for each seed.
    """

    images: NDArray[np.float64]
    seeds: list[float]

    def text(self, measure: str) -> str:
        values = [_value(value, measure) for value in self.seeds]
        mean = f"**{_value(float(np.mean(self.seeds)), measure)}**"
        return mean if len(values) == 1 else f"{mean} ({', '.join(values)})"


class Tables:
    """Args: config: of the study. records: its results."""

    def __init__(self, config: dict[str, Any], records: Records) -> None:
        self.config, self.records = config, records
        self.sigmas, self.seeds = config["sigmas"], config["seeds"]

    def all(self) -> dict[str, Table]:
        """Every table by the name of its marker in the report."""
        made = {}
        for name, about in self.config["architectures"].items():
            made[f"claim1-{name}"] = self.claim_one(name)
            if "backbones" not in about:
                made |= {f"claims23-{name}": self.claims_two_and_three(name), f"compute-{name}": self.compute(name)}
            if about["grid"] == "full":
                made |= {
                    f"grid-{name}": self.grid(name),
                    f"mismatch-{name}": self.mismatch(name),
                    f"protocols-{name}": self.protocols(name),
                    f"ablation-{name}": self.ablation(name),
                    f"headline-{name}": self.headline(name),
                }
        return made

    def scale(self, rule: str = "certification") -> str:
        """What every caption says."""
        r = self.config[rule]
        aware = ", label-aware" if r["label_aware"] else ""
        return (
            f"Scale: {self.config['scale']}; CIFAR-10 test images, every {_nth(r['stride'])}; n at most {r['n']:,}, alpha {r['alpha']}{aware}, "
            "one-sided, grid noise; ACR counts 0 for what is not certified as the true class."
        )

    def _measured(self, architecture: str, cell: tuple[str, str], sigma: float) -> dict[str, _Side]:
        """What each image adds to each measure, mean over seeds; empty where the cell is missing."""
        cells = self.records.seeds(architecture, *cell, sigma, self.seeds)
        if not cells:
            return {}
        columns = {"ACR": [c.gains for c in cells]}
        for share in (0.5, 1.0):
            columns[f"r = {share * sigma:g}"] = [(c.radii >= share * sigma).astype(float) for c in cells]
        return {
            name: _Side(np.mean(seeds, axis=0), [float(x.mean()) for x in seeds]) for name, seeds in columns.items()
        }

    def claim_one(self, architecture: str) -> Table:
        """Clean-only finetuning after mixture pretraining against mixture finetuning, and against clean pretraining."""
        rows, figures = [], {}
        for sigma in self.sigmas:
            light, full, floor = (
                self._measured(architecture, cell, sigma) for cell in (("mixture", "clean"), ("mixture", "mixture"), ("clean", "clean"))
            )  # fmt: skip
            for measure in light if full and floor else ():
                sides = light[measure], full[measure], floor[measure]
                if not sides[1].images.any():
                    continue
                ratio = paired_ratio(sides[0].images, sides[1].images)
                above = paired_difference(sides[0].images, sides[2].images)
                texts = [side.text(measure) for side in sides]
                seeds = len(sides[0].seeds)
                rows.append(
                    [sigma, measure, *texts, _ratio(ratio), _difference(above, measure), _p(above.p_value), seeds]
                )
                names = ("clean_finetuning", "mixture_finetuning", "clean_pretraining")
                figures.setdefault(str(sigma), {})[measure] = {
                    "ratio": ratio.value, "low": ratio.low, "high": ratio.high, "seeds": seeds,
                    **{name: side.images.mean() for name, side in zip(names, sides, strict=True)},
                }  # fmt: skip
        head = ["sigma", "measure", "mixture → clean", "mixture → mixture", "clean → clean", "ratio of the first two", "first minus third", "p", "seeds"]  # fmt: skip
        return _table(head, rows), figures

    def claims_two_and_three(self, architecture: str) -> Table:
        """One mixture model against the matched single-sigma pipeline at each sigma."""
        rows, figures = [], {}
        for sigma in self.sigmas:
            matched = self._measured(architecture, (str(sigma), str(sigma)), sigma)
            for finetuning in ("mixture", *self.config["more_finetuning"]):
                one = self._measured(architecture, ("mixture", folder(finetuning)), sigma)
                for measure in one if matched else ():
                    found = paired_difference(one[measure].images, matched[measure].images)
                    seeds = min(len(one[measure].seeds), len(matched[measure].seeds))
                    texts = [side[measure].text(measure) for side in (one, matched)]
                    rows.append(
                        [sigma, finetuning, measure, *texts, _difference(found, measure), _p(found.p_value), seeds]
                    )
                    figures.setdefault(str(sigma), {}).setdefault(finetuning, {})[measure] = {
                        "difference": found.value, "low": found.low, "high": found.high, "p": found.p_value, "seeds": seeds,
                        "one_model": one[measure].images.mean(), "matched": matched[measure].images.mean(),
                    }  # fmt: skip
        head = [
            "sigma",
            "mixture model finetuned on",
            "measure",
            "one model",
            "matched single sigma",
            "difference",
            "p",
            "seeds",
        ]
        return _table(head, rows), figures

    def compute(self, architecture: str) -> Table:
        """Images seen by one mixture pipeline and by one pipeline a sigma, and minutes at the median speed of stages that ran through."""
        rows, figures = [], {}
        for name, cells in (
            ("one mixture model", ["mixture"]),
            ("one model per sigma", [str(sigma) for sigma in self.sigmas]),
        ):
            row: list[str] = [name]
            figures[name] = {}
            for kind in ("pretrain", "finetune"):
                done = [(stage, line["result"]) for stage, line in self.records.stages.items() if line["kind"] == kind]
                same = [r for stage, r in done if stage.split("/")[1] == architecture and r.get("resumed") is False]
                images = sum(r["images"] for stage, r in done if self._belongs(stage, architecture, cells, kind))
                minutes = (
                    images * float(np.median([r["seconds"] / r["images"] for r in same])) / 60
                    if same
                    else float("nan")
                )
                row.append(f"{images:,} / {minutes:.1f}")
                figures[name][kind] = {"images": images, "minutes": minutes}
            rows.append(row)
        return _table(
            ["", "pretraining: images / minutes", "finetuning, all candidates: images / minutes"], rows
        ), figures

    @staticmethod
    def _belongs(stage: str, architecture: str, cells: list[str], kind: str) -> bool:
        parts = stage.split("/")
        if parts[1] != architecture or parts[2] not in cells or parts[-1] != "seed0":
            return False
        return kind == "pretrain" or parts[3] == parts[2]

    def grid(self, architecture: str) -> Table:
        """ACR of pretraining x finetuning at every sigma."""
        rows, figures = [], {}
        noises = list(self.config["noises"])
        for sigma in self.sigmas:
            for pretraining in ["none", *noises]:
                cells = [self.records.cell(architecture, pretraining, finetuning, sigma) for finetuning in noises]
                rows.append([sigma, pretraining, *(_number(c.acr) if c else "" for c in cells)])
                figures[f"{sigma}/{pretraining}"] = {f: c.acr for f, c in zip(noises, cells, strict=True) if c}
        return _table(["sigma", "pretrained on \\ finetuned on", *noises], rows), figures

    def mismatch(self, architecture: str) -> Table:
        """Each single-sigma model and the mixture at sigma .5, beside the published models."""
        rows, figures = [], {}
        for name in [str(sigma) for sigma in self.sigmas] + ["mixture"]:
            cell = self.records.cell(architecture, name, name, 0.5)
            if cell is None:
                continue
            published = MISMATCH.get(name)
            rows.append([name, _percent(cell.accuracy(0.0)), _number(cell.acr), *(published or ("", ""))])
            figures[name] = {"accuracy": cell.accuracy(0.0)[0], "acr": cell.acr}
        head = ["trained at", "r = 0, %", "ACR", "published r = 0, %", "published ACR"]
        return _table(head, rows), figures

    def protocols(self, architecture: str) -> Table:
        """Ways of finetuning the mixture backbone on clean images."""
        about = self.config["architectures"][architecture]
        rows, figures = [], {}
        chosen = self.records.cell(architecture, "mixture", "clean", self.sigmas[0])
        full = [self.records.cell(architecture, "mixture", "mixture", sigma) for sigma in self.sigmas]
        for name in [*about["clean_candidates"], *about["protocols"]]:
            where = folder(name)
            is_chosen = chosen is not None and chosen.model.split("/")[4] == where
            cells = [
                self.records.cell(architecture, "mixture", "clean", s, extra="" if is_chosen else where)
                for s in self.sigmas
            ]
            stage = self.records.stages.get(f"finetune/{architecture}/mixture/clean/{where}/seed0")
            if stage is None:
                continue
            clean = stage["result"]["clean_accuracy"]
            held_out = stage["result"]["selection"]
            shares = [
                f"{100 * c.acr / f.acr:.0f}" if c and f and f.acr else "" for c, f in zip(cells, full, strict=True)
            ]
            rows.append(
                [
                    name + (" (chosen)" if is_chosen else ""),
                    f"{100 * clean:.1f}",
                    f"{sum(held_out.values()):.3f}",
                    *(_number(c.acr) if c else "" for c in cells),
                    " / ".join(shares),
                ]
            )
            figures[name] = {
                "clean_accuracy": clean,
                "acr": [c.acr if c else None for c in cells],
                "held_out": held_out,
            }
        head = [
            "finetuning on clean images",
            "clean accuracy, %",
            "held-out score",
            *(f"ACR at {s}" for s in self.sigmas),
            "% of mixture finetuning",
        ]
        return _table(head, rows), figures

    def ablation(self, architecture: str) -> Table:
        """Other mixtures in pretraining."""
        rows, figures = [], {}
        for name in ["mixture", *self.config["ablation"]]:
            where = folder(name)
            row: list[Any] = ["uniform, clean 0.25 (mixture)" if name == "mixture" else name]
            for finetuning in ("clean", "mixture"):
                cells = [self.records.cell(architecture, where, finetuning, sigma) for sigma in self.sigmas]
                row += [_number(c.acr) if c else "" for c in cells]
                figures[f"{name} -> {finetuning}"] = [c.acr if c else None for c in cells]
            if any(row[1:]):
                rows.append(row)
        head = [
            "pretraining mixture",
            *(f"→ clean, {s}" for s in self.sigmas),
            *(f"→ mixture, {s}" for s in self.sigmas),
        ]
        return _table(head, rows), figures

    def headline(self, architecture: str) -> Table:
        """The draws of the papers, beside the published one-model-per-sigma ResNet-110."""
        rows, figures = [], {}
        for sigma in self.sigmas:
            radii = [r for r in COHEN[sigma] if r != "acr"]
            rows.append(
                [
                    sigma,
                    "ResNet-110 at this sigma (published)",
                    *_pad([f"{COHEN[sigma][r]}" for r in radii]),
                    COHEN[sigma]["acr"],
                ]
            )
            for pretraining, finetuning in self.config["headline"]["cells"]:
                cell = self.records.cell(architecture, pretraining, finetuning, sigma, extra="headline")
                if cell is not None:
                    found = [cell.accuracy(r) for r in radii]
                    rows.append(
                        [
                            sigma,
                            f"{pretraining} → {finetuning}",
                            *_pad([_percent(f) for f in found]),
                            _number(cell.acr),
                        ]
                    )
                    figures[f"{sigma}/{pretraining}/{finetuning}"] = {
                        "acr": cell.acr,
                        "accuracy": dict(zip(map(str, radii), found, strict=True)),
                    }
        widest = [r for r in COHEN[1.0] if r != "acr"]
        return _table(["sigma", "model", *widest, "ACR"], rows), figures


def _pad(cells: list[str]) -> list[str]:
    return cells + [""] * (len([r for r in COHEN[1.0] if r != "acr"]) - len(cells))


def _nth(stride: int) -> str:
    return {1: "one"}.get(stride, f"{stride}th")


def _value(value: float, measure: str) -> str:
    return _number(value) if measure == "ACR" else f"{100 * value:.1f}"


def _number(value: float) -> str:
    return str(round_down(value))


def _ratio(found: Any) -> str:
    return f"{100 * found.value:.0f}% [{100 * found.low:.0f}, {100 * found.high:.0f}]"


def _difference(found: Any, measure: str) -> str:
    if measure != "ACR":
        return f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def _percent(found: tuple[float, float, float]) -> str:
    return f"{found[0]:.1f} [{found[1]:.0f}, {found[2]:.0f}]"


def _table(head: list[Any], rows: list[list[Any]]) -> str:
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) if rows else "*Not measured yet.*"
