"""Which method or route certifies more than what it is compared with: tables of verdicts, each with its interval."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.studies.pages import markdown_table
from examples.studies.training_methods.plan import folder
from examples.studies.verdicts import MISSING, interval, listed, verdict
from hf_smoothing.statistics import Paired, paired_difference


__all__ = ["Measured", "gain", "interval", "methods", "routes"]

Seeds = dict[int, NDArray[np.float64]]
"""Certified radii of the images, by seed; -1 where the true class was not certified."""


class Measured:
    """The certified radii of the study."""

    def __init__(self, config: dict[str, Any], results: dict[str, dict[str, Any]]) -> None:
        self.config, self.results = config, results

    def method(self, name: str, sigma: float) -> Seeds:
        """Those of a method, by the seeds that are done."""
        return self._matching(rf"certify/{re.escape(folder(name))}/sigma{sigma}/seed(?P<seed>\d+)")

    def route(self, name: str, sigma: float) -> Seeds:
        """Those of a route; the first seed has no folder of its own."""
        return self._matching(rf"certify/{re.escape(folder(name))}(/seed(?P<seed>\d+))?/sigma{sigma}")

    def _matching(self, pattern: str) -> Seeds:
        found = ((re.fullmatch(pattern, stage), result) for stage, result in self.results.items())
        return {int(match["seed"] or 0): np.array(result["radii"]) for match, result in found if match}


def gain(one: Seeds, other: Seeds) -> Paired:
    """ACR of one minus that of the other, each the mean of its own seeds, paired over images."""
    return paired_difference(
        *(np.mean([np.maximum(radii, 0.0) for radii in side.values()], axis=0) for side in (one, other))
    )


def more_certified(one: Seeds, other: Seeds, radius: float) -> Paired:
    """The same of certified accuracy at a radius."""
    return paired_difference(*(np.mean([radii >= radius for radii in side.values()], axis=0) for side in (one, other)))


def methods(measured: Measured) -> str:
    """Each method beside plain noise training: ACR, and certified accuracy at no and at a large radius."""
    baseline, sigmas = measured.config["baseline"], measured.config["sigmas"]
    rows = []
    for name in (name for name in measured.config["methods"] if name != baseline):
        row: list[Any] = [name]
        for sigma in sigmas:
            one, other = measured.method(name, sigma), measured.method(baseline, sigma)
            if one and other:
                radii = (0.0, 2 * sigma)
                row += [
                    len(one),
                    verdict(gain(one, other)),
                    *(verdict(more_certified(one, other, r), 100.0) for r in radii),
                ]
            else:
                row += [0, *[MISSING] * 3]
        rows.append(row)
    head = ["method"]
    for sigma in sigmas:
        head += [f"seeds at sigma {sigma}", "ACR", "% at r = 0", f"% at r = {2 * sigma:g}"]
    spread = {
        sigma: [np.maximum(radii, 0.0).mean() for radii in measured.method(baseline, sigma).values()]
        for sigma in sigmas
    }
    apart = [f"{max(acr) - min(acr):.3f} at sigma {sigma}" for sigma, acr in spread.items() if len(acr) > 1]
    note = f"\n\nThe ACR of seeds of {baseline} alone differs by up to {listed(apart)}." if apart else ""
    return markdown_table(head, rows) + note


COMPARED = (
    ("denoiser, MSE", "the classifier alone"),
    ("denoiser, then stability", "denoiser, MSE"),
    ("LoRA", "denoiser, then stability"),
    ("masked denoising", "the same transformer from scratch"),
)
"""Routes, each with what it should improve on."""


def routes(measured: Measured) -> str:
    """Each route beside the one that it should improve on; LoRA and the ensemble beside plain noise training, and what plain noise seeds differ by."""
    baseline, sigmas = measured.config["baseline"], measured.config["sigmas"]
    noise = {sigma: measured.method(baseline, sigma) for sigma in sigmas}
    pairs = [
        (one, other, {s: (measured.route(one, s), measured.route(other, s)) for s in sigmas})
        for one, other in COMPARED
    ]
    for name, other in (("LoRA", f"{baseline}, whole network"), ("ensemble", "its members, on average")):
        pairs.append((name, other, {s: (measured.route(name, s), noise[s]) for s in sigmas}))
    rows = [
        [one, other, *(verdict(gain(*sides[s])) if all(sides[s]) else MISSING for s in sigmas)]
        for one, other, sides in pairs
        if any(all(sides[s]) for s in sigmas)
    ]
    return markdown_table(["route", "compared with", *(f"ACR at sigma {sigma}" for sigma in sigmas)], rows)
