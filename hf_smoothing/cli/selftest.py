"""`hf-smoothing selftest`: known answers on this machine."""

from __future__ import annotations

import argparse
from typing import Any


WIDTH = 28


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    s = commands.add_parser(
        "selftest", help="check noise, bounds, certificates and records on this machine against known answers"
    )
    s.add_argument("--device", help="e.g. cpu or cuda; by default a GPU if there is one")
    s.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """`hf-smoothing selftest`."""
    from hf_smoothing.selftest import Line, run_selftest

    def show(line: Line) -> None:
        print(f"{line.name:{WIDTH}}  {line.result:8}  {line.seconds:5.1f} s  {line.says}", flush=True)

    found = run_selftest(args.device, progress=show)
    print(f"\nFor a bug report: {found.bug_report}")
    if not found.passed:
        print("Do not trust certificates of this installation before this is explained.")
    return 0 if found.passed else 1
