"""Every measured figure of the cards, from the records that lie beside them.

    python -m model_cards.records keep runs/certify-0.25 model_cards/resnet-mixture-cifar10/records/sigma-0.25 --dataset cifar10
    python -m model_cards.records write

`keep` copies a finished run into a card, without its intermediate rows. `write` puts the tables and the verdicts between the markers
of the cards and the README, the figures into the metadata for the Hub, and all of it into docs/results/strong_models.json.
"""

import argparse
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard
from safetensors.torch import load_file

from examples.studies.verdicts import verdict
from hf_smoothing.cards import fill_one
from hf_smoothing.records import keep_run, read_json, read_run, write_json
from hf_smoothing.reports import measure
from hf_smoothing.reports.card_results import eval_results
from hf_smoothing.reports.measured import Measured, columns
from hf_smoothing.reports.tables import table as report_table
from hf_smoothing.statistics import exact_text, paired_difference, round_down
from model_cards.linf import LINF, linf_attack, linf_figures, linf_table
from model_cards.parts import read_parts


ROOT = Path(__file__).resolve().parents[1]
SIGMAS = ("0.25", "0.5", "1.0")
SHOWN = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]


kept = functools.cache(read_parts)
"""A run of a card, read once: reading recomputes every row from its votes, and several tables are made of it."""


@dataclass(frozen=True)
class Row:
    """A classifier in the table of a card.

    Attributes:
        name: What the table calls it.
        records: Folder of its records below model_cards, with the sigma left open.
    """

    name: str
    records: str

    def measured(self, root: Path, sigma: str) -> Measured:
        """Its figures at one sigma."""
        return measure(kept(root / "model_cards" / self.records.format(sigma)), thresholds=SHOWN, name=self.name)


ROWS = {
    "resnet-mixture-cifar10": [Row("this classifier", "resnet-mixture-cifar10/records/sigma-{}")],
    "resnet-mixture": [
        Row("resnet-mixture, finetuned on clean images", "resnet-mixture/records/clean-only-sigma-{}"),
        Row("resnet-mixture-small, finetuned so", "resnet-mixture-small/records/clean-only-sigma-{}"),
    ],
}


BACKBONES = ("resnet-mixture", "resnet-mixture-small", "resnet-clean-small", "vit-mixture")
"""Certified as they are, on Tiny-ImageNet."""


def backbone_table(root: Path, name: str) -> str:
    """Certified accuracy of a backbone on the data that it was pretrained on."""
    runs = [
        read_run(root / "model_cards" / name / "records" / f"tiny-imagenet-sigma-{sigma}") for sigma in ("0.25", "0.5")
    ]
    return report_table([measure(run, [0.0, 0.125, 0.25, 0.5], name) for run in runs])


def targets(measured: Measured) -> list[float]:
    """The radii of the table that the run was to decide: beyond them nothing was tested."""
    wanted = measured.settings["rule"]["targets"]
    return [radius for radius in SHOWN if radius in wanted]


def published(root: Path, measured: Measured, sigma: str) -> dict[str, Any]:
    """The published figures on the same images."""
    found = read_json(root / "docs" / "results" / "published_cifar10.json")
    return dict(found["strides"][str(measured.settings["dataset"]["stride"])][sigma])


