"""`hf-smoothing attack`: trying to break a run's certificates."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hf_smoothing.cli.options import add_data_options


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    a = commands.add_parser("attack", help="try to break the certificates of a run: PGD inside each certified radius")
    a.add_argument("certified", metavar="RUN", type=Path, help="run folder")
    a.add_argument("--model", help="Hub id or folder; by default what the run names")
    add_data_options(a, leave_out=("stride",), dataset=None, split=None)
    a.add_argument("--size", type=int, help="certified resolution of a plain classifier; by default that of the run")
    a.add_argument("--steps", type=int, default=20, help="number of steps of gradient ascent (%(default)s)")
    a.add_argument("--restarts", type=int, default=1, help="ascents per image, for deterministic runs (%(default)s)")
    a.add_argument(
        "--copies",
        type=int,
        default=16,
        help="noisy copies per gradient, for smoothing as --n and --alpha (%(default)s)",
    )
    a.add_argument("--n", type=int, default=10_000, help="maximum number of draws per answer (%(default)s)")
    a.add_argument("--alpha", type=float, default=0.001, help="failure probability of an answer (%(default)s)")
    a.add_argument("--seed", type=int, help="seed of the attack; fresh by default")
    a.add_argument("--device", help="e.g. cpu or cuda; by default a GPU if there is one")
    a.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """`hf-smoothing attack`."""
    from hf_smoothing.attack_run import attack_run, summary, write_summary
    from hf_smoothing.cli.places import check_places
    from hf_smoothing.cli.recorded import check_named, load_recorded, recorded_choice
    from hf_smoothing.data.opening import open_pixels
    from hf_smoothing.noise import fresh_seed
    from hf_smoothing.records import check_settings, read_run

    run = read_run(args.certified)
    check_settings(run)
    check_named(args, run)
    path, choice = args.model or run.settings["model"]["id"], recorded_choice(args, run)
    check_places(run.path, choice.dataset, path)  # where the figures of the attack go
    model = load_recorded(path, run, size=args.size, device=args.device)
    # An attack needs no labels, so that they need not be matched again; where the caller names them they are.
    labelled = any(option is not None for option in (choice.label_column, choice.labels, choice.label_map))
    dataset = open_pixels(choice, model, model.config.id2label, labelled=labelled)
    how = {
        "steps": args.steps,
        "restarts": args.restarts,
        "copies": args.copies,
        "n": args.n,
        "alpha": args.alpha,
        "max_images": args.max_images,
        "seed": fresh_seed(args.seed),  # kept with the figures: an attack that broke something can be repeated
    }
    found = attack_run(model, dataset, run, **how)
    figures = summary(found, run, **how)
    kept = write_summary(figures, run)
    chance = "the certificates are deterministic, so none may be"
    if figures["alpha_of_certificates"]:
        chance = (
            f"{figures['undecided']} answers undecided; chance alone allows {figures['allowed_by_chance']} (99.9%: alpha = "
            f"{figures['alpha_of_certificates']} for each of the run's {figures['images_begun']} images, {args.alpha} for each answer)"
        )
    print(
        f"{figures['broken']} of {figures['certificates']} certificates broken; {chance}. Attacks went to "
        f"{100 * figures['mean_distance_over_radius']:.1f}% of the radius on average. Details: {kept}."
    )
    return 0 if figures["broken"] <= figures["allowed_by_chance"] else 1
