"""The tradeoff of accuracy and certified l-infinity radius that `examples/adaptive_certified_training.py` measures: its table, its picture, its record."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from examples.studies import fronts
from examples.studies.certified_networks import LOSSES, NetworkName
from examples.studies.labels import one_class_for_all
from examples.studies.pages import markdown_table, publish
from examples.studies.verdicts import listed
from hf_smoothing.drawing import COLOURS, FLOOR, MARKERS, legend_above, new_figure, points, save, series
from hf_smoothing.records import Run, read_json
from hf_smoothing.reports import columns
from hf_smoothing.statistics import average_certified_radius, interval


Network = dict[str, Any]
"""A network of the record: "kind" (adaptive or fixed), "kappa", "seed", "images", "acr_percent" (of the largest radius), and "right": by radius, the number
of images certified there; where the loss is not that of interval bounds also "loss" and "strength", its alpha or share."""


def rebuild(docs: Path) -> None:
    """The tables and figures of interval.md from its record."""
    for name, found in (read_json(docs / "results" / "interval.json") or {}).items():
        if "networks" in found:
            add(docs, name, found, docs)


def add(docs: Path, name: str, found: dict[str, Any], elsewhere: Path) -> None:
    """Put one record into page, figure and interval.json, under its name; what has no place goes to the folder `elsewhere`."""
    results = found["networks"]
    if "at" in results[0]:
        _add_fronts(docs, name, found, elsewhere)
        return
    floor = one_class_for_all(docs, found["dataset"], results[0]["images"], spread=False)
    plot(results, docs / "figures" / "interval" / f"{name}.png", found["arguments"]["published"], floor)
    publish(
        name,
        {"networks": table(results), "equal accuracy": at_equal_accuracy(found)},
        found,
        docs / "interval.md",
        docs / "results" / "interval.json",
        elsewhere,
    )


def _with_earlier(found: dict[str, Any], earlier: dict[str, Any] | None) -> dict[str, Any]:
    """A record with the networks of an earlier one that it does not measure anew: those of folders that are gone, if all else that both say is the same."""
    if earlier is None or any(earlier.get(key) != found[key] for key in found if key != "networks"):
        return found
    networks = {NetworkName.of_record(one): one for one in earlier["networks"] + found["networks"]}
    return found | {"networks": [networks[name] for name in sorted(networks, key=lambda name: name.rank)]}


def _add_fronts(docs: Path, name: str, found: dict[str, Any], elsewhere: Path) -> None:
    found = _with_earlier(found, (read_json(docs / "results" / "interval.json") or {}).get(name))
    results, dataset, radius = found["networks"], found["dataset"], found["networks"][0]["at"]
    fronts.plot(results, docs / "figures" / "interval" / f"{name}.png", radius, fronts.published(dataset, radius))
    publish(
        name,
        {"networks": table(results)} | fronts.texts(results),
        found,
        docs / "interval.md",
        docs / "results" / "interval.json",
        elsewhere,
    )
    file = docs / "results" / "linf_frontier.json"
    key = f"{dataset}_{radius_name(radius)}"
    kept, about = read_json(file) or {}, found["arguments"]
    points = [point for point in kept.get(key, []) if fronts.schedule(point) != fronts.schedule(about)]
    points += fronts.listed_points(results, about)
    points.sort(key=lambda point: ("start_from" in point, float(point["epochs"])))
    file.write_text(json.dumps(kept | {key: points}, indent=2) + "\n", encoding="utf-8")


def radius_name(radius: float) -> str:
    """A radius as papers write it, in a key.

    >>> [radius_name(radius) for radius in (0.3, 0.4, 0.0078431, 8 / 255, 0.0123)]
    ['0.3', '0.4', '2_255', '8_255', '0.0123']
    """
    levels = round(255 * radius)
    in_levels = radius != round(radius, 2) and abs(255 * radius - levels) < 0.01
    return f"{levels}_255" if in_levels else f"{radius:g}"


def at_equal_accuracy(found: dict[str, Any]) -> str:
    """A sentence on the ratios of ACR of a record; they have no interval."""
    ratios = found["acr_over_that_of_fixed_at_accuracy"]
    known = [f"{ratio:g} times at {accuracy}%" for accuracy, ratio in ratios.items() if ratio is not None]
    said = listed(known) if known else "not measured"
    return f"ACR of adaptive over that of fixed radii at equal accuracy, on straight lines between the points: {said}."


def figures(run: Run, largest: float, thresholds: list[float]) -> dict[str, Any]:
    """How many test images are right, and certified at each radius; ACR in % of the largest radius."""
    predictions, labels, found = (np.asarray(column) for column in columns(run))
    right = predictions == labels
    reached = {
        f"{radius:g}": int((right & (found >= radius)).sum()) for radius in [0.0, *sorted({*thresholds, largest})]
    }
    acr = 100 * average_certified_radius(predictions, labels, found) / largest
    return {"images": len(labels), "acr_percent": round(acr, 4), "right": reached}


def accuracy(network: Network) -> float:
    """In %."""
    return 100 * float(network["right"]["0"]) / float(network["images"])


def training(network: Network) -> str:
    """How it was trained, but for kappa and seed: the radii, after the loss if that is not the one of interval bounds."""
    if "loss" not in network:
        return str(network["kind"])
    return f"{network['loss']}, {network['kind']}, {LOSSES[network['loss']]} {network['strength']:g}"


def table(results: list[Network]) -> str:
    """Markdown: a row per network; % with 95% intervals over the images."""
    radii, searched = list(results[0]["right"]), "at" not in results[0]
    head = [
        "training", "kappa", "seed", "accuracy", *(f"certified at {radius}" for radius in radii[1:]),
        *["ACR, % of the largest radius"] * searched, "images",
    ]  # fmt: skip
    rows = [
        [training(r), f"{r['kappa']:g}", r["seed"], *(_share(r["right"][radius], r["images"]) for radius in radii), *([f"{r['acr_percent']:.1f}"] if searched else []), r["images"]]
        for r in results
    ]  # fmt: skip
    return markdown_table(head, rows)


def _share(count: int, images: int) -> str:
    low, high = interval([count], images, 0.95)
    return f"{100 * count / images:.1f} ({100 * low[0]:.1f}-{100 * high[0]:.1f})"


def ratio_at(results: list[Network], percent: float) -> float | None:
    """ACR with adaptive over ACR with fixed radii, both with the loss of interval bounds, at one accuracy in %: each mean over seeds, straight lines between the kappas; None outside."""
    found = []
    for kind in ("adaptive", "fixed"):
        some = [r for r in results if training(r) == kind]
        kappas = sorted({r["kappa"] for r in some})
        chosen = [[r for r in some if r["kappa"] == kappa] for kappa in kappas]
        reached = sorted(
            (sum(accuracy(r) for r in some) / len(some), sum(r["acr_percent"] for r in some) / len(some))
            for some in chosen
        )
        if not reached or not reached[0][0] <= percent <= reached[-1][0]:
            return None
        x, y = zip(*reached, strict=True)
        found.append(float(np.interp(percent, np.array(x), np.array(y))))
    return round(found[0] / found[1], 2) if found[1] else None


PUBLISHED = {
    "cifar10": {
        "adaptive, published (17M parameters)": [(0.6, 86.9), (1.9, 84.5), (20.3, 75.7), (28.0, 73.1), (31.8, 70.8), (38.0, 67.9), (41.2, 64.6), (41.8, 62.2)],
        "fixed, published (17M parameters)": [(3.8, 80.4), (8.4, 76.6), (35.4, 67.1), (40.7, 62.6), (42.3, 59.4), (43.0, 54.9), (41.5, 50.6), (41.2, 48.7)],
    }
}  # fmt: skip
"""(ACR in %, accuracy in %), read off the figures of arXiv 2307.13078 to about 0.3."""


def plot(results: list[Network], path: Path, published: str | None = None, floor_percent: float | None = None) -> None:
    """Accuracy with its 95% interval against ACR, a point per network, and the published curves in grey; a crowd of good ones is shown again, larger.

    Args:
        results: The networks.
        path: File to write.
        published: Data set whose published points are drawn.
        floor_percent: What one class for all images reaches: its accuracy, and in % of the largest radius its ACR.
    """
    best = max(accuracy(r) for r in results)
    crowd = [r for r in results if accuracy(r) > 0.9 * best]
    closer = 2 * len(crowd) > len(results)
    figure, grid = new_figure(5.2, 1, 2 if closer else 1)
    whole = grid[0, 0]
    shapes = dict(zip(sorted({_tradeoff(r) for r in results}), itertools.cycle(MARKERS), strict=False))
    _networks(whole, results, shapes)
    for number, (name, some) in enumerate(PUBLISHED.get(published or "", {}).items()):
        style = series(number) | {"color": "#777777"}
        whole.plot(*zip(*some, strict=True), markersize=4, linewidth=1, label=name, **style)
    if floor_percent is not None:
        whole.plot([floor_percent], [floor_percent], "+", color="#555555", markersize=9, label=FLOOR)
    whole.set(xlim=(0, None), ylim=(0, 100))
    if closer:
        panel = grid[0, 1]
        _networks(panel, crowd, shapes)
        low, high = np.floor(0.9 * best), np.ceil(best) + 1
        left, right = (edge(r["acr_percent"] for r in crowd) for edge in (min, max))
        panel.set(
            xlim=(np.floor(left) - 1, np.ceil(right) + 1), ylim=(low, high), title="the frame of the left, larger"
        )
        whole.indicate_inset(bounds=(*panel.get_xlim()[:1], low, np.ptp(panel.get_xlim()), high - low))
    for panel in grid.flatten():
        panel.set(xlabel="ACR, % of the largest radius", ylabel="accuracy, %, with 95% intervals over the images")
        panel.grid(alpha=0.3)
    legend_above(figure, whole, 3)
    save(figure, path)


def _tradeoff(network: Network) -> tuple[float, float]:
    """What traces the tradeoff of its loss: (strength, kappa)."""
    return network.get("strength", 0.0), network["kappa"]


def _networks(panel: Any, results: list[Network], shapes: dict[tuple[float, float], str]) -> None:
    """A marker for each: its shape is that of strength and kappa, its colour that of loss and radii, filled for adaptive radii and open for fixed ones."""
    colours = dict(zip(itertools.product(LOSSES, ("adaptive", "fixed")), itertools.cycle(COLOURS), strict=False))
    for (loss, kind), colour in colours.items():
        ours = [r for r in results if r.get("loss", "interval") == loss and r["kind"] == kind]
        for tradeoff, shape in shapes.items():
            some = [r for r in ours if _tradeoff(r) == tradeoff]
            if some:
                counts, images = [r["right"]["0"] for r in some], some[0]["images"]
                limits = [100 * limit for limit in interval(counts, images, 0.95)]
                x, y = [r["acr_percent"] for r in some], [accuracy(r) for r in some]
                fill = "full" if kind == "adaptive" else "none"
                style = {"color": colour, "marker": shape, "linestyle": "none", "fillstyle": fill}
                points(panel, x, y, *limits, label=f"{training(some[0])}, kappa {tradeoff[1]:g}", style=style)
