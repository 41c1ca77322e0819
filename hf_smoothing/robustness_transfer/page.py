"""The report of an analysis: one HTML page that needs no other file."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_smoothing.html_page import document, paragraph, picture, table
from hf_smoothing.robustness_transfer import figures
from hf_smoothing.robustness_transfer.answer import answer, questions
from hf_smoothing.robustness_transfer.figures import KINDS
from hf_smoothing.robustness_transfer.findings import (
    Robustness,
    Universal,
    decimals,
    epsilon_text,
    robustness,
    universal,
    unmatched,
)
from hf_smoothing.robustness_transfer.records import Key, Records, pair_of, read_analysis
from hf_smoothing.robustness_transfer.sentences import sentences
from hf_smoothing.robustness_transfer.settings import ROLES
from hf_smoothing.robustness_transfer.words import in_words


SIMILARITY = (
    "Linear CKA between the layers of each pair of networks. Attacked images are the same for all pairs, made by PGD on the finetuned network at the largest "
    "radius; the universal perturbation is that of the pretrained network. Both are in l-infinity where that was measured, else in l2."
)


def write_page(output: str | os.PathLike[str]) -> Path:
    """Write `report.html` into the folder of an analysis, from its records alone.

    Raises:
        RunError: If the folder holds none.
        ModuleNotFoundError: Without matplotlib.
    """
    about, records = read_analysis(output)
    said = sentences(records)
    found = robustness(records)
    parts = [_head(about, records)]
    if found:
        parts += [
            "<h2>Accuracy under attack</h2>",
            paragraph(said.get("robustness")),
            picture(figures.robustness(found), "Accuracy under attack against the radius, with 95% intervals"),
            _robustness_table(found, bool(unmatched(records))),
        ]
    perturbed = universal(records)
    if perturbed:
        parts += ["<h2>Universal perturbations</h2>"]
        parts += [paragraph(said.get(f"universal {one.norm}")) + _universal_table(one) for one in perturbed]
    if any(key.kind == "similarity" for key in records):
        parts += [
            "<h2>Representation similarity</h2>",
            paragraph(said.get("similarity")),
            picture(figures.similarity(records), SIMILARITY),
            _svcca_table(records),
        ]
    if any(key.kind == "frequency" for key in records):
        parts += ["<h2>Low and high frequencies</h2>", paragraph(said.get("frequency"))]
        parts += [picture(figures.frequency(records), "Accuracy and confidence on low and high frequencies")]
    file = Path(output) / "report.html"
    file.write_text(document("Robustness transfer", parts), encoding="utf-8")
    return file


def _head(about: dict[str, Any], records: Records) -> str:
    settings, facts = about["settings"], about["about"]
    rows = [[role, short(facts.get("paths", {}).get(role, "")), f"{settings['parameters'][role]:,}"] for role in ROLES]
    data = facts.get("dataset", {})
    said, asked = answer(records), questions(records)
    return (
        "<h1>Robustness transfer</h1><p>Is the finetuned network less robust because of its pretraining?</p>"
        + (f"<p class='summary'>{html.escape(said)}</p>" if said else "")
        + (table(["question", "evidence, 95% interval", "verdict"], asked) if asked else "")
        + table(["role", "model", "parameters"], rows)
        + paragraph(facts.get("other_framings") or None)
        + paragraph(
            f"{settings['images']} images of {short(str(data.get('id', 'the data set')))}, {data.get('split', '')} split. Attacks of {settings['steps']} steps in [0, 1] "
            f"pixels; an attack counts only inside its ball and the pixel range; seed {settings['seed']}. Intervals are 95%. Attacks are lower bounds of what "
            "an adversary can do: certify with randomized smoothing for an upper one. The networks differ in their pretraining, and in what follows from it."
        )
    )


def short(path: str) -> str:
    """The last two parts of a local path, since those above are of one machine; other names as they are.

    >>> short("/home/me/runs/finetuned/model"), short("facebook/dinov2-small")
    ('finetuned/model', 'facebook/dinov2-small')
    """
    return "/".join(path.rstrip("/").split("/")[-2:])


def _robustness_table(found: Sequence[Robustness], few_matched: bool) -> str:
    rows = []
    for one in found:
        radius = epsilon_text(one.norm, one.epsilons[-1])
        for role in one.accuracy:
            shown = [
                f"{100 * a:.1f} ({100 * low:.1f}-{100 * high:.1f})"
                for a, low, high in (one.accuracy[role][0], one.accuracy[role][-1])
            ]
            matched = (
                f"{decimals(100 * one.matched[role][-1], 1)} ({one.matched_images})" if role in one.matched else ""
            )
            verdict = difference = ""
            if role == "finetuned":
                few = "too few images right in both" if few_matched else "too few images"
                verdict = in_words("how robust is it?", one.verdict, few=few)
                d = one.difference
                difference = "-" if d is None else f"{100 * d.value:+.1f} ({100 * d.low:+.1f} to {100 * d.high:+.1f})"
            rows.append(
                [
                    f"{one.attack}, {one.norm} {radius}",
                    role,
                    *shown,
                    _percent(one.decline[role][-1]),
                    f"{100 * one.area[role]:.1f}",
                    matched,
                    difference,
                    verdict,
                ]
            )
    head = [
        "attack, largest radius", "network", "clean accuracy, %", "accuracy at the largest radius, %", "decline ratio", "area, %",
        "at matched accuracy, % (images)", "finetuned - standard, area at matched accuracy, points", "verdict",
    ]  # fmt: skip
    return table(head, rows)


def _percent(share: float) -> str:
    shown = decimals(100 * share, 0)
    return shown if shown == "-" else f"{shown}%"


def _universal_table(one: Universal) -> str:
    roles = list(ROLES)
    rows = []
    for source in (*roles, "random"):
        cells = []
        for target in roles:
            share = one.fooled.get((source, target))  # a network that is not measured yet has none
            cells.append("-" if share is None else f"{100 * share[0]:.1f} ({100 * share[1]:.1f}-{100 * share[2]:.1f})")
        rows.append(["random" if source == "random" else f"crafted on {source}", *cells])
    return table(
        [
            f"{one.norm}, radius {epsilon_text(one.norm, one.epsilon)}: answers changed, %",
            *(f"of {role}" for role in roles),
        ],
        rows,
    )


def _svcca_table(records: Records) -> str:
    rows = []
    for kind, images in KINDS.items():
        for pair, record in records.get(Key("similarity", kind), {}).items():
            values = zip(record["svcca"], record["svcca_shuffled"], strict=True)
            rows.append(
                [
                    ", ".join(pair_of(pair)),
                    images,
                    *(f"{decimals(value)} ({decimals(chance)})" for value, chance in values),
                ]
            )
    depth = max((len(row) - 2 for row in rows), default=0)
    head = [
        "SVCCA of layers of the same number from the front (of shuffled images)",
        "images",
        *(f"layer {k}" for k in range(depth)),
    ]
    return table(head, rows)
