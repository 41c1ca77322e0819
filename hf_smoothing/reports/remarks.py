"""What must be said of the figures of runs: the radii of a table, and what lies under it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hf_smoothing import statistics
from hf_smoothing.records import Run
from hf_smoothing.reports.tested import Tested
from hf_smoothing.statistics import DEFAULT_RADII, exact_text


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
    return targets[::5] if Tested.of(settings).whole_curve else targets


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
    if Tested.of(settings).whole_curve:
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


def unbounded(settings: dict[str, Any]) -> str:
    """What must be said where a run of interval bounds left out what its network answers wrong, as no figure of a table shows; empty elsewhere."""
    return (
        "Images that the network answers wrong were given no radius."
        if settings.get("rule", {}).get("only_right")
        else ""
    )


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


def beyond(settings: dict[str, Any], thresholds: Iterable[float]) -> str:
    """What a table must say where a run did not test one of its radii; empty where it tested all."""
    radii, tested = list(thresholds), Tested.of(settings)
    sigma = "" if settings.get("sigma") is None else f" at sigma {exact_text(settings['sigma'])}"
    why = []
    if any(tested.up_to < radius <= tested.ceiling for radius in radii):
        why.append(f"{exact_text(tested.up_to)} is the largest target{sigma}")
    if max(radii) > tested.ceiling:
        why.append(limit(settings, sigma))
    return f"- Not tested: {'; '.join(why)}." if why else ""


def limit(settings: dict[str, Any], sigma: str = "") -> str:
    """What ends the radii of a run, as the beginning of a sentence.

    Args:
        settings: Of the run.
        sigma: Its noise level in words, where readers need it.
    """
    tested = Tested.of(settings)
    if "largest" in settings.get("rule", {}):
        return f"the largest radius that was looked for is {exact_text(tested.ceiling)}"
    reach = statistics.radius_text(tested.ceiling, norm_of(settings))
    return f"the largest radius that this run can certify{sigma} is {reach}"


def by_row(texts: Sequence[Sequence[str]]) -> list[str]:
    """Remarks on the rows of a table, each once; one that is not of all rows says of which.

    Args:
        texts: For each row its remarks; empty ones are left out. "- " or "† " at the beginning stays there.

    >>> by_row([["Slow.", "- Old."], ["", "- Old."], ["Slow."]])
    ['Rows 1 and 3: Slow.', '- Rows 1 and 2: Old.']
    """
    found: dict[str, list[int]] = {}
    for row, said in enumerate(texts, start=1):
        for text in dict.fromkeys(filter(None, said)):
            found.setdefault(text, []).append(row)
    return [text if len(rows) == len(texts) else _of_rows(text, rows) for text, rows in found.items()]


def _of_rows(text: str, rows: Sequence[int]) -> str:
    mark = text[:2] if text.startswith(("- ", "† ")) else ""
    *others, last = map(str, rows)
    which = f"Rows {', '.join(others)} and {last}" if others else f"Row {last}"
    return f"{mark}{which}: {text.removeprefix(mark)}"
