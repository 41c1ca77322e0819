"""The pictures of the report of an analysis, as matplotlib figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_smoothing.robustness_transfer.findings import Robustness
from hf_smoothing.robustness_transfer.records import Key, Records, pair_of


COLOURS = {"pretrained": "tab:green", "finetuned": "tab:blue", "standard": "tab:orange"}
KINDS = {"clean": "clean images", "attacked": "attacked images", "universal": "universally perturbed images"}


def robustness(found: Sequence[Robustness]) -> Any:
    """Accuracy against the radius, one row per norm and one column per attack."""
    norms = list(dict.fromkeys(one.norm for one in found))
    attacks = list(dict.fromkeys(one.attack for one in found))
    figure, axes = _figure(len(norms), len(attacks))
    for one in found:
        ax = axes[norms.index(one.norm)][attacks.index(one.attack)]
        scale = 255.0 if one.norm == "linf" else 1.0
        x = [epsilon * scale for epsilon in one.epsilons]
        for role, rows in one.accuracy.items():
            values = np.array(rows) * 100
            ax.plot(x, values[:, 0], "o-", color=COLOURS[role], markersize=3, label=role)
            ax.fill_between(x, values[:, 1], values[:, 2], color=COLOURS[role], alpha=0.15)
        ax.set(
            title=f"{one.attack}, {one.norm}",
            ylim=(0, 100),
            xlabel="radius" + (" x 255" if scale > 1 else ""),
            ylabel="accuracy, %",
        )
        ax.grid(alpha=0.3)
    axes[0][0].legend(fontsize=8)
    return figure


def similarity(records: Records) -> Any:
    """Linear CKA between the layers of each pair of networks, one row per pair and one column per kind of images."""
    pairs = list(dict.fromkeys(pair for kind in KINDS for pair in records.get(Key("similarity", kind), {})))
    figure, axes = _figure(len(pairs), len(KINDS), width=3.4, height=3.2)
    for i, pair in enumerate(pairs):
        for j, kind in enumerate(KINDS):
            ax, record = axes[i][j], records.get(Key("similarity", kind), {}).get(pair)
            if record is None:
                ax.set_axis_off()
                continue
            values = np.array(record["cka"])
            ax.imshow(values, vmin=0, vmax=1, cmap="magma", origin="lower")
            for (y, x), value in np.ndenumerate(values):
                if values.size <= 64:
                    colour = "white" if value < 0.6 else "black"
                    ax.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
            first, second = pair_of(pair)
            ticks = {"xticks": range(values.shape[1]), "yticks": range(values.shape[0])}
            ax.set(title=KINDS[kind], xlabel=second, ylabel=first, **ticks)
            if values.shape[1] <= 8:
                ax.set_xticklabels([_short(n) for n in record["columns"]], fontsize=7)
                ax.set_yticklabels([_short(n) for n in record["rows"]], fontsize=7)
    return figure


def frequency(records: Records) -> Any:
    """Accuracy and confidence on low and high frequencies."""
    figure, axes = _figure(2, 2, width=4.2)
    for role in COLOURS:
        record = records.get(Key("frequency", role))
        if record is None:
            continue
        for j, part in enumerate(("low", "high")):
            x = [entry["radius"] for entry in record[part]]
            for i, values in enumerate(
                (
                    [100 * e["right"].count("1") / len(e["right"]) for e in record[part]],
                    [100 * e["confidence"] for e in record[part]],
                )
            ):
                axes[i][j].plot(x, values, "o-", color=COLOURS[role], markersize=3, label=role)
                side = "up to" if part == "low" else "above"
                axes[i][j].set(
                    title=f"{part} frequencies",
                    xlabel=f"kept: {side} this many cycles per image",
                    ylabel=("accuracy, %", "confidence, %")[i],
                    ylim=(0, 100),
                )
                axes[i][j].grid(alpha=0.3)
    axes[0][0].legend(fontsize=8)
    return figure


def _short(name: str) -> str:
    last = name.rsplit(".", 1)[-1]
    return f"block {last}" if last.isdigit() else last


def _figure(rows: int, columns: int, width: float = 3.2, height: float = 2.6) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)
