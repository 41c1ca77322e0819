"""Of which radii a run says anything: the one answer that table, curve, histogram, card and remarks share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hf_smoothing import statistics
from hf_smoothing.records.rows import ceiling
from hf_smoothing.units import diameter


@dataclass(frozen=True)
class Tested:
    """What a run looked for. Past `up_to` its rows are silent, and certified accuracy there is no 0 but unknown.

    Attributes:
        ceiling: The largest radius that the run can certify: of interval bounds the largest that was looked for; inf where its settings do not say, as of a
            published log.
        targets: Radii at which its draws stopped, those above the ceiling left out; None where every image has the largest radius that the run can give it.
        whole_curve: Whether the targets are those of mode "curve": all of its grid that the rule can certify, and no beginning of it that somebody chose.
    """

    ceiling: float
    targets: tuple[float, ...] | None = None
    whole_curve: bool = False

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Tested:
        """That of a run, from its settings."""
        reach, targets = ceiling(settings), settings.get("rule", {}).get("targets")
        if targets is None:
            return cls(reach)
        return cls(reach, tuple(float(radius) for radius in targets if radius <= reach), _is_curve(settings))

    @property
    def up_to(self) -> float:
        """The largest radius of which the run says anything."""
        return self.ceiling if self.targets is None else max(self.targets, default=0.0)

    @property
    def chosen(self) -> tuple[float, ...] | None:
        """The radii between which nothing was decided; None where a curve holds, as in mode curve or fixed."""
        return None if self.whole_curve else self.targets

    def decided(self, radius: float) -> bool:
        """Whether this radius was certified or given up in each image; at others up to `up_to` more might be certified."""
        return radius <= self.up_to and (self.targets is None or radius in self.targets)


def _is_curve(settings: Mapping[str, Any]) -> bool:
    rule = settings["rule"]
    sigma, alpha, n = settings.get("sigma"), settings.get("alpha"), rule.get("n")
    if sigma is None or alpha is None or n is None:
        return False
    level = statistics.sequential_level(alpha, rule.get("n0", 0), settings.get("label_aware", False))
    shape = settings.get("resolution")
    farthest = diameter(shape) if shape else math.inf
    curve = statistics.default_targets(sigma, n, level, curve=True)
    # With few draws a curve is the radius 0 alone, as other targets may be.
    return len(rule["targets"]) > 1 and list(rule["targets"]) == [radius for radius in curve if radius <= farthest]
