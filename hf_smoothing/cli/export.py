"""`hf-smoothing export`: the claims of a run for other verifiers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hf_smoothing.cli.options import add_data_options


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    e = commands.add_parser(
        "export", help="write network and claims of an interval run as ONNX and VNN-LIB, for other verifiers to check"
    )
    e.add_argument("certified", metavar="RUN", type=Path, help="run folder of certify --method interval")
    e.add_argument("--output-dir", type=Path, help="a new or empty folder; by default export in the run folder")
    e.add_argument("--indices", type=int, nargs="+", help="images whose claims are exported; all by default")
    e.add_argument("--max-claims", type=int, help="maximum number of claims, evenly spread over the images")
    e.add_argument(
        "--radius", type=float,
        help="one radius for all claims, in [0, 1] pixel units; images certified below it are left out; by default each image's own radius",
    )  # fmt: skip
    e.add_argument("--timeout", type=float, default=300.0, help="seconds per claim, for instances.csv (%(default)s)")
    e.add_argument("--model", help="Hub id or folder; by default what the run names")
    unused = ("label_column", "labels", "label_map", "skip_unreadable", "stride", "max_images")
    add_data_options(e, leave_out=unused, dataset=None, split=None)
    e.add_argument("--size", type=int, help="certified resolution of a plain classifier; by default that of the run")
    e.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """`hf-smoothing export`."""
    from hf_smoothing.cli.places import check_places
    from hf_smoothing.cli.recorded import check_named, load_recorded, recorded_choice
    from hf_smoothing.data.opening import open_pixels
    from hf_smoothing.interval.export import (
        check_empty,
        claims_of,
        covers_run_of,
        export_run,
        require_onnx,
        subject_of,
    )
    from hf_smoothing.records import read_run

    require_onnx()
    run = read_run(args.certified)
    covers_run_of(run)  # refuse before anything is loaded
    chosen = {"indices": args.indices, "max_claims": args.max_claims, "radius": args.radius}
    claims_of(run, **chosen)
    folder = args.output_dir or run.path / "export"
    check_named(args, run)
    path, choice = args.model or run.settings["model"]["id"], recorded_choice(args, run)
    check_places(folder, choice.dataset, path)
    check_empty(folder)
    model = load_recorded(path, run, size=args.size, device="cpu")
    dataset = open_pixels(choice, model, model.config.id2label, labelled=False)
    found = export_run(model, dataset, run, folder, **chosen, timeout=args.timeout)
    count = f"{len(found.claims)} claim{'' if len(found.claims) == 1 else 's'}"
    print(
        f"{count} about {subject_of(found.covers_run)} in {found.path}: network.onnx, vnnlib/, instances.csv and export.json."
    )
    if found.left_out:
        print(f"Left out: {', '.join(f'{number} {why}' for why, number in found.left_out.items())}.")
    if not found.covers_run:
        print("These claims do not cover the rounding of float32: a run of network.onnx may contradict them.")
    return 0
