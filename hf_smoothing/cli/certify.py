"""`hf-smoothing certify`: a run folder of certificates."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_smoothing.certification.options import RunOptions, RunRuleOptions, options_in, options_of
from hf_smoothing.cli.options import (
    add_data_options,
    add_normalisation_options,
    add_options,
    data_choice,
    flag_of,
    in_flags,
    normalisation,
)
from hf_smoothing.cli.parsing import add_switch


OWN = {
    "smoothing": ("sigma", *options_of(RunOptions), "seed", "streaming"),
    "interval": ("largest", "backward", "steps", "only_right", "cover_run", "batch_size"),
}
"""Options that one method has and the other would ignore."""


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    c = commands.add_parser(
        "certify", help="certify the images of a data set into a run folder; resumes it if it exists"
    )
    c.add_argument("model", help="Hub id or folder of a SmoothedClassifier or of any image classifier")
    c.add_argument(
        "--method", default="smoothing", choices=["smoothing", "interval"],
        help="l2 radii with probability 1 - alpha, or deterministic l-infinity radii by interval bounds (%(default)s)",
    )  # fmt: skip
    c.add_argument("--sigma", type=float, help="noise standard deviation, [0, 1] pixel units; needed for smoothing")
    c.add_argument(
        "--largest", type=float, help="with --method interval: radius at which to stop looking, such as 8.8/255"
    )
    add_options(c, RunOptions)
    c.add_argument(
        "--backward", default="none", choices=["none", "crown-ibp", "crown", "optimised"],
        help="with --method interval: the tightest linear bounds to go on with where intervals end; each larger radii and slower (%(default)s)",
    )  # fmt: skip
    c.add_argument(
        "--steps", type=int, default=20, help="with --backward optimised: steps that optimise the bounds (%(default)s)"
    )
    add_switch(
        c, "only_right",
        "with --method interval: no radius for images that are predicted otherwise than labelled; certified accuracy in less time",
    )  # fmt: skip
    add_switch(
        c, "cover_run",
        "with --method interval: a guarantee for the network in real arithmetic only, which does not cover the rounding of float32 runs",
        default=True,
    )  # fmt: skip
    c.add_argument(
        "--batch-size", type=int, default=128, help="with --method interval: images per forward pass (%(default)s)"
    )
    add_data_options(c, positional=("dataset",))
    c.add_argument("--seed", type=int, default=0, help="seed of the noise generator (%(default)s)")
    add_switch(c, "streaming", "read the data set as a stream, without downloading all of it")
    c.add_argument(
        "--size", type=int, help="certified resolution of a plain classifier; by default what its checkpoint says"
    )
    add_normalisation_options(c)
    c.add_argument("--device", help="e.g. cpu or cuda; by default a GPU if there is one")
    c.add_argument("--output-dir", required=True, type=Path, help="the run folder")
    c.set_defaults(run=run, defaults={name: c.get_default(name) for names in OWN.values() for name in names})


def run(args: argparse.Namespace) -> int:
    """`hf-smoothing certify`."""
    missing, such = {
        "smoothing": ("sigma", "the noise level in [0, 1] pixels, such as --sigma 0.25; one that the model was trained with serves best"),
        "interval": ("largest", "the largest l-infinity radius to look for in [0, 1] pixels, such as --largest 8/255"),
    }[args.method]  # fmt: skip
    if getattr(args, missing) is None:
        raise ValueError(f"--method {args.method} needs --{missing}, {such}.")
    other = {"smoothing": "interval", "interval": "smoothing"}[args.method]
    if unused := [name for name in OWN[other] if getattr(args, name) != args.defaults[name]]:
        flags = ", ".join(flag_of(name, args.defaults[name]) for name in unused)
        why = "makes no draws and runs the network in its own dtype" if other == "smoothing" else "draws noise"
        instead = " Certified accuracy in less time: --only-right." if "label_aware" in unused else ""
        raise ValueError(f"--method {args.method} {why}: leave {flags} out.{instead}")
    if args.method == "interval" and args.backward != "optimised" and args.steps != args.defaults["steps"]:
        raise ValueError(
            f"--steps is for --backward optimised, got --backward {args.backward}: leave --steps out, or choose optimised."
        )
    return {"smoothing": _certify_smoothing, "interval": _certify_interval}[args.method](args)


def _certify_smoothing(args: argparse.Namespace) -> int:
    from hf_smoothing.certification import certify_dataset, make_rule

    options = options_in(RunOptions, vars(args))
    make_rule(args.sigma, **options_in(RunRuleOptions, options))  # refuse before anything is loaded
    model, dataset, indices, description = _model_and_images(args)
    run = certify_dataset(
        model, dataset, args.output_dir, sigma=args.sigma, indices=indices, seed=args.seed, description=description, **options
    )  # fmt: skip
    return _say(args, run, dataset)


def _certify_interval(args: argparse.Namespace) -> int:
    from hf_smoothing.interval import certify_dataset_linf
    from hf_smoothing.interval.radii import check_largest

    check_largest(args.largest)  # before anything is loaded
    model, dataset, indices, description = _model_and_images(args)
    run = certify_dataset_linf(
        model,
        dataset,
        args.output_dir,
        largest=args.largest,
        backward=args.backward,
        steps=args.steps,
        only_right=args.only_right,
        cover_run=args.cover_run,
        indices=indices,
        batch_size=args.batch_size,
        description=description,
    )
    return _say(args, run, dataset)


def _model_and_images(args: argparse.Namespace) -> tuple[Any, Any, Sequence[int] | None, dict[str, Any]]:
    """The classifier, the data set, which of its images, and what to write down about them."""
    from hf_smoothing.cli.places import check_places
    from hf_smoothing.cli.resolution import preprocessing_facts, resolution_summary
    from hf_smoothing.data.opening import choice_text, chosen_images, open_pixels
    from hf_smoothing.models.loading import load_classifier

    choice = data_choice(args)
    check_places(args.output_dir, choice.dataset, args.model)
    # Interval bounds need no sigma, but the wrapper around a plain classifier has one.
    sigma = 0.25 if args.sigma is None else args.sigma
    model = load_classifier(args.model, sigma=sigma, size=args.size, device=args.device, **normalisation(args))
    dataset = open_pixels(choice, model, model.config.id2label, streaming=args.streaming)
    indices = chosen_images(choice, dataset)
    _tell(f"{resolution_summary(model, dataset)}\n{in_flags(choice_text(choice, dataset, indices))}")
    given = {name: getattr(model.config, name) for name, values in normalisation(args).items() if values is not None}
    said = {"normalisation": given} if given else {}  # what its checkpoint does not tell a later command
    description = {
        "model": {"id": args.model, **said, "preprocessing": preprocessing_facts(model.config)},
        "dataset": choice.to_dict(),
    }
    return model, dataset, indices, description


def _tell(text: str) -> None:
    from hf_smoothing.certification.ranks import process_state

    if process_state().is_main_process:
        print(text, flush=True)


def _say(args: argparse.Namespace, run: Any, dataset: Any) -> int:
    from hf_smoothing.certification.tally import outcome_text

    left_out = len(run.settings["informative"].get("unreadable", ()))
    more = f"; {left_out} could not be read and {'is' if left_out == 1 else 'are'} left out" if left_out else ""
    count = f"{len(run.rows)} image{'' if len(run.rows) == 1 else 's'}"
    _tell(f"{count} in {args.output_dir}: {outcome_text(run)}{more}.")
    if dataset.label_column is not None:
        from hf_smoothing.reports import report

        _tell(report([args.output_dir]))
    else:
        from hf_smoothing.reports.remarks import enlarged

        if said := enlarged(run):
            _tell(said)
    return 0
