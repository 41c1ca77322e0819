"""What must be said of the figures of a run: which radii it was asked for and tested, and what lies under its table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from hf_smoothing import statistics
from hf_smoothing.records import Run
from hf_smoothing.records.rows import ceiling
from hf_smoothing.statistics import DEFAULT_RADII, exact_text
from hf_smoothing.units import diameter


def norm_of(settings: Mapping[str, Any]) -> str:
    """The norm of a run's radii; l2 where it does not say, as a published log."""
    return str(settings.get("norm", "l2"))


def default_thresholds(runs: Iterable[Run]) -> list[float]:
    """What a table shows by default: all target radii of the runs, every fifth of a curve, quarters of the largest radius looked for, or the usual ones."""
    runs = list(runs)
    rules = [run.settings.get("rule", {}) for run in runs]
    targets = {r for run in runs for r in _shown(run.settings)}
    targets |= {
        rule["largest"] if k == 4 else float(f"{rule['largest'] * k / 4:.10g}")
        for rule in rules
        if "largest" in rule
        for k in range(5)
    }
    return sorted(targets) or list(DEFAULT_RADII)


def _shown(settings: dict[str, Any]) -> list[float]:
    """The target radii that a table has room for: all that somebody chose, of a curve every fifth."""
    targets = [float(radius) for radius in settings.get("rule", {}).get("targets", ())]
    return targets[::5] if _is_curve(settings) else targets


def _is_curve(settings: dict[str, Any]) -> bool:
    """Whether the targets are those of mode "curve": all of its grid that the rule can certify, and no beginning of it that somebody chose."""
    rule = settings.get("rule", {})
    sigma, alpha, n = settings.get("sigma"), settings.get("alpha"), rule.get("n")
    if "targets" not in rule or sigma is None or alpha is None or n is None:
        return False
    level = statistics.sequential_level(alpha, rule.get("n0", 0), settings.get("label_aware", False))
    shape = settings.get("resolution")
    farthest = diameter(shape) if shape else math.inf
    curve = statistics.default_targets(sigma, n, level, curve=True)
    # With few draws a curve is the radius 0 alone, as other targets may be.
    return len(rule["targets"]) > 1 and list(rule["targets"]) == [radius for radius in curve if radius <= farthest]


def chosen_targets(settings: dict[str, Any]) -> list[float] | None:
    """The radii between which a run decided nothing; None where its curve holds at all radii, as in mode curve or fixed.

    Targets that the run cannot certify were not tested, and are left out.
    """
    targets = settings.get("rule", {}).get("targets")
    if targets is None or _is_curve(settings):
        return None
    return [float(radius) for radius in targets if radius <= ceiling(settings)]


def note(settings: dict[str, Any]) -> str:
    """What a table must say about the figures of a run, beside what the caption says; empty where there is nothing."""
    rule = settings.get("rule", {})
    if "largest" in rule:
        return f"No radius above {exact_text(rule['largest'])} was looked for, which limits the ACR as well."
    if rule.get("name") == "published log" and settings.get("sigma") is None:
        return "- sigma unknown: put it into the path of the log, such as sigma_1.0/log.tsv."
    if "targets" not in rule:
        return ""
    aware, spending = settings.get("label_aware"), "spending" in str(rule.get("name"))
    if _is_curve(settings):
        last = exact_text(rule["targets"][-1])
        text = (
            f"† Draws stopped when every radius of the curve, each sigma/10 = {exact_text(round(settings['sigma'] / 10, 12))} up to {last}, was decided. Between "
            f"them, beyond the last, and on average (ACR), slightly more might be certified"
        )
        cure = "by targets of your own (targets)" if aware else "by mode fixed"
        return f"{text}: {cure}."
    text = "† Draws stopped when the targets of a run were decided. At other radii, and on average (ACR), more might be certified"
    if spending:
        text += ", since the radius of an image is its largest certified target"
    return f"{text}: use mode curve{'' if aware else ' or fixed'} to measure those."


def enlarged(run: Run) -> str:
    """What must be said where images were enlarged before the noise, which makes l2 radii larger; empty where none was, or none is known."""
    found = run.settings.get("informative", {}).get("enlarged")
    if found is None or norm_of(run.settings) != "l2":
        return ""
    least = "" if run.finished else "At least "  # an unfinished run has read some of its images
    count, of = found["images"], run.images_asked or len(run.rows)
    height, width = found["smallest"]
    return (
        f"{least}{count} of {of} images {'was' if count == 1 else 'were'} enlarged before the noise was added (the smallest was {height} x {width}): an l2 "
        "distance, and so a radius, is larger there than between the images as they came."
    )


def tested_up_to(settings: dict[str, Any]) -> float:
    """The largest radius of which a run says anything: what it can certify, and no more than its largest target where it drew for targets."""
    targets, reach = chosen_targets(settings), ceiling(settings)
    return reach if targets is None else min(reach, max(targets, default=0.0))


def beyond(settings: dict[str, Any], thresholds: Iterable[float]) -> str:
    """What a table must say where a run did not test one of its radii; empty where it tested all."""
    radii, tested, reach = list(thresholds), tested_up_to(settings), ceiling(settings)
    sigma = "" if settings.get("sigma") is None else f" at sigma {exact_text(settings['sigma'])}"
    why = []
    if any(tested < radius <= reach for radius in radii):
        why.append(f"{exact_text(tested)} is the largest target{sigma}")
    if max(radii) > reach:
        why.append(
            f"the largest radius that this run can certify{sigma} is {statistics.radius_text(reach, norm_of(settings))}"
        )
    return f"- Not tested: {'; '.join(why)}." if why else ""
