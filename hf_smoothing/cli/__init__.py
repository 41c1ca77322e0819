"""`hf-smoothing certify | report | card | attack | export | robustness-transfer | demo | selftest | audit | env | completion`."""

from __future__ import annotations

import argparse
import functools
import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hf_smoothing import __version__
from hf_smoothing.cli import (
    attack,
    audit,
    card,
    certify,
    completion,
    demo,
    env,
    export,
    report,
    robustness_transfer,
    selftest,
)
from hf_smoothing.cli.explained import warnings_in_flags
from hf_smoothing.cli.launched import left_to_first
from hf_smoothing.cli.options import given_words, in_flags
from hf_smoothing.cli.parsing import add_config_option, parse_verb
from hf_smoothing.cli.places import trouble_of
from hf_smoothing.cli.streams import READER_GONE, ReaderGoneError, flushed, print_anything


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 if what was tested failed, 2 on an error that is explained, 130 after Ctrl-C, 141 where nobody reads on."""
    print_anything()
    try:
        with flushed():
            return _run(argv)
    except ReaderGoneError:
        return READER_GONE


def _run(argv: Sequence[str] | None) -> int:
    parser = build_parser()
    args = parse_verb(parser, verbs_of(parser), argv)
    if left_to_first(args.command):
        return 0
    names = [action.dest for action in verbs_of(parser)[args.command]._actions]
    given = given_words(vars(args).values())
    try:
        with _rare_collections(), flushed(), warnings_in_flags(f"hf-smoothing {args.command}", names, given):
            status: int = args.run(args)
        return status
    except KeyboardInterrupt as interrupt:
        print(str(interrupt) or "Interrupted.", file=sys.stderr)
        return 130
    except (ValueError, TypeError, OSError, ImportError) as error:
        if isinstance(error, ReaderGoneError):
            raise
        print(f"hf-smoothing {args.command}: {in_flags(trouble_of(error), names, given)}", file=sys.stderr)
        return 2


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Look for cyclic garbage after a hundred times as many new objects.

    Importing torch and transformers makes hundreds of thousands of objects that stay: to walk them again and again is a fifth of the start.
    """
    before = gc.get_threshold()
    gc.set_threshold(100 * before[0], *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="hf-smoothing",
        description="Certify image classifiers by randomized smoothing or interval bounds.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    # An abbreviation would change its meaning with the next option.
    exact: Any = functools.partial(argparse.ArgumentParser, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=exact)
    for command in (
        certify,
        report,
        card,
        attack,
        export,
        robustness_transfer,
        demo,
        selftest,
        audit,
        env,
        completion,
    ):
        command.add(commands)
    for verb in verbs_of(parser).values():
        if len(verb._actions) > 1:  # more than --help
            add_config_option(verb)
    return parser


def verbs_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of the verbs by name."""
    return next(action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
