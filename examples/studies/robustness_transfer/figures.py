"""The picture of the study: accuracy under attack against the radius."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from examples.studies.robustness_transfer.curves import Records
from examples.studies.robustness_transfer.plan import NONE


def draw(records: Records, target: str, ways: list[str], file: Path) -> None:
    """A panel per way of finetuning, a line per pretraining: mean over the seeds that are done."""
    epsilons = 255 * np.array(records.config["attack"]["epsilons"]["linf"])
    figure = Figure(figsize=(4.2 * len(ways) + 1.2, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(ways), sharey=True, squeeze=False)[0]
    for panel, way in zip(panels, ways, strict=True):
        for number, pretraining in enumerate([NONE, *records.config["pretraining"]["kinds"]]):
            seeds = records.seeds((pretraining, way), target=target)
            if seeds:
                curves = [records.curve(target, pretraining, way, seed, "linf").mean(1) for seed in seeds]  # type: ignore[union-attr]
                panel.plot(epsilons, 100 * np.mean(curves, axis=0), "o-", color=f"C{number}", markersize=4)
        panel.set(title=way, xlabel="l-infinity radius, 1/255")
        panel.grid(alpha=0.3)
    for number, pretraining in enumerate([NONE, *records.config["pretraining"]["kinds"]]):
        panels[0].plot([], [], "o-", color=f"C{number}", label=pretraining)
    panels[0].set(ylabel="accuracy, %")
    figure.legend(loc="outside right center", title="pretrained on")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
