"""The pictures of the report of an analysis, as matplotlib figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_smoothing.drawing import legend_above, new_figure, plain, points, series, shifts
from hf_smoothing.robustness_transfer.findings import Robustness, decimals
from hf_smoothing.robustness_transfer.records import Key, Records, pair_of
from hf_smoothing.robustness_transfer.settings import ROLES
from hf_smoothing.statistics import interval


NAMES = 8
"""Layers up to which an axis has room for their names, and the cells for numbers."""
HEADS = ("classifier", "head", "fc", "score")
"""Usual names of what comes after the blocks, which may be a list itself."""
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
        moved = shifts(len(roles), x)
        for role, shift in zip(roles, moved, strict=True):
            _points(panel, x, 100 * np.array(one.accuracy[role]).T, role, float(shift), float(abs(moved).max()))
        unit = "1/255" if scale > 1 else "[0, 1] pixel units"
        label = f"radius,{' ' if len(attacks) < 3 else chr(10)}{unit}"  # a narrow panel has no room for one line
        panel.set(title=f"{one.attack}, {one.norm}", ylim=(0, 100), xlabel=label)
        if attacks.index(one.attack) == 0:
            panel.set_ylabel("accuracy, %")
        panel.grid(alpha=0.3)
    legend_above(figure, panels[0, 0], len(ROLES))
    return figure


def similarity(records: Records) -> Any:
    """Linear CKA between the layers of each pair of networks, one row per pair and one column per kind of images.

    Maps of few layers show their numbers, the others have one colour bar.
    """
    pairs = list(dict.fromkeys(pair for kind in KINDS for pair in records.get(Key("similarity", kind), {})))
    figure, axes = new_figure(2.9 * len(pairs), len(pairs), len(KINDS))
    without_numbers = None
    for i, pair in enumerate(pairs):
        for j, kind in enumerate(KINDS):
            ax, record = axes[i, j], records.get(Key("similarity", kind), {}).get(pair)
            if record is None:
                ax.set_axis_off()
                continue
            values = np.array(record["cka"])
            shown = ax.imshow(values, vmin=0, vmax=1, cmap="magma", origin="lower", aspect="auto")
            ax.set_box_aspect(1)  # not a strip where one network has many more layers
            if max(values.shape) > NAMES:
                without_numbers = shown
            else:
                for (y, x), value in np.ndenumerate(values):
                    look = {"color": "white" if value < 0.6 else "black", "fontsize": 7 if values.shape[1] < 7 else 6}
                    ax.text(x, y, decimals(value), ha="center", va="center", **look)
            first, second = pair_of(pair)
            ax.set_title(KINDS[kind], fontsize=9)
            _name_layers(
                ax.xaxis, second, record["columns"], rotation=90 if 3 < len(record["columns"]) <= NAMES else 0
            )
            # The maps of a row have the same layers; the first has their names.
            _name_layers(ax.yaxis, first, record["rows"])
            if any(one.axison and one.get_ylabel() for one in axes[i, :j]):
                ax.set(yticklabels=[], ylabel="")
    if without_numbers is not None:
        figure.colorbar(
            without_numbers, ax=axes, label="linear CKA", shrink=min(1.0, 0.3 + 0.4 / len(pairs)), aspect=30
        )
    return figure


def _name_layers(axis: Any, role: str, layers: Sequence[str], rotation: int = 0) -> None:
    """Few layers have their names, more of them every k-th its number, from 0."""
    if len(layers) <= NAMES:
        axis.set_ticks(range(len(layers)), [_short(name) for name in layers], fontsize=7, rotation=rotation)
        axis.set_label_text(plain(role))
    else:
        axis.set_ticks(range(0, len(layers), -(-len(layers) // NAMES)))
        axis.set_label_text(f"{plain(role)}, layer")


def frequency(records: Records) -> Any:
    """Accuracy with its interval, and mean confidence, on low and high frequencies."""
    figure, panels = new_figure(5.6, 2, 2)
    found = {role: record for role in ROLES if (record := records.get(Key("frequency", role))) is not None}
    for j, part in enumerate(("low", "high")):
        accuracies, confidences = panels[:, j]
        for role, record in found.items():
            x = [entry["radius"] for entry in record[part]]
            count, images = [entry["right"].count("1") for entry in record[part]], len(record[part][0]["right"])
            moved = shifts(len(found), x)
            shift, reach = float(moved[list(found).index(role)]), float(abs(moved).max())
            shares = np.array([np.array(count) / images, *interval(count, images, 0.95)])
            _points(accuracies, x, 100 * shares, role, shift, reach)
            confidence = 100 * np.array([entry["confidence"] for entry in record[part]])
            _points(confidences, x, [confidence] * 3, role, shift, reach)
        for panel, shown in ((accuracies, "accuracy, %"), (confidences, "mean confidence, %")):
            side = "up to" if part == "low" else "above"
            kept = f"kept: {side} this many cycles per image"
            panel.set(title=f"{part} frequencies", xlabel=kept, ylabel=shown, ylim=(0, 100))
            panel.grid(alpha=0.3)
    legend_above(figure, panels[0, 0], len(ROLES))
    return figure


def _points(panel: Any, x: Any, shares: Any, role: str, shift: float, reach: float) -> None:
    """A role's values (value, lower and upper limit) in its own style."""
    points(panel, x, *shares, label=role, style=series(ROLES.index(role)), shift=shift, reach=reach)


def _short(name: str) -> str:
    """The end of a layer's name: its number, or numbers where stages are lists of blocks.

    >>> _short("vit.layers.3"), _short("pvt.encoder.block.1.2"), _short("pvt.encoder.patch_embeddings.0"), _short("resnet.embedder")
    ('block 3', 'block 1.2', 'patch_embeddings', 'embedder')
    >>> _short("base_network.classifier.1"), _short("1"), _short("h.10.mlp")
    ('classifier.1', 'block 1', 'mlp')
    """
    parts = name.split(".")
    words = [place for place, part in enumerate(parts) if not part.isdigit()]
    last = parts[words[-1]] if words else "block"
    numbers = ".".join(parts[words[-1] + 1 if words else 0 :])
    if not numbers or "embed" in last:
        return plain(last)
    return f"{plain(last)}.{numbers}" if last in HEADS else f"block {numbers}"
