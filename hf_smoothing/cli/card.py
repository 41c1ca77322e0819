"""`hf-smoothing card`: a model card from run folders."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    c = commands.add_parser("card", help="write certified accuracy into the card of a model, from its run folders")
    c.add_argument("model", type=Path, help="folder of the model, where README.md is written or brought up to date")
    c.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="finished run folders of this model")
    c.add_argument(
        "--name",
        help="what the card calls the model: its id on the Hub, or a path; by default as before, or the folder",
    )
    c.add_argument(
        "--dataset", help="what the card calls the data set, such as its id on the Hub, if the runs name a folder"
    )
    c.add_argument(
        "--thresholds", type=float, nargs="+", help="radii of the table; by default the targets of the runs"
    )
    c.add_argument(
        "--benchmark", metavar="ID", help="Hub id of a data set with an eval.yaml: write .eval_results for it as well"
    )
    c.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """`hf-smoothing card`."""
    from hf_smoothing.records import check_writable, read_run
    from hf_smoothing.reports.card import check_finished, check_name, measured_for, results_in, write_card
    from hf_smoothing.reports.card_results import ENTRIES, other_benchmarks

    check_name(args.name)
    check_name(args.benchmark, "benchmark")
    if args.dataset == "":
        raise ValueError(
            "--dataset must name the data set, got an empty name. Leave it out, or give its id on the Hub."
        )
    if not args.model.exists():
        raise ValueError(f"{args.model} does not exist, and the folder of a model is wanted. Check the spelling.")
    if (args.model / "run.json").is_file():
        raise ValueError(
            f"{args.model} is a run folder, where the model is wanted: the model comes first, its runs after it."
        )
    if not (args.model / "config.json").is_file():
        raise ValueError(
            f"{args.model} must be the folder of a model, got one without config.json. Save the model, or download it: "
            "hf download ID --local-dir FOLDER."
        )
    check_writable(args.model)
    runs = [read_run(path) for path in args.runs]
    for one in runs:
        check_finished(one)
    _check_model(args.model, runs)
    runs = _with_dataset(runs, args.dataset)
    before = results_in(args.model)
    written = write_card(args.model, runs, name=args.name, thresholds=args.thresholds, benchmark=args.benchmark)
    print(f"Written from {len(runs)} run{'s' if len(runs) > 1 else ''}: {', '.join(map(str, written))}.")
    if before and before != (now := results_in(args.model)):
        print(
            f"Replaces results of {', '.join(before)} by {', '.join(now)}. For both in one card name the runs of both."
        )
    if others := other_benchmarks(args.model, measured_for(runs, args.thresholds)):
        names = ", ".join(others)
        print(f"{args.model / ENTRIES} holds other results for {names}, kept: --benchmark {others[0]} replaces them.")
    return 0


def _check_model(folder: Path, runs: list[Any]) -> None:
    """Refuse runs of another network than that in the folder, with pixels prepared in another way, or with classes of other names."""
    from hf_smoothing.certification.identity import check_network_of_run
    from hf_smoothing.cli.recorded import load_recorded, recorded_size
    from hf_smoothing.cli.resolution import preprocessing_facts
    from hf_smoothing.interval.classifier import interval_classifier
    from hf_smoothing.records import RunError, differences
    from hf_smoothing.reports.card import check_class_names

    models: dict[Any, Any] = {}
    for one in runs:
        size = recorded_size(one)
        if size not in models:  # the network is the same for any sigma
            models[size] = load_recorded(str(folder), one, device="cpu")
        model = models[size]
        check_network_of_run(interval_classifier(model) if one.settings.get("deterministic") else model, one)
        noted = one.settings["model"].get("preprocessing")
        if noted is not None and (found := differences(noted, preprocessing_facts(model.config))):
            raise RunError(
                f"A card needs runs with the preprocessing of {folder}, but in {one.path} {'; '.join(found)} now. Certify this model."
            )
        check_class_names(one, model.config.id2label, folder)


def _with_dataset(runs: list[Any], called: str | None) -> list[Any]:
    """The runs with the data set called otherwise."""
    from dataclasses import replace

    from hf_smoothing.records import plain_name

    if called is None:
        return runs
    known = sorted({plain_name(one.settings.get("dataset", {}).get("id")) for one in runs})
    if len(known) > 1:
        raise ValueError(
            f"--dataset names the one data set of all runs, got runs of {', '.join(known)}. Leave it out, or give one run after another a name by "
            "keep_run(..., dataset=...)."
        )
    return [
        replace(one, settings=one.settings | {"dataset": one.settings["dataset"] | {"id": called}}) for one in runs
    ]