def table(root: Path, rows: list[Row], shown: int = len(SHOWN)) -> str:
    """Certified accuracy of each classifier with exact intervals, and of the published one, at each sigma and the first `shown` radii."""
    head = ["sigma", "classifier", *(f"r = {exact_text(radius)}" for radius in SHOWN[:shown]), "ACR", "abstained"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for sigma in SIGMAS:
        ours = [row.measured(root, sigma) for row in rows]
        for one in ours:
            decided = targets(one)
            cells = [
                f"{100 * a:.1f} ({100 * low:.1f}-{100 * high:.1f})" if radius in decided else "-"
                for radius, a, low, high in zip(
                    SHOWN[:shown], one.curve.accuracy, one.curve.lower, one.curve.upper, strict=False
                )
            ]
            abstained = "-" if one.settings["label_aware"] else f"{100 * one.abstention:.1f}"
            lines.append(
                f"| {sigma} | {one.name} | {' | '.join(cells)} | {round_down(one.average_radius, 3)}† | {abstained} |"
            )
        theirs = published(root, ours[0], sigma)
        accuracy = theirs["certified_accuracy"]
        cells = [f"{accuracy[k]:.1f}" if k < len(accuracy) else "" for k in range(shown)]
        lines.append(f"| {sigma} | *ResNet-110 for this sigma alone* | {' | '.join(cells)} | {theirs['acr']:.3f} | |")
    return "\n".join(lines)


def verdicts(root: Path, row: Row) -> str:
    """At each sigma, where the interval lies above or below the published figure, and where it holds it."""
    lines = []
    for sigma in SIGMAS:
        ours = row.measured(root, sigma)
        places: dict[str, list[str]] = {"above": [], "holds": [], "below": []}
        for k, figure in enumerate(published(root, ours, sigma)["certified_accuracy"]):
            if SHOWN[k] in targets(ours):
                low, high = 100 * ours.curve.lower[k], 100 * ours.curve.upper[k]
                where = "above" if low > figure else "below" if high < figure else "holds"
                places[where].append(exact_text(SHOWN[k]))
        said = [
            f"{text} r = {', '.join(places[where])}"
            for where, text in (
                ("above", "lies above the published figure at"),
                ("below", "lies below the published figure at"),
                ("holds", "contains it at"),
            )
            if places[where]
        ]
        lines.append(f"- sigma {sigma}: the interval {'; '.join(said)}.")
    return "\n".join(lines)


def against_the_other(root: Path, first: Row, second: Row) -> str:
    """At each sigma the difference in ACR of two classifiers on the same images."""
    lines = []
    for sigma in SIGMAS:
        radii = [contributions(row.measured(root, sigma)) for row in (first, second)]
        lines.append(f"- sigma {sigma}: ACR {verdict(paired_difference(*radii))}.")
    return "\n".join(lines)


def contributions(measured: Measured) -> list[float]:
    """What each image adds to the ACR."""
    predictions, labels, radii = columns(measured.run)
    return [
        radius if prediction == label else 0.0
        for prediction, label, radius in zip(predictions, labels, radii, strict=True)
    ]


def figures(root: Path, row: Row, weights: Path) -> dict[str, Any]:
    """The figures of one classifier as plain values, accuracies in %."""
    ours = {sigma: row.measured(root, sigma) for sigma in SIGMAS}
    first = ours[SIGMAS[0]].settings
    tensors = load_file(weights)
    learnt = [
        value for name, value in tensors.items() if value.dim() and not name.endswith(("running_mean", "running_var"))
    ]
    by_sigma = {}
    for sigma, one in ours.items():
        radii = one.settings["rule"]["targets"]
        whole = measure(one.run, thresholds=radii).curve
        by_sigma[sigma] = {
            "radii": radii,
            **{
                key: [round(100 * float(share), 1) for share in shares]
                for key, shares in (
                    ("certified_accuracy", whole.accuracy),
                    ("lower", whole.lower),
                    ("upper", whole.upper),
                )
            },
            "acr": float(round_down(one.average_radius, 3)),
            "abstained": None if first["label_aware"] else round(100 * one.abstention, 1),
        }
    return {
        "parameters": sum(value.numel() for value in learnt),
        "images": ours[SIGMAS[0]].curve.num_images,
        "n": first["rule"]["n"],
        "alpha": first["alpha"],
        "label_aware": first["label_aware"],
        "device": first["informative"]["device"],
        "dtype": first["dtype"],
        "sigma": by_sigma,
    }


def hub_results(root: Path, row: Row) -> list[EvalResult]:
    """What the Hub shows beside the card: certified accuracy at all targets, also those beyond the table."""
    runs = [row.measured(root, sigma).run for sigma in SIGMAS]
    measured = [measure(run, thresholds=run.settings["rule"]["targets"]) for run in runs]
    return [result for one in measured for result in eval_results(one, dataset_name="CIFAR-10")]


def write(root: Path = ROOT) -> None:
    """Bring all cards, the README and docs/results/strong_models.json in line with the records; nothing is written if one is missing."""
    everything, places = {}, []
    for name, rows in ROWS.items():
        for row in rows:
            folder = row.records.split("/")[0]
            label = f"{folder}, finetuned on clean images" if "clean-only" in row.records else folder
            everything[label] = figures(root, row, root / "model_cards" / folder / "model.safetensors")
        places += [(name, "cifar10", table(root, rows)), (name, "verdicts", verdicts(root, rows[0]))]
        places += [(name, "against the other", against_the_other(root, *rows))] if len(rows) == 2 else []
    places += [(name, "tiny-imagenet", backbone_table(root, name)) for name in BACKBONES]
    places += [(name, "linf", linf_table(root, name)) for name in LINF]
    places += [(name, "attack", linf_attack(root, name)) for name in LINF]
    everything |= {name: linf_figures(root, name) for name in LINF}
    for name in dict.fromkeys(name for name, _, _ in places):
        page = root / "model_cards" / name / "README.md"
        card = ModelCard.load(page)
        for _, mark, body in (place for place in places if place[0] == name):
            card.text = fill_one(card.text, mark, f"\n{body}\n", page)
        if name in ROWS and name in everything:  # the classifier itself, not one made of it
            card.data.model_name = name
            card.data.eval_results = hub_results(root, ROWS[name][0])
        card.save(page)
    readme, rows = root / "README.md", ROWS["resnet-mixture-cifar10"]
    text = readme.read_text(encoding="utf-8")
    for mark, body in (("classifier", table(root, rows, shown=5)), ("verdicts", verdicts(root, rows[0]))):
        text = fill_one(text, mark, f"\n{body}\n", readme)
    readme.write_text(text, encoding="utf-8")
    write_json(root / "docs" / "results" / "strong_models.json", everything)


def card_of(target: Path) -> str:
    """Name of the card in whose `records` a folder lies."""
    return next(place.parent.name for place in target.resolve().parents if place.name == "records")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="model_cards.records", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    keep = commands.add_parser("keep")
    keep.add_argument("run", type=Path)
    keep.add_argument("target", type=Path)
    keep.add_argument("--model", help="what to call the model; the card's name by default")
    keep.add_argument("--dataset", help="what to call the data set")
    keep.add_argument("--unfinished", action="store_true", help="a part, which others in folders beside it complete")
    commands.add_parser("write")
    args = parser.parse_args()
    if args.command == "keep":
        keep_run(
            args.run, args.target, model=args.model or card_of(args.target), dataset=args.dataset, unfinished=args.unfinished,
        )  # fmt: skip
    else:
        write()


if __name__ == "__main__":
    main()
