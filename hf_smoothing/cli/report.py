"""`hf-smoothing report`: table and curves."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hf_smoothing.cli.parsing import add_switch


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    r = commands.add_parser("report", help="table and curves from run folders")
    r.add_argument("runs", nargs="+", type=Path, help="run folders, or logs in the format that papers publish")
    r.add_argument(
        "--thresholds", type=float, nargs="+", help="radii of the table; by default the targets of the runs"
    )
    r.add_argument("--names", nargs="+", help="names of the models, one per run")
    r.add_argument("--output-dir", type=Path, default=Path("."), help="folder of report.md and the PNG (%(default)s)")
    add_switch(r, "html", "write report.html as well: one page with curves, settings and images")
    r.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """`hf-smoothing report`."""
    from hf_smoothing.reports import report

    where = args.output_dir
    print(report(args.runs, thresholds=args.thresholds, output_dir=where, names=args.names, html=args.html))
    print(f"Written to {where / ('report.html' if args.html else 'report.md')}, with the curves beside it.")
    return 0
