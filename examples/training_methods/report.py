"""From the results to the page: a table and a picture a sigma, and the JSON file of figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hf_smoothing.pages import keep_records, markdown_table, publish
from hf_smoothing.statistics import interval, paired_difference
from hf_smoothing.studies import Command


def build(given: Command) -> None:
    """Gather the results into one file of records, if their folder is there, and rebuild everything from it."""
    file = given.docs / "results" / f"training_methods-{given.scale}.jsonl"
    kept = {line["stage"]: line for line in keep_records(given.stages, given.output, file)}
    texts, figures = {}, {}
    for sigma in given.config["sigmas"]:
        found = {name: _seeds(given.config, kept, name, sigma) for name in given.config["methods"]}
        found = {name: seeds for name, seeds in found.items() if seeds}
        rows, figures[str(sigma)] = _rows(given.config, found, kept, sigma)
        texts[f"sigma-{sigma}"] = f"*{_scale(given.config, sigma)}*\n\n" + rows
        if found:
            curves(
                given.config,
                found,
                sigma,
                given.docs / "figures" / "training_methods" / given.scale / f"sigma{sigma}.png",
            )
    publish(
        given.scale,
        texts,
        figures,
        given.docs / "training_methods.md",
        given.docs / "results" / "training_methods.json",
        given.output,
    )


def _seeds(config: dict[str, Any], kept: dict[str, Any], name: str, sigma: float) -> dict[int, NDArray[np.float64]]:
    """Radii of every seed that is done."""
    where = f"certify/{name.replace(' ', '-')}/sigma{sigma}/seed"
    lines = {seed: kept.get(f"{where}{seed}") for seed in range(config["methods"][name].get("seeds", 1))}
    return {seed: np.array(line["result"]["radii"]) for seed, line in lines.items() if line is not None}


def _rows(
    config: dict[str, Any], found: dict[str, dict[int, NDArray[np.float64]]], kept: dict[str, Any], sigma: float
) -> tuple[str, dict[str, Any]]:
    """A row a method: certified accuracy of the first seed that is done with its exact interval, ACR of every seed, and ACR minus that of plain noise."""
    radii = [round(sigma * k, 6) for k in (0, 0.5, 1, 1.5, 2)]
    rows: list[list[Any]] = []
    figures: dict[str, Any] = {}
    baseline = found.get(config["baseline"])
    for name, seeds in found.items():
        shown_seed = min(seeds)
        first, count = seeds[shown_seed], len(seeds[shown_seed])
        shown = []
        for radius in radii:
            successes = int((first >= radius).sum())
            low, high = interval([successes], count, 0.95)
            shown.append(f"{100 * successes / count:.1f} ({100 * low[0]:.1f}-{100 * high[0]:.1f})")
        acr = [float(np.maximum(one, 0.0).mean()) for one in seeds.values()]
        difference = ""
        figures[name] = {
            "acr": acr,
            "certified": {str(r): [float((one >= r).mean()) for one in seeds.values()] for r in radii},
            "seeds": list(seeds),
        }
        if baseline and name != config["baseline"]:
            common = sorted(baseline.keys() & seeds.keys())
            if common:
                sides = [
                    np.mean([np.maximum(side[seed], 0.0) for seed in common], axis=0) for side in (seeds, baseline)
                ]
                gain = paired_difference(*sides)
                difference = f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
                figures[name]["acr_minus_baseline"] = [gain.value, gain.low, gain.high]
        trained = kept[f"train/{name.replace(' ', '-')}/sigma{sigma}/seed{shown_seed}"]["result"]
        rows.append(
            [
                name,
                f"{100 * trained['accuracy']:.1f}",
                *shown,
                ", ".join(f"{a:.3f}" for a in acr),
                difference,
                f"{trained['seconds'] / 60:.1f}",
            ]
        )
    head = [
        "method", "clean, no noise, %", *(f"r = {r:g}, %" for r in radii), "ACR of each seed", f"ACR - that of {config['baseline']}", "training, minutes",
    ]  # fmt: skip
    return markdown_table(head, rows), figures


def _scale(config: dict[str, Any], sigma: float) -> str:
    about = config["certification"]
    return (
        f"Scale: {config['scale']}; {config['data']}, {10_000 // about['stride']} test images (every {about['stride']}th), n at most {about['n']:,}, alpha {about['alpha']}"
        f"{', label-aware' if about['label_aware'] else ''}, one-sided, grid noise, bfloat16; targets every sigma/2 up to {about['up_to']} sigma; sigma {sigma}; "
        f"{config['passes']} passes over the training images for each method"
    )


def curves(config: dict[str, Any], found: dict[str, dict[int, NDArray[np.float64]]], sigma: float, file: Path) -> None:
    """Certified accuracy against the radius, a line a method, mean over its seeds."""
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    radii = [sigma * k / 2 for k in range(config["certification"]["up_to"] * 2 + 1)]
    for name, seeds in found.items():
        share = np.mean([[(one >= r - 1e-9).mean() for r in radii] for one in seeds.values()], axis=0)
        axes.plot(radii, 100 * share, ".-", label=name)
    axes.set(xlabel="l2 radius, [0, 1] pixels", ylabel="certified accuracy, %", title=f"sigma {sigma}", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
