"""From the results to the page: a table and a figure per sigma, and the JSON file of figures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.studies.command import Command
from examples.studies.labels import one_class_for_all
from examples.studies.pages import keep_records, markdown_table, publish
from examples.studies.training_methods import verdicts
from examples.studies.training_methods.figures import curves
from examples.studies.training_methods.plan import folder
from hf_smoothing.statistics import interval


def build(given: Command) -> None:
    """Gather the results into one file of records, if their folder is there, and rebuild everything from it."""
    file = given.docs / "results" / f"training_methods-{given.scale}.jsonl"
    kept = {line["stage"]: line for line in keep_records(given.stages, given.output, file)}
    measured = verdicts.Measured(given.config, {name: line["result"] for name, line in kept.items()})
    texts, figures = {}, {}
    for sigma in given.config["sigmas"]:
        found = {name: measured.method(name, sigma) for name in given.config["methods"]}
        found = {name: seeds for name, seeds in found.items() if seeds}
        rows, methods = _methods(given.config, found, kept, sigma)
        texts[f"sigma-{sigma}"] = f"*{_scale(given.config, sigma)}; {_trained(given.config)}*\n\n" + rows
        rows, routes = _routes(given, kept, sigma)
        texts[f"routes-{sigma}"] = (
            f"*{_scale(given.config, sigma)}; each with seed 0, the verdicts above with all three of LoRA*\n\n" + rows
        )
        figures[str(sigma)] = {"methods": methods, "routes": routes}
        if found:
            picture = given.docs / "figures" / "training_methods" / given.scale / f"sigma{sigma}.png"
            images = len(next(iter(found[next(iter(found))].values())))
            curves(given.config, found, sigma, one_class_for_all(given.docs, given.config["data"], images), picture)
    texts["verdicts-methods"] = verdicts.methods(measured)
    texts["verdicts-routes"] = verdicts.routes(measured)
    page = given.docs / "training_methods.md"
    publish(given.scale, texts, figures, page, given.docs / "results" / "training_methods.json", given.output)


def _shown(sigma: float) -> list[float]:
    """The radii in the tables."""
    return [round(sigma * k, 6) for k in (0, 0.5, 1, 1.5, 2)]


def _cells(radii: NDArray[np.float64], sigma: float) -> list[str]:
    """Certified accuracy in % with its exact interval, at each of the radii in the tables."""
    cells = []
    for radius in _shown(sigma):
        successes = int((radii >= radius).sum())
        low, high = interval([successes], len(radii), 0.95)
        cells.append(f"{100 * successes / len(radii):.1f} ({100 * low[0]:.1f}-{100 * high[0]:.1f})")
    return cells


def _acr(radii: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each image adds to the average certified radius."""
    return np.maximum(radii, 0.0)


def _methods(
    config: dict[str, Any], found: dict[str, dict[int, NDArray[np.float64]]], kept: dict[str, Any], sigma: float
) -> tuple[str, dict[str, Any]]:
    """A row per method: certified accuracy of the first seed that is done with its exact interval, ACR of every seed, and its mean minus that of plain noise."""
    rows: list[list[Any]] = []
    figures: dict[str, Any] = {}
    baseline = found.get(config["baseline"])
    for name, seeds in found.items():
        first = min(seeds)
        acr = [float(_acr(one).mean()) for one in seeds.values()]
        difference = ""
        figures[name] = {
            "acr": acr,
            "certified": {str(r): [float((one >= r).mean()) for one in seeds.values()] for r in _shown(sigma)},
            "seeds": list(seeds),
        }
        if baseline and name != config["baseline"]:
            gain = verdicts.gain(seeds, baseline)
            difference = verdicts.interval(gain)
            figures[name]["acr_minus_baseline"] = [gain.value, gain.low, gain.high]
        trained = {seed: kept[f"train/{folder(name)}/sigma{sigma}/seed{seed}"]["result"] for seed in seeds}
        rows.append([
            name, f"{100 * trained[first]['accuracy']:.1f}", *_cells(seeds[first], sigma), ", ".join(f"{a:.3f}" for a in acr), difference,
            _minutes(list(trained.values())),
        ])  # fmt: skip
    head = [
        "method", "clean, no noise, %", *(f"r = {r:g}, %" for r in _shown(sigma)), "ACR of each seed", f"mean ACR - that of {config['baseline']}", "training, minutes (least of the seeds)",
    ]  # fmt: skip
    return markdown_table(head, rows), figures


def _minutes(trained: list[dict[str, Any]]) -> str:
    """The least of the trainings that ran without a break: others shared the machine, and of one that was resumed the time before is not known."""
    return (
        f"{min(whole):.1f}" if (whole := [one["seconds"] / 60 for one in trained if not one["resumed"]]) else "resumed"
    )


def _routes(given: Command, kept: dict[str, Any], sigma: float) -> tuple[str, dict[str, Any]]:
    """A row a route: what its last step gives, and how long its noisy steps took."""
    rows: list[list[Any]] = []
    figures: dict[str, Any] = {}
    needs = {stage.name: stage.needs for stage in given.stages}
    for name in given.config.get("routes", {}):
        line = kept.get(f"certify/{folder(name)}/sigma{sigma}")
        if line is None:
            continue
        radii = np.array(line["result"]["radii"])
        (last,) = needs[line["stage"]]
        result, minutes, stage = kept[last]["result"], 0.0, last
        while f"sigma{sigma}" in stage and stage in kept and not stage.startswith("ensemble/"):
            minutes += kept[stage]["result"]["seconds"] / 60
            stage = next(iter(needs[stage]), "")
        clean = f"{100 * result['accuracy']:.1f}" if "accuracy" in result else ""
        share = f"{100 * result['share_trained']:.1f}" if "share_trained" in result else ""
        rows.append([name, clean, *_cells(radii, sigma), f"{_acr(radii).mean():.3f}", share, f"{minutes:.1f}"])
        figures[name] = {
            "acr": float(_acr(radii).mean()), "certified": {str(r): float((radii >= r).mean()) for r in _shown(sigma)}, "minutes": minutes,
        }  # fmt: skip
    head = [
        "route", "clean, no noise, %", *(f"r = {r:g}, %" for r in _shown(sigma)), "ACR", "share of the weights trained, %", "training with noise, minutes",
    ]  # fmt: skip
    return markdown_table(head, rows), figures


def _scale(config: dict[str, Any], sigma: float) -> str:
    about = config["certification"]
    return (
        f"Scale: {config['scale']}; {config['data']}, {10_000 // about['stride']} test images (every {about['stride']}th), n at most {about['n']:,}, alpha {about['alpha']}"
        f"{', label-aware' if about['label_aware'] else ''}, one-sided, grid noise, bfloat16; targets every sigma/2 up to {about['up_to']} sigma; sigma {sigma}"
    )


def _trained(config: dict[str, Any]) -> str:
    """How the methods were trained; the routes are trained otherwise."""
    images = f"{config['train_images']:,}" if config.get("train_images") else "the"
    start = f"from {config['backbone'].rpartition('/')[2]}" if "backbone" in config else "from scratch"
    return (
        f"{config['passes']} passes over {images} training images {start}, resized to {config['model_size']} px inside the model; "
        "accuracies are those of the first seed"
    )
