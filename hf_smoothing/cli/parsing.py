"""From the words of a command line to its options, for the verbs and the examples: unknown options are named with what is near, and a
file may give values.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from hf_smoothing.cli.config_file import take_values
from hf_smoothing.spelling import nearest


CONFIG = "--config"
USAGE_LINES = 40
"""A usage of more lines than this hides the message that follows it."""


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """Add `--config FILE`."""
    parser.add_argument(
        CONFIG, metavar="FILE", default=argparse.SUPPRESS,
        help="YAML or JSON file with values of the options here, by their names; an option that is given here as well wins",
    )  # fmt: skip


def add_switch(parser: Any, name: str, meaning: str) -> None:
    """Add an option that is on or off: `--name`, and unlisted `--no-name`, which wins over a file that says true.

    Args:
        parser: Parser of a command.
        name: Name of the option, with underscores.
        meaning: Its help.
    """
    flag = name.replace("_", "-")
    parser.add_argument(f"--{flag}", action="store_true", help=meaning)
    parser.add_argument(f"--no-{flag}", dest=name, action="store_false", default=False, help=argparse.SUPPRESS)


def parse_verb(
    parser: argparse.ArgumentParser, verbs: Mapping[str, argparse.ArgumentParser], words: Sequence[str] | None
) -> argparse.Namespace:
    """The options of a command with verbs.

    Args:
        parser: Parser of the command.
        verbs: Parsers of its verbs by name.
        words: Words after the name of the command; those of this process by default.
    """
    words = list(sys.argv[1:] if words is None else words)
    verb = verbs.get(words[0]) if words else None
    if verb is None:
        return parser.parse_args(words)
    return parse_options(verb, words[1:], argparse.Namespace(command=words[0]))


def parse_options(
    parser: argparse.ArgumentParser, words: Sequence[str] | None = None, into: argparse.Namespace | None = None
) -> argparse.Namespace:
    """As `parser.parse_args`; ends the program with status 2 and an explanation on an unknown option or a bad file of `--config`."""
    rest = _prepared(parser, words)
    if any(not (action.option_strings or action.required) for action in parser._actions):
        # Arguments by place that the file has given: argparse would take them as missing at the first option.
        return parser.parse_intermixed_args(rest, into)
    return parser.parse_args(rest, into)


def parse_dataclasses(parser: Any, words: Sequence[str] | None = None) -> tuple[Any, ...]:
    """As `HfArgumentParser.parse_args_into_dataclasses`, with `--config FILE`; ends the program as `parse_options` does."""
    add_config_option(parser)
    rest = _prepared(parser, words)
    try:
        *found, left = parser.parse_args_into_dataclasses(
            rest, return_remaining_strings=True, look_for_args_file=False
        )
    except (ValueError, TypeError) as error:
        parser.error(str(error))
    if left:
        parser.error(f"unknown words: {' '.join(left)}. Every value follows its option.")
    return tuple(found)


def _prepared(parser: argparse.ArgumentParser, words: Sequence[str] | None) -> list[str]:
    """The words without `--config FILE`, whose values are now the parser's defaults."""
    words = list(sys.argv[1:] if words is None else words)
    if parser.format_usage().count("\n") > USAGE_LINES:
        needed = (f"{action.option_strings[-1]} ..." for action in parser._actions if action.required)
        parser.usage = f"%(prog)s [--help] {' '.join(needed)} [options]"
    _refuse_unknown(parser, words)
    rest, files = _without_config(parser, words)
    if len(files) > 1:
        parser.error(f"{CONFIG} is given {len(files)} times. Put all values into one file.")
    try:
        for file in files:
            take_values(parser, file)
    except ValueError as error:
        parser.error(str(error))
    return rest


def _refuse_unknown(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    known = parser._option_string_actions
    said = [word.split("=")[0] for word in words[: words.index("--") if "--" in words else None] if word[:2] == "--"]
    if unknown := [flag for flag in said if flag not in known]:
        near = {flag: nearest(flag, [name for name in known if name[:2] == "--"]) for flag in unknown}
        found = "; ".join(flag + (f", did you mean {near[flag]}?" if near[flag] else "") for flag in unknown)
        parser.error(f"unknown option: {found}\n{parser.prog} --help explains all options.")


def _without_config(parser: argparse.ArgumentParser, words: Sequence[str]) -> tuple[list[str], list[str]]:
    rest: list[str] = []
    files: list[str] = []
    left = iter(words)
    for word in left:
        if word == "--":
            rest += [word, *left]
        elif word.split("=")[0] != CONFIG:
            rest.append(word)
        elif "=" in word:
            files.append(word.partition("=")[2])
        elif (file := next(left, None)) is not None and file[:2] != "--":
            files.append(file)
        else:
            parser.error(f"{CONFIG} must be followed by a YAML or JSON file.")
    return rest, files
