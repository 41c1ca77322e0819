"""Fronts of clean against certified accuracy: one point per network, chosen on held-out images, and the area that each method's front dominates.

A comparison of single configurations depends on which ones were picked. So each method (a loss, with adaptive or fixed radii) is asked
for its whole front: those of its networks that no other of its networks beats in both accuracies, on held-out training images. On test
images the front is worth its hypervolume, the share of the unit square (reference point: both accuracies 0) that some point of it
dominates. Intervals are over test images, by bootstrap of the images, which all methods share.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.studies.certified_networks import LOSSES
from examples.studies.pages import markdown_table
from examples.studies.verdicts import interval as interval_text
from examples.studies.verdicts import word
from hf_smoothing.drawing import legend_above, new_figure, plain, save, series
from hf_smoothing.records import Run
from hf_smoothing.reports import columns
from hf_smoothing.statistics import Paired


RESAMPLES, SEED, CONFIDENCE = 4_000, 0, 0.95

PUBLISHED = {
    "mnist 0.3": {"CROWN-IBP": [(97.9, 93.2)], "MTL-IBP": [(98.7, 92.2)]},
    "cifar10 0.0078431": {
        "IBP": [(75.3, 54.3), (69.2, 56.0)],
        "CROWN-IBP": [(79.5, 54.1), (76.3, 60.9)],
        "SABR": [(83.1, 60.0), (79.9, 64.5)],
        "MTL-IBP": [(81.5, 62.8), (79.1, 64.6)],
    },
    "cifar10 0.0313725": {"IBP": [(62.2, 28.3), (51.0, 35.4)], "MTL-IBP": [(58.8, 32.6), (51.9, 35.7)]},
}
"""(clean, certified accuracy) in % of CNN-7 of width 64 on 10,000 images with complete verification, 1,000 s an image: the tables of CTRAIN, ICML 2026."""


def published(dataset: str, radius: float) -> str | None:
    """The key of `PUBLISHED` for a data set (its name or folder) and a radius, if it has one."""
    key = f"{Path(dataset).name} {radius:g}"
    return key if key in PUBLISHED else None


def packed(run: Run, radius: float) -> dict[str, Any]:
    """Which images are right, and which certified at a radius as well: a bit for each, in the order of the rows, as hexadecimal digits."""
    predictions, labels, radii = (np.asarray(column) for column in columns(run))
    right = predictions == labels
    return {
        "images": len(labels),
        "right": np.packbits(right).tobytes().hex(),
        "certified": np.packbits(right & (radii >= radius)).tobytes().hex(),
    }


def unpacked(some: dict[str, Any]) -> NDArray[np.bool_]:
    """The bits of `packed`: (2, images), right and certified."""
    bits = [np.frombuffer(bytes.fromhex(some[name]), np.uint8) for name in ("right", "certified")]
    return np.stack([np.unpackbits(one)[: some["images"]] for one in bits]).astype(bool)


def on_front(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points (k, 2) no other point beats: none is at least as large in both and larger in one.

    >>> on_front(np.array([[1.0, 3.0], [2.0, 2.0], [1.0, 2.0]])).tolist()
    [True, True, False]
    """
    at_least = np.all(points[None] >= points[:, None], axis=2)
    larger = np.any(points[None] > points[:, None], axis=2)
    return np.asarray(~np.any(at_least & larger, axis=1))


