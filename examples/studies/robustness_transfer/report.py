"""From the results to the page: tables between its markers, and the JSON file of figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.studies.command import Command
from examples.studies.labels import one_class_for_all
from examples.studies.pages import keep_records, markdown_table, publish
from examples.studies.robustness_transfer import verdicts
from examples.studies.robustness_transfer.curves import Records, matched_difference, mean_matched_difference
from examples.studies.robustness_transfer.figures import draw
from examples.studies.robustness_transfer.plan import NONE, folder
from examples.studies.verdicts import interval, verdict
from hf_smoothing.robustness_transfer import area_under_curve, decline_ratio
from hf_smoothing.statistics import Paired, paired_difference


Line = list[Any]


def build(given: Command) -> None:
    """Gather the results into one file of records, if their folder is there, and rebuild everything from it.

    Raises:
        SystemExit: If there is nothing to report, or less than before.
    """
    config, results = given.config, given.docs / "results"
    records = Records(
        config, keep_records(given.stages, given.output, results / f"robustness_transfer-{given.scale}.jsonl")
    )
    texts, figures = {}, {}
    for target in config["target_data"]:
        for name, made in (
            ("brittle", brittle),
            ("mitigated", mitigated),
            ("mixture", mixture),
            ("inherited", inherited),
        ):
            rows, figures[f"{name}-{target}"] = made(records, target)
            texts[f"{name}-{target}"] = f"*{records.scale(target)}*\n\n{markdown_table(*rows)}"
        drawn = [way for way, about in config["ways"].items() if "target" not in about.get("only", {})]
        picture = given.docs / "figures" / "robustness_transfer" / given.scale / f"{target}.png"
        draw(records, target, drawn, one_class_for_all(given.docs, target, config["attack"]["images"]), picture)
    for name, sweep in config.get("sweeps", {}).items():
        key = f"sweep-{folder(name)}"
        rows, figures[key] = sweep_rows(records, name)
        images = "held-out" if sweep.get("held_out") else "test"
        texts[key] = (
            f"*{records.scale(sweep['target'], images)}; seed {config['seeds'][0]}*\n\n{markdown_table(*rows)}"
        )
    compared = verdicts.comparisons(records)
    texts |= {
        "answers": verdicts.answers(compared),
        "verdicts": verdicts.table(compared),
        "factors": verdicts.factors(records),
    }
    page = given.docs / "robustness_transfer.md"
    publish(given.scale, texts, figures, page, results / "robustness_transfer.json", given.output)


def brittle(records: Records, target: str) -> tuple[tuple[Line, list[Line]], dict[str, Any]]:
    """Every plainly finetuned network beside the standard one."""
    rows: list[Line] = []
    figures: dict[str, Any] = {}
    epsilons = records.config["attack"]["epsilons"]["linf"]
    standard = (NONE, "plain")
    for pretraining in [NONE, *records.config["pretraining"]["kinds"]]:
        model = (pretraining, "plain")
        seeds = records.seeds(model, standard, target=target)
        if not seeds:
            continue
        accuracies = np.mean([records.known(target, model, s).mean(1) for s in seeds], axis=0)
        differences = {
            norm: [
                matched_difference(
                    radii, records.known(target, model, s, norm), records.known(target, standard, s, norm)
                )
                for s in seeds
            ]
            for norm, radii in records.config["attack"]["epsilons"].items()
        }
        pairs = [(records.known(target, model, seed), records.known(target, standard, seed)) for seed in seeds]
        pooled = None if pretraining == NONE else mean_matched_difference(epsilons, pairs)
        shown = (
            ""
            if pretraining == NONE
            else ", ".join("none matched" if one is None else interval(one, 100.0) for one in differences["linf"])
        )
        rows.append([
            pretraining, *(f"{100 * a:.1f}" for a in accuracies), f"{100 * decline_ratio(accuracies[0], accuracies[-1]):.0f}%",
            f"{100 * area_under_curve(epsilons, accuracies):.1f}", interval(pooled, 100.0) if pooled else "", shown, len(seeds),
        ])  # fmt: skip
        figures[pretraining] = {
            "accuracy": accuracies.tolist(),
            "area_difference_matched_mean": _plain([pooled])[0],
            "area_difference_matched": {norm: _plain(found) for norm, found in differences.items()},
            "seeds": seeds,
        }
    head = [
        "pretrained on", *("clean, %" if not e else f"{255 * e:.2g}/255" for e in epsilons), "decline ratio", "area, %",
        "area - standard's at matched accuracy, points", "each seed", "seeds",
    ]  # fmt: skip
    return (head, rows), figures


def mitigated(records: Records, target: str) -> tuple[tuple[Line, list[Line]], dict[str, Any]]:
    """Discrepancy mitigation minus plain finetuning from the same backbone, paired over images, mean over seeds."""
    rows: list[Line] = []
    figures: dict[str, Any] = {}
    epsilons = records.config["attack"]["epsilons"]["linf"]
    for way in [way for way in records.config["ways"] if way != "plain"]:
        for pretraining in [NONE, *records.config["pretraining"]["kinds"]]:
            seeds = records.seeds((pretraining, way), (pretraining, "plain"), target=target)
            if not seeds:
                continue
            sides = [
                np.mean([records.known(target, (pretraining, w), s) for s in seeds], axis=0) for w in (way, "plain")
            ]
            found = [paired_difference(a, b) for a, b in zip(*sides, strict=True)]
            rows.append([way, pretraining, *(interval(one, 100.0) for one in found), len(seeds)])
            figures[f"{way}/{pretraining}"] = {"differences": _plain(found), "seeds": seeds}
    head = ["way", "pretrained on", *("clean, points" if not e else f"{255 * e:.2g}/255" for e in epsilons), "seeds"]
    return (head, rows), figures


def mixture(records: Records, target: str) -> tuple[tuple[Line, list[Line]], dict[str, Any]]:
    """Each backbone minus the clean one, under attack and certified; and certified minus the network without pretraining."""
    rows: list[Line] = []
    figures: dict[str, Any] = {}
    seeds, (alone, _) = seeds_and_gains(records, target, (NONE, "plain"), (NONE, "plain"))
    if seeds:
        rows.append(["plain", NONE, "", "", f"{alone.mean():.3f}", "", "", len(seeds)])
        figures[f"plain/{NONE}"] = {"average_certified_radius": float(alone.mean()), "seeds": seeds}
    for way in records.config["ways"]:
        for pretraining in records.config["pretraining"]["kinds"]:
            models = [(pretraining, way), ("clean", way), (NONE, "plain")]
            certified = [seeds_and_gains(records, target, *pair) for pair in ((models[0], m) for m in models[1:])]
            seeds, (own, clean) = certified[0]
            if not seeds:
                continue
            sides = [np.mean([records.known(target, model, s) for s in seeds], axis=0) for model in models[:2]]
            found = {
                "clean": paired_difference(sides[0][0], sides[1][0]),
                "attacked": paired_difference(sides[0][-1], sides[1][-1]),
                "acr": paired_difference(own, clean),
            }
            if certified[1][0]:
                found["acr_without_pretraining"] = paired_difference(*certified[1][1])
            texts = [interval(one, 100.0 if key in ("clean", "attacked") else 1.0) for key, one in found.items()]
            if pretraining == "clean":
                texts[:3] = ["", "", ""]
            texts += [""] * (4 - len(texts))
            rows.append([way, pretraining, *texts[:2], f"{own.mean():.3f}", *texts[2:], len(seeds)])
            figures[f"{way}/{pretraining}"] = {key: asdict(one) for key, one in found.items()} | {"seeds": seeds}
    last = 255 * records.config["attack"]["epsilons"]["linf"][-1]
    head = [
        "finetuned", "pretrained on", "clean - that of clean pretraining, points", f"{last:.2g}/255 - the same, points", "ACR",
        "ACR - that of clean pretraining", "ACR - that without pretraining, plain", "seeds",
    ]  # fmt: skip
    return (head, rows), figures


def seeds_and_gains(
    records: Records, target: str, model: tuple[str, str], other: tuple[str, str]
) -> tuple[list[int], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """The seeds for which both models are attacked and certified, and what each image adds to the average radius of either, mean over them."""
    shared: dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    for seed in records.seeds(model, other, target=target):
        mine, theirs = (records.gains(target, *one, seed) for one in (model, other))
        if mine is not None and theirs is not None:
            shared[seed] = mine, theirs
    nothing = np.zeros(0)
    means = [np.mean(side, axis=0) for side in zip(*shared.values(), strict=True)] or [nothing, nothing]
    return list(shared), (means[0], means[1])


def inherited(records: Records, target: str) -> tuple[tuple[Line, list[Line]], dict[str, Any]]:
    """What the analyses of the first seed say the finetuned network has kept of the pretrained one."""
    rows: list[Line] = []
    figures: dict[str, Any] = {}
    for way in records.config["ways"]:
        for pretraining in records.config["pretraining"]["kinds"]:
            result = records.stages.get(f"analyse/{target}/{pretraining}/{folder(way)}")
            if result is None:
                continue
            near, far = (result["cka"]["clean"].get(f"pretrained-{role}", []) for role in ("finetuned", "standard"))
            cka = [f"{a:.2f} / {b:.2f}" for a, b in zip(near, far, strict=False)]
            rows.append([
                pretraining, way, *(interval(Paired(**result["carried"][norm]), 100.0) for norm in ("linf", "l2")), ", ".join(cka),
                *(interval(Paired(**result["frequency"][part]), 100.0) for part in ("low", "high")),
            ])  # fmt: skip
            figures[f"{way}/{pretraining}"] = result | {"sentences": None}
    head = [
        "pretrained on", "finetuned", "universal perturbations carried, l-inf, points", "l2, points",
        "CKA with the pretrained network, layer by layer: finetuned / standard", "low frequencies, points", "high frequencies, points",
    ]  # fmt: skip
    return (head, rows), figures


def sweep_rows(records: Records, sweep: str) -> tuple[tuple[Line, list[Line]], dict[str, Any]]:
    """The finetuned beside the standard network at every point of a factor."""
    about = records.config["sweeps"][sweep]
    epsilons = records.config["attack"]["epsilons"]["linf"]
    rows: list[Line] = []
    figures: dict[str, Any] = {}
    for point in about["points"]:
        where = f"attack/{folder(sweep)}/{folder(point)}"
        curves = [records.attacked(f"{where}/{pretraining}", "linf") for pretraining in (about["pretraining"], NONE)]
        if curves[0] is None or curves[1] is None:
            continue
        found = matched_difference(epsilons, *curves)
        shown = [
            f"{100 * value:.1f}"
            for curve in curves
            for value in (*curve[[0, -1]].mean(1), area_under_curve(epsilons, curve.mean(1)))  # type: ignore[index,union-attr]
        ]
        rows.append([point, *shown, verdict(found, 100.0)])
        figures[point] = {
            "finetuned": curves[0].mean(1).tolist(), "standard": curves[1].mean(1).tolist(), "area_difference_matched": _plain([found])[0],
        }  # fmt: skip
    last = f"{255 * epsilons[-1]:.2g}/255, %"
    head = [
        sweep,
        "finetuned: clean, %",
        last,
        "area, %",
        "standard: clean, %",
        last,
        "area, %",
        "finetuned - standard, area at matched accuracy, points",
    ]
    return (head, rows), figures


def _plain(found: Sequence[Paired | None]) -> list[dict[str, Any] | None]:
    return [None if one is None else asdict(one) for one in found]
