"""From the results to the page: tables between its markers, and the JSON file of figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from plan import NONE, folder

from hf_smoothing.pages import fill_markers, keep_figures, keep_records, markdown_table
from hf_smoothing.stages import Stage
from hf_smoothing.statistics import Paired, paired_difference
from hf_smoothing.transfer import area_of_each, area_under_curve, decline_ratio, matched
from hf_smoothing.transfer.keeping import from_bits


Line = list[Any]


def build(config: dict[str, Any], scale: str, stages: list[Stage], output: Path, docs: Path) -> None:
    """Gather the results into one file of records, if their folder is there, and rebuild everything from it.

    Raises:
        SystemExit: if there is nothing to report, or less than before.
    """
    file = docs / "results" / f"robustness_transfer-{scale}.jsonl"
    records = Records(config, keep_records(stages, output, file))
    texts, figures = {}, {}
    for target in config["targets"]:
        for name, made in (("brittle", brittle), ("mended", mended), ("mixture", mixture)):
            rows, figures[f"{name}-{target}"] = made(records, target)
            texts[f"{name}-{target}"] = f"*{records.scale(target)}*\n\n{markdown_table(*rows)}"
    unused = fill_markers(docs / "robustness_transfer.md", scale, texts)
    keep_figures(docs / "results" / "robustness_transfer.json", scale, figures)
    print(f"Tables without a place in the page: {unused or 'none'}")


class Records:
    """Args: config: of the study. lines: its records."""

    def __init__(self, config: dict[str, Any], lines: list[dict[str, Any]]) -> None:
        self.config = config
        self.stages = {line["stage"]: line["result"] for line in lines}

    def curve(self, target: str, pretraining: str, way: str, seed: int, norm: str) -> NDArray[np.bool_] | None:
        """(radii, images): what survives, or None where it is missing."""
        result = self.stages.get(f"attack/{target}/{pretraining}/{folder(way)}/seed{seed}")
        return None if result is None else np.array([from_bits(row) for row in result["right"][norm]])

    def gains(self, target: str, pretraining: str, way: str, seed: int) -> NDArray[np.float64] | None:
        """What each image adds to the average certified radius."""
        result = self.stages.get(f"certify/{target}/{pretraining}/{folder(way)}/seed{seed}")
        return None if result is None else np.maximum(np.array(result["radii"]), 0.0)

    def seeds(self, *models: tuple[str, str], target: str) -> list[int]:
        """Those that all models have."""
        return [
            s
            for s in self.config["seeds"]
            if all(self.curve(target, *model, s, "linf") is not None for model in models)
        ]

    def scale(self, target: str) -> str:
        """What the caption of a table says."""
        about, attack = self.config["targets"][target], self.config["attack"]
        return (
            f"Scale: {self.config['scale']}; {target}, {about['train_images']:,} training images, {about['arguments']['num_train_epochs']} epochs; "
            f"{attack['attack']} of {attack['steps']} steps on {attack['images']:,} test images"
        )


def brittle(records: Records, target: str) -> tuple[tuple[Line, list[Line]], dict[str, Any]]:
    """Every plainly finetuned network beside the standard one."""
    rows: list[Line] = []
    figures: dict[str, Any] = {}
    epsilons = records.config["attack"]["epsilons"]["linf"]
    standard = (NONE, "plain")
    for pretraining in [NONE, *records.config["pretraining"]["kinds"]]:
        model = (pretraining, "plain")
        seeds = records.seeds(model, standard, target=target)
        if not seeds:
            continue
        accuracies = np.mean([records.curve(target, *model, s, "linf").mean(1) for s in seeds], axis=0)  # type: ignore[union-attr]
        found = []
        for seed in seeds:
            curves = [records.curve(target, *one, seed, "linf") for one in (model, standard)]
            areas = [area_of_each(epsilons, curve) for curve in matched([c for c in curves if c is not None])]
            found.append(paired_difference(*areas) if len(areas[0]) > 1 else None)
        shown = (
            ""
            if pretraining == NONE
            else ", ".join("none matched" if one is None else _interval(one) for one in found)
        )
        rows.append([
            pretraining, *(f"{100 * a:.1f}" for a in accuracies), f"{100 * decline_ratio(accuracies[0], accuracies[-1]):.0f}%",
            f"{100 * area_under_curve(epsilons, accuracies):.1f}", shown, len(seeds),
        ])  # fmt: skip
        figures[pretraining] = {
            "accuracy": accuracies.tolist(),
            "area_difference_matched": [one and one.value for one in found],
            "seeds": seeds,
        }
    head = [
        "pretrained on", *("clean, %" if not e else f"{255 * e:.2g}/255" for e in epsilons), "decline ratio", "area, %",
        "area - standard's at matched accuracy, points, each seed", "seeds",
    ]  # fmt: skip
    return (head, rows), figures


def mended(records: Records, target: str) -> tuple[tuple[Line, list[Line]], dict[str, Any]]:
    """Discrepancy mitigation minus plain finetuning from the same backbone, paired over images, mean over seeds."""
    rows: list[Line] = []
    figures: dict[str, Any] = {}
    epsilons = records.config["attack"]["epsilons"]["linf"]
    for way in [way for way in records.config["ways"] if way != "plain"]:
        for pretraining in [NONE, *records.config["pretraining"]["kinds"]]:
            seeds = records.seeds((pretraining, way), (pretraining, "plain"), target=target)
            if not seeds:
                continue
            sides = [
                np.mean([records.curve(target, pretraining, w, s, "linf") for s in seeds], axis=0)
                for w in (way, "plain")
            ]
            found = [paired_difference(a, b) for a, b in zip(*sides, strict=True)]
            rows.append([way, pretraining, *(_interval(one) for one in found), len(seeds)])
            figures[f"{way}/{pretraining}"] = {"differences": [one.value for one in found], "seeds": seeds}
    head = ["way", "pretrained on", *("clean, points" if not e else f"{255 * e:.2g}/255" for e in epsilons), "seeds"]
    return (head, rows), figures


def mixture(records: Records, target: str) -> tuple[tuple[Line, list[Line]], dict[str, Any]]:
    """Other backbones minus the clean one: under attack, and certified."""
    rows: list[Line] = []
    figures: dict[str, Any] = {}
    for way in records.config["ways"]:
        for pretraining in [kind for kind in records.config["pretraining"]["kinds"] if kind != "clean"]:
            seeds = records.seeds((pretraining, way), ("clean", way), target=target)
            gains = [[records.gains(target, p, way, s) for s in seeds] for p in (pretraining, "clean")]
            if not seeds or any(g is None for side in gains for g in side):
                continue
            sides = [
                np.mean([records.curve(target, p, way, s, "linf") for s in seeds], axis=0)
                for p in (pretraining, "clean")
            ]
            at = [paired_difference(sides[0][k], sides[1][k]) for k in (0, -1)]
            means = [np.mean(side, axis=0) for side in gains]
            certified = paired_difference(*means)
            rows.append(
                [
                    way,
                    f"{pretraining} - clean",
                    _interval(at[0]),
                    _interval(at[1]),
                    f"{means[0].mean():.3f}",
                    f"{means[1].mean():.3f}",
                    _interval(certified, 1),
                    len(seeds),
                ]
            )
            figures[f"{way}/{pretraining}"] = {
                "clean": at[0].value,
                "attacked": at[1].value,
                "acr": certified.value,
                "seeds": seeds,
            }
    last = 255 * records.config["attack"]["epsilons"]["linf"][-1]
    head = [
        "finetuned",
        "backbones",
        "clean, points",
        f"{last:.2g}/255, points",
        "ACR",
        "ACR from clean",
        "difference of ACR",
        "seeds",
    ]
    return (head, rows), figures


def _interval(found: Paired, factor: float = 100.0) -> str:
    digits = 1 if factor == 100.0 else 3
    return f"{factor * found.value:+.{digits}f} [{factor * found.low:+.{digits}f}, {factor * found.high:+.{digits}f}]"