def hypervolume(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The area that points (..., k, 2) dominate, from (0, 0): the union of their rectangles, (...).

    >>> float(hypervolume(np.array([[0.5, 1.0], [1.0, 0.5]])))
    0.75
    """
    order = np.argsort(-points[..., 0], axis=-1)[..., None]
    x, y = np.moveaxis(np.take_along_axis(points, np.broadcast_to(order, points.shape), -2), -1, 0)
    reached = np.maximum.accumulate(y, axis=-1)  # the highest of those at least so far to the right
    before = np.concatenate([np.zeros_like(reached[..., :1]), reached[..., :-1]], -1)
    return np.asarray((x * (reached - before)).sum(-1))


def method_of(network: dict[str, Any]) -> str:
    """The loss and the radii, whatever traces the tradeoff."""
    loss = {"interval": "IBP"}.get(
        network.get("loss", "interval"), network.get("loss", "").upper().replace("EXP", "Exp")
    )
    return f"{loss}, {network['kind']}"


def fronts(networks: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By method: its networks on the front of held-out images, "hypervolume" on test images and its bootstrap "resamples", mean over seeds.

    Args:
        networks: Each with its "seed" and the `packed` bits of "held_out" and "test" images.
    """
    images = networks[0]["test"]["images"]
    counts = np.random.default_rng(SEED).multinomial(images, np.full(images, 1 / images), RESAMPLES) / images
    weights = np.concatenate([np.full((1, images), 1 / images), counts])
    found: dict[str, dict[str, Any]] = {}
    for method, some in _grouped(networks):
        areas, chosen = [], []
        for seed in sorted({network["seed"] for network in some}):
            ours = [network for network in some if network["seed"] == seed]
            held_out = np.stack([unpacked(network["held_out"]).mean(1) for network in ours])
            members = [network for network, best in zip(ours, on_front(held_out), strict=True) if best]
            test = np.stack([unpacked(network["test"]) for network in members]).astype(np.float64)
            areas.append(hypervolume(np.einsum("wi,kai->wka", weights, test)))
            chosen += members
        area = np.mean(areas, axis=0)
        found[method] = {"chosen": chosen, "hypervolume": float(area[0]), "resamples": area[1:]}
    return found


def _grouped(networks: Sequence[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    order = [f"{loss}, {kind}" for loss, kind in itertools.product(LOSSES, ("adaptive", "fixed"))]
    ranked = sorted(networks, key=lambda n: order.index(f"{n.get('loss', 'interval')}, {n['kind']}"))
    return [(method, list(some)) for method, some in itertools.groupby(ranked, method_of)]


def difference(first: dict[str, Any], second: dict[str, Any], images: int) -> Paired:
    """Of two hypervolumes of `fronts`, with its interval over images."""
    low, high = np.quantile(first["resamples"] - second["resamples"], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Paired(first["hypervolume"] - second["hypervolume"], float(low), float(high), float("nan"), images)


def texts(networks: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Markdown: "fronts", a row per method, and of several methods "front pairs", a verdict for each pair of them."""
    found, images = fronts(networks), networks[0]["test"]["images"]
    rows = []
    for method, front in found.items():
        low, high = 100 * np.quantile(front["resamples"], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        ends = [
            f"{100 * right / images:.1f}/{100 * certified / images:.1f}"
            for right, certified in sorted(unpacked(n["test"]).sum(1).tolist() for n in front["chosen"])
        ]
        seeds = len({n["seed"] for n in front["chosen"]})
        rows.append([method, ", ".join(ends), f"{100 * front['hypervolume']:.1f} ({low:.1f}-{high:.1f})", seeds])
    pairs = []
    for one, other in itertools.combinations(found, 2):
        compared = difference(found[one], found[other], images)
        pairs.append([one, other, f"{word(compared)}, {interval_text(compared, 100.0)}"])
    tables = {"fronts": markdown_table(["method", "front: clean/certified, %", "hypervolume, %", "seeds"], rows)}
    if pairs:
        tables["front pairs"] = markdown_table(["hypervolume of", "against", "verdict, points"], pairs)
    return tables


def schedule(arguments: dict[str, Any]) -> dict[str, Any]:
    """How long the networks of a record were trained: epochs, and the network that they went on from, if any, by the name of its folder."""
    start = arguments.get("start_from")
    return {"epochs": arguments["epochs"]} | ({} if start is None else {"start_from": Path(start).name})


def listed_points(networks: Sequence[dict[str, Any]], arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """All networks as plain points: method, clean and certified accuracy in %, the bounds that certified, width and schedule of the network, images."""
    return [
        {
            "method": method_of(network), "tradeoff": network.get("strength", network["kappa"]), "seed": network["seed"],
            "clean": round(100 * float(right), 2), "certified": round(100 * float(certified), 2),
            "bound": network["backward"], "width": arguments["width"], **schedule(arguments), "images": network["test"]["images"],
        }
        for network in networks
        for right, certified in [unpacked(network["test"]).mean(1)]
    ]  # fmt: skip


def plot(networks: Sequence[dict[str, Any]], path: Path, radius: float, known: str | None = None) -> None:
    """Clean against certified accuracy: all networks small, each method's front as a staircase, published points in grey.

    Args:
        networks: As in `fronts`.
        path: File to write.
        radius: Radius at which is certified.
        known: A key of `PUBLISHED`.
    """
    figure, grid = new_figure(5.2)
    panel = grid[0, 0]
    for number, (method, front) in enumerate(fronts(networks).items()):
        style = series(number) | {"fillstyle": "full" if method.endswith("adaptive") else "none"}
        every = np.array([100 * unpacked(n["test"]).mean(1) for n in networks if method_of(n) == method])
        panel.plot(every[:, 1], every[:, 0], label=f"_{method}", markersize=4, **style | {"linestyle": "none"})
        for seed in sorted({n["seed"] for n in front["chosen"]}):
            members = [n for n in front["chosen"] if n["seed"] == seed]
            test = np.array(sorted((100 * unpacked(n["test"]).mean(1) for n in members), key=lambda one: one[1]))
            first = seed == front["chosen"][0]["seed"]
            label = f"{plain(method)} ({100 * front['hypervolume']:.1f}%)" if first else f"_{method} {seed}"
            panel.step(test[:, 1], test[:, 0], where="pre", label=label, linewidth=1.0, markersize=7, **style)
    for number, (name, some) in enumerate(PUBLISHED.get(known or "", {}).items()):
        clean, certified = zip(*some, strict=True)
        label = f"{plain(name)}, published (width 64)"
        panel.plot(certified, clean, label=label, markersize=5, linewidth=0.8, **series(number) | {"color": "#777777"})
    panel.set(xlabel=f"certified at {radius:.4g}, %", ylabel="accuracy, %")
    panel.grid(alpha=0.3)
    legend_above(figure, panel, 3, "hypervolume from (0, 0)")
    save(figure, path)
