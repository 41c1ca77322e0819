"""`hf-smoothing report`: table and curves."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_smoothing.cli.options import add_data_options
from hf_smoothing.cli.parsing import add_switch


if TYPE_CHECKING:
    from hf_smoothing.reports import PixelsOf


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    r = commands.add_parser("report", help="table and curves from run folders")
    r.add_argument("runs", nargs="+", type=Path, help="run folders, or logs in the format that papers publish")
    r.add_argument(
        "--thresholds", type=float, nargs="+", help="radii of the table; by default the targets of the runs"
    )
    r.add_argument("--names", nargs="+", help="names of the models, one per run")
    r.add_argument("--output-dir", type=Path, default=Path("."), help="folder of report.md and the PNG (%(default)s)")
    add_switch(
        r, "html", "write report.html as well: one page with curves, settings and images; --dataset shows their pixels"
    )
    unused = ("label_column", "labels", "label_map", "skip_unreadable", "max_images", "stride")
    add_data_options(r, leave_out=unused, dataset=None, split=None)
    r.add_argument(
        "--model",
        help="model whose preprocessing shows the images, where the data set's are resized or cropped; by default that of the run",
    )
    r.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """`hf-smoothing report`."""
    from hf_smoothing.cli.places import check_places
    from hf_smoothing.records import RUN_FILE, read_settings
    from hf_smoothing.reports import report

    if args.dataset is not None and not args.html:
        raise ValueError("--dataset shows the images of the page that --html writes. Add --html.")
    if args.model is not None and args.dataset is None:
        raise ValueError("--model says how the images of --dataset are resized and cropped. Add --dataset.")
    where = args.output_dir
    check_places(where, args.dataset, args.model)
    for settings in (read_settings(run) for run in args.runs if (run / RUN_FILE).is_file()):
        check_places(where, settings.get("dataset", {}).get("id"))
    text = report(
        args.runs,
        thresholds=args.thresholds,
        output_dir=where,
        names=args.names,
        html=args.html,
        pixels_of=None if args.dataset is None else _pixels_of(args),
    )
    print(text)
    curves = ", with the curves beside it" if "\n![" in text else ""
    print(f"Written to {where / ('report.html' if args.html else 'report.md')}{curves}.")
    return 0


def _pixels_of(args: argparse.Namespace) -> PixelsOf:
    """Pixels of a run's images from the data set; what a run knows of it need not be said again."""
    from hf_smoothing.certification.rows import recorded_pixels
    from hf_smoothing.cli.recorded import load_recorded, recorded_choice
    from hf_smoothing.data.opening import open_pixels

    opened: dict[Path, Any] = {}

    def pixels(run: Any, index: int) -> Any:
        if run.path not in opened:
            framed = tuple(run.settings["resolution"][1:])
            if args.model is not None:
                framed = load_recorded(args.model, run, device="cpu")
            opened[run.path] = open_pixels(recorded_choice(args, run), framed, labelled=False)
        return recorded_pixels(opened[run.path], run, index).numpy()

    return pixels
