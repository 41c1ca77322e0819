"""`hf-smoothing robustness-transfer`: three models and a data set in, records and one HTML report out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hf_smoothing.cli.options import add_data_options, data_choice, in_flags


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    t = commands.add_parser(
        "robustness-transfer",
        help="did pretraining make a finetuned model brittle? attacks, similarity, frequencies; one HTML report",
    )
    for role, what in (
        ("pretrained", "the backbone as it was before finetuning"),
        ("finetuned", "what was made of it"),
        ("standard", "the same network trained on the finetuning data from scratch"),
    ):
        t.add_argument(f"--{role}", required=True, help=f"Hub id or folder of an image classifier: {what}")
    add_data_options(t, max_images=1_000)
    t.add_argument("--size", type=int, help="resolution of the images, where a checkpoint does not say")
    t.add_argument(
        "--attacks", nargs="+", help="names among fgsm, bim, pgd, mi-fgsm, di-fgsm (fgsm pgd mi-fgsm di-fgsm)"
    )
    t.add_argument(
        "--epsilons", type=float, nargs="+", help="l-infinity radii in [0, 1] pixel units, from 0 (0 to 2/255)"
    )
    t.add_argument("--epsilons-l2", type=float, nargs="+", help="l2 radii, from 0 (0 to 0.4)")
    t.add_argument("--steps", type=int, default=10, help="number of attack steps (%(default)s)")
    t.add_argument(
        "--layers", nargs="+", help="modules to compare, in all three models; by default the stem and the blocks"
    )
    t.add_argument("--batch-size", type=int, default=250, help="images per forward pass (%(default)s)")
    t.add_argument("--seed", type=int, default=0, help="seed of the attacks (%(default)s)")
    t.add_argument("--device", help="e.g. cpu or cuda; by default a GPU if there is one")
    t.add_argument(
        "--output-dir", required=True, type=Path, help="folder of the records and report.html; continued if it exists"
    )
    t.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """`hf-smoothing robustness-transfer`."""
    from hf_smoothing.attacks import ATTACKS
    from hf_smoothing.certification.images import reading_facts
    from hf_smoothing.cli.places import check_places
    from hf_smoothing.data import PixelDataset
    from hf_smoothing.data.opening import choice_text, chosen_images, open_pixels
    from hf_smoothing.models.loading import load_classifier
    from hf_smoothing.robustness_transfer.analysis import Analysis
    from hf_smoothing.robustness_transfer.page import write_page
    from hf_smoothing.robustness_transfer.records import read_analysis
    from hf_smoothing.robustness_transfer.sentences import sentences
    from hf_smoothing.robustness_transfer.settings import ROLES, check_models

    choice = data_choice(args)
    check_places(args.output_dir, choice.dataset, *(getattr(args, role) for role in ROLES))
    if args.max_images < 8:
        raise ValueError(f"--max-images must be at least 8 for a comparison, got {args.max_images}.")
    unknown = [name for name in args.attacks or [] if name not in ATTACKS]
    if unknown:
        raise ValueError(f"--attacks knows {', '.join(ATTACKS)}, got {', '.join(unknown)}.")
    settings = _settings(args)
    paths = {role: getattr(args, role) for role in ROLES}
    models = {
        role: load_classifier(path, sigma=0.25, size=args.size, device=args.device) for role, path in paths.items()
    }
    check_models(models)
    data = open_pixels(choice, models["finetuned"], models["finetuned"].config.id2label)
    assert isinstance(data, PixelDataset)
    indices = chosen_images(choice, data)
    if data.label_column is None:
        raise ValueError(f"Accuracy cannot be measured. {choice_text(choice, data, indices)}")
    print(in_flags(choice_text(choice, data, indices)), flush=True)
    decoded = data.decode(progress=False, indices=indices)
    assert decoded.labels is not None
    about = {"paths": paths, "dataset": {**choice.to_dict(), **data.facts(), **reading_facts(data, indices)}}
    Analysis(models, decoded.pixels, decoded.labels, args.output_dir, settings, about).run()
    page = write_page(args.output_dir)
    for text in sentences(read_analysis(args.output_dir)[1]).values():
        print(f"- {text}")
    print(f"Report: {page}")
    return 0


def _settings(args: argparse.Namespace) -> Any:
    from hf_smoothing.robustness_transfer.settings import ROLES, AnalysisSettings

    default = AnalysisSettings()
    given = {"linf": args.epsilons, "l2": args.epsilons_l2}
    epsilons = dict(default.epsilons)
    for norm, values in given.items():
        if values is not None:
            epsilons[norm] = tuple(values if values[0] == 0.0 else [0.0, *values])  # type: ignore[index]
    return AnalysisSettings(
        attacks=tuple(args.attacks or default.attacks),
        epsilons=epsilons,
        steps=args.steps,
        layers=None if args.layers is None else dict.fromkeys(ROLES, tuple(args.layers)),
        batch_size=args.batch_size,
        seed=args.seed,
    )
