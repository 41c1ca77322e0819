"""The pictures of the report of an analysis, as matplotlib figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_smoothing.drawing import legend_above, new_figure, plain, points, series, shifts
from hf_smoothing.robustness_transfer.findings import Robustness
from hf_smoothing.robustness_transfer.records import Key, Records, pair_of
from hf_smoothing.robustness_transfer.settings import ROLES
from hf_smoothing.statistics import interval


KINDS = {"clean": "clean images", "attacked": "attacked images", "universal": "universally perturbed images"}


def robustness(found: Sequence[Robustness]) -> Any:
    """Accuracy against the radius, one row per norm and one column per attack."""
    norms = list(dict.fromkeys(one.norm for one in found))
    attacks = list(dict.fromkeys(one.attack for one in found))
    figure, panels = new_figure(0.6 + 2.6 * len(norms), len(norms), len(attacks))
    for one in found:
        panel = panels[norms.index(one.norm), attacks.index(one.attack)]
        scale = 255.0 if one.norm == "linf" else 1.0
        x = [epsilon * scale for epsilon in one.epsilons]
        roles = [role for role in ROLES if role in one.accuracy]
        for role, shift in zip(roles, shifts(len(roles), x), strict=True):
            _points(panel, x, 100 * np.array(one.accuracy[role]).T, role, float(shift))
        unit = "1/255" if scale > 1 else "[0, 1] pixel units"
        panel.set(title=f"{one.attack}, {one.norm}", ylim=(0, 100), xlabel=f"radius, {unit}", ylabel="accuracy, %")
        panel.grid(alpha=0.3)
    legend_above(figure, panels[0, 0], len(ROLES))
    return figure


def similarity(records: Records) -> Any:
    """Linear CKA between the layers of each pair of networks, one row per pair and one column per kind of images."""
    pairs = list(dict.fromkeys(pair for kind in KINDS for pair in records.get(Key("similarity", kind), {})))
    figure, axes = new_figure(2.9 * len(pairs), len(pairs), len(KINDS))
    for i, pair in enumerate(pairs):
        for j, kind in enumerate(KINDS):
            ax, record = axes[i, j], records.get(Key("similarity", kind), {}).get(pair)
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
            ax.set(title=KINDS[kind], xlabel=plain(second), ylabel=plain(first), **ticks)
            if values.shape[1] <= 8:
                ax.set_xticklabels([_short(n) for n in record["columns"]], fontsize=7)
                ax.set_yticklabels([_short(n) for n in record["rows"]], fontsize=7)
    return figure


def frequency(records: Records) -> Any:
    """Accuracy with its interval, and mean confidence, on low and high frequencies."""
    figure, panels = new_figure(5.6, 2, 2)
    found = {role: record for role in ROLES if (record := records.get(Key("frequency", role))) is not None}
    for j, part in enumerate(("low", "high")):
        accuracies, confidences = panels[:, j]
        for role, record in found.items():
            x = [entry["radius"] for entry in record[part]]
            count, images = [entry["right"].count("1") for entry in record[part]], len(record[part][0]["right"])
            shift = float(shifts(len(found), x)[list(found).index(role)])
            shares = np.array([np.array(count) / images, *interval(count, images, 0.95)])
            _points(accuracies, x, 100 * shares, role, shift)
            confidence = 100 * np.array([entry["confidence"] for entry in record[part]])
            _points(confidences, x, [confidence] * 3, role, shift)
        for panel, shown in ((accuracies, "accuracy, %"), (confidences, "mean confidence, %")):
            side = "up to" if part == "low" else "above"
            kept = f"kept: {side} this many cycles per image"
            panel.set(title=f"{part} frequencies", xlabel=kept, ylabel=shown, ylim=(0, 100))
            panel.grid(alpha=0.3)
    legend_above(figure, panels[0, 0], len(ROLES))
    return figure


def _points(panel: Any, x: Any, shares: Any, role: str, shift: float) -> None:
    """A role's values (value, lower and upper limit) in its own style."""
    points(panel, x, *shares, label=role, style=series(ROLES.index(role)), shift=shift)


def _short(name: str) -> str:
    last = name.rsplit(".", 1)[-1]
    return f"block {last}" if last.isdigit() else plain(last)
