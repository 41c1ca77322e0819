"""The questions of the study, each answered by intervals: a table of the evidence, and sentences that say what it carries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from examples.studies.pages import markdown_table
from examples.studies.robustness_transfer.curves import Records, matched_difference, mean_matched_difference
from examples.studies.robustness_transfer.plan import NONE, folder
from examples.studies.verdicts import across, verdict
from hf_smoothing.statistics import Paired, paired_difference


Model = tuple[str, str]
"""Pretraining, and way of finetuning."""
STANDARD: Model = (NONE, "plain")
WAYS = ("plain", "hundredfold mitigation")
"""Ways of finetuning that have all seeds."""


def at_matched_accuracy(records: Records, target: str, model: Model, other: Model = STANDARD) -> Paired | None:
    """Area under the curve minus that of the other, on images that both get right; mean over seeds."""
    pairs = [
        (records.known(target, model, s), records.known(target, other, s))
        for s in records.seeds(model, other, target=target)
    ]
    return mean_matched_difference(records.config["attack"]["epsilons"]["linf"], pairs) if pairs else None


def at_radius(records: Records, target: str, model: Model, other: Model, row: int) -> Paired | None:
    """Accuracy at one radius minus that of the other, all images; mean over seeds."""
    seeds = records.seeds(model, other, target=target)
    sides = (
        [np.mean([records.known(target, one, seed)[row] for seed in seeds], axis=0) for one in (model, other)]
        if seeds
        else []
    )
    return paired_difference(*sides) if seeds else None


def certified(records: Records, target: str, model: Model, other: Model) -> Paired | None:
    """Average certified radius minus that of the other; mean over the seeds that both have."""
    pairs = [
        (records.gains(target, *model, seed), records.gains(target, *other, seed)) for seed in records.config["seeds"]
    ]
    both = [pair for pair in pairs if pair[0] is not None and pair[1] is not None]
    return paired_difference(*(np.mean(side, axis=0) for side in zip(*both, strict=True))) if both else None


def carried(records: Records, target: str, pretraining: str, norm: str) -> Paired | None:
    """By how much more the backbone's universal perturbations than random ones fool the finetuned network than the standard one, first seed."""
    result = records.stages.get(f"analyse/{target}/{pretraining}/plain")
    return None if result is None else Paired(**result["carried"][norm])


def sweep_point(records: Records, sweep: str, point: str) -> Paired | None:
    """Finetuned minus standard, area at matched accuracy, at one point of a factor."""
    about, where = records.config["sweeps"][sweep], f"attack/{folder(sweep)}/{folder(point)}"
    curves = [records.attacked(f"{where}/{pretraining}", "linf") for pretraining in (about["pretraining"], NONE)]
    return matched_difference(records.config["attack"]["epsilons"]["linf"], curves[0], curves[1])


@dataclass(frozen=True)
class Row:
    """A comparison, made on each data set.

    Attributes:
        question: What it answers.
        about: What is compared.
        found: Its difference by data set.
        factor: 100 for points, 1 for radii.
        summed_up: Whether the summary of the page says it as well.
    """

    question: str
    about: str
    found: dict[str, Paired | None]
    factor: float = 100.0
    summed_up: bool = False


def comparisons(records: Records) -> list[Row]:
    """All comparisons that the study was made for, in order."""
    last = f"at {255 * records.config['attack']['epsilons']['linf'][-1]:.2g}/255"
    kinds = list(records.config["pretraining"]["kinds"])
    ways = [way for way in WAYS if way in records.config["ways"]]

    def over(made: Callable[..., Paired | None], *given: Any) -> dict[str, Paired | None]:
        return {target: made(records, target, *given) for target in records.config["target_data"]}

    rows = []
    for kind in kinds:
        model, about = (kind, "plain"), f"from {kind}"
        rows += [
            Row(
                "Finetuned minus standard, area at matched accuracy",
                about,
                over(at_matched_accuracy, model),
                summed_up=True,
            ),
            Row(
                "Finetuned minus standard, accuracy",
                f"{about}, without an attack",
                over(at_radius, model, STANDARD, 0),
            ),
            Row("Finetuned minus standard, accuracy", f"{about}, {last}", over(at_radius, model, STANDARD, -1)),
        ]
    for norm in ("linf", "l2"):
        question = f"Universal perturbations of the backbone carried, {norm}, first seed"
        rows += [Row(question, f"from {kind}", over(carried, kind, norm)) for kind in kinds]
    for way in ways[1:]:
        for row, where in ((0, "without an attack"), (-1, last)):
            rows += [Row(f"{way} minus plain, accuracy", f"from {kind}, {where}", over(at_radius, (kind, way), (kind, "plain"), row), summed_up=row == -1) for kind in kinds]  # fmt: skip
    for way in ways:
        for one, other in (("adversarial", "clean"), ("mixture", "clean"), ("mixture", "adversarial")):
            if {one, other} <= set(kinds):
                rows.append(Row(f"Backbones compared, accuracy {last}", f"{one} minus {other}, {way}", over(at_radius, (one, way), (other, way), -1), summed_up=way == "plain" and other == "clean"))  # fmt: skip
        for kind in kinds:
            if kind != "clean" and "clean" in kinds:
                rows.append(Row("Average certified radius", f"{kind} minus clean, {way}", over(certified, (kind, way), ("clean", way)), 1.0))  # fmt: skip
            rows.append(Row("Average certified radius", f"{kind}, {way}, minus no pretraining, plain", over(certified, (kind, way), STANDARD), 1.0, way == "plain"))  # fmt: skip
    order = list(dict.fromkeys(row.question for row in rows))
    return sorted((row for row in rows if any(row.found.values())), key=lambda row: order.index(row.question))


def table(rows: list[Row]) -> str:
    """The evidence and the verdict of each comparison."""
    targets = list(rows[0].found) if rows else []
    lines = [[row.question, row.about, *(verdict(found, row.factor) for found in row.found.values())] for row in rows]
    return markdown_table(["question", "comparison", *targets], lines)


def answers(rows: list[Row]) -> str:
    """The summary: a sentence for each comparison that it takes up, those of one question together."""
    said: dict[str, list[str]] = {}
    for row in (row for row in rows if row.summed_up):
        said.setdefault(row.question, []).append(f"{row.about}: {across(row.found)}")
    return "\n".join(
        f"- **{question}.** " + " ".join(f"{_sentence(one)}" for one in found) for question, found in said.items()
    )


def factors(records: Records) -> str:
    """A sentence per factor that was varied, at one seed."""
    swept = {name: about for name, about in records.config.get("sweeps", {}).items() if not about.get("held_out")}
    return "\n".join(
        f"- **{name}.** {_sentence(across({point: sweep_point(records, name, point) for point in about['points']}))}"
        for name, about in swept.items()
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
