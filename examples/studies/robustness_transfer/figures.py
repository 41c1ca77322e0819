"""The picture of the study: accuracy under attack at each radius."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from examples.studies.figures import mean_interval
from examples.studies.robustness_transfer.curves import Records
from examples.studies.robustness_transfer.plan import NONE
from hf_smoothing.drawing import floor, legend_above, new_figure, points, save, series, shifts


def draw(records: Records, target: str, ways: list[str], floor_percent: float | None, file: Path) -> None:
    """A panel per way of finetuning, a series per pretraining: mean over the seeds that are done.

    Args:
        records: Of the study.
        target: Name of the data set.
        ways: The ways of finetuning to show.
        floor_percent: What one class for all images reaches, if it is known.
        file: File to write.
    """
    epsilons = 255 * np.array(records.config["attack"]["epsilons"]["linf"])
    kinds = [NONE, *records.config["pretraining"]["kinds"]]
    figure, grid = new_figure(0.9 + 2.3 * len(ways), len(ways), sharex=True, sharey=True)
    most = 0
    for panel, way in zip(grid[:, 0], ways, strict=True):
        found = {kind: records.seeds((kind, way), target=target) for kind in kinds}
        counts = {len(seeds) for seeds in found.values() if seeds}
        for number, (kind, seeds) in enumerate(found.items()):
            if seeds:
                right = np.array([records.known(target, (kind, way), seed).T for seed in seeds])
                shift = shifts(len(kinds), epsilons)[number]
                points(panel, epsilons, *mean_interval(right), label=kind, style=series(number), shift=shift)
        if floor_percent is not None:
            floor(panel, floor_percent)
        several = " to ".join(map(str, sorted(counts)))
        panel.set_title(f"{way}, {'one seed' if counts == {1} else f'mean of {several} seeds'}", fontsize=10)
        panel.set(ylim=(0, None))
        panel.grid(alpha=0.3)
        panel.tick_params(labelbottom=True)
        if len(panel.containers) > most:  # the panel with the most series names them all
            most, fullest = len(panel.containers), panel
    figure.supxlabel(
        "l-infinity radius of the attack, 1/255; markers at the attacked radii, side by side", fontsize=10
    )
    figure.supylabel("accuracy under attack, %, with 95% intervals over the images", fontsize=10)
    if most:
        legend_above(figure, fullest, 5, "pretrained on")
    save(figure, file)
