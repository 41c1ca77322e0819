"""From the words of a command line to its options, for the verbs and the examples: unknown options are named with what is near, and a
file may give values.
"""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from hf_smoothing.cli.config_file import take_values
from hf_smoothing.cli.values import cure, number
from hf_smoothing.spelling import nearest


Values = TypeVar("Values")

CONFIG = "--config"
USAGE_LINES = 40
"""A usage of more lines than this hides the message that follows it."""

OPTION_LINES = 6


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """Add `--config FILE`."""
    parser.add_argument(
        CONFIG, metavar="FILE", default=argparse.SUPPRESS,
        help="YAML or JSON file with values of the options here, by their names; an option that is given here as well wins",
    )  # fmt: skip


def add_switch(parser: Any, name: str, meaning: str, default: bool = False) -> None:
    """Add an option that is on or off: `--name` and `--no-name`, of which the one that is the default is unlisted, and wins over a file.

    Args:
        parser: Parser of a command.
        name: Name of the option, with underscores.
        meaning: Help of the other one.
        default: Whether it is on where nothing is said.
    """
    flag = name.replace("_", "-")
    help_on, help_off = (argparse.SUPPRESS, meaning) if default else (meaning, argparse.SUPPRESS)
    parser.add_argument(f"--{flag}", action="store_true", default=default, help=help_on)
    parser.add_argument(f"--no-{flag}", dest=name, action="store_false", default=default, help=help_off)


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
        with _explained(parser):
            return parser.parse_args(words)
    return parse_options(verb, words[1:], argparse.Namespace(command=words[0]))


def parse_options(
    parser: argparse.ArgumentParser, words: Sequence[str] | None = None, into: argparse.Namespace | None = None
) -> argparse.Namespace:
    """As `parser.parse_args`; ends the program with status 2 and an explanation on an unknown option or a bad file of `--config`."""
    rest = _prepared(parser, words)
    with _explained(parser):
        if any(not (action.option_strings or action.required) for action in parser._actions):
            # Arguments by place that the file has given: argparse would take them as missing at the first option.
            return _at_home(parser.parse_intermixed_args(rest, into))
        return _at_home(parser.parse_args(rest, into))


def parse_dataclasses(parser: Any, words: Sequence[str] | None = None) -> tuple[Any, ...]:
    """As `HfArgumentParser.parse_args_into_dataclasses`, with `--config FILE`; ends the program as `parse_options` does."""
    add_config_option(parser)
    rest = _prepared(parser, words)
    try:
        with _explained(parser):
            *found, left = parser.parse_args_into_dataclasses(
                rest, return_remaining_strings=True, look_for_args_file=False
            )
    except (ValueError, TypeError) as error:
        parser.error(str(error))
    if left:
        parser.error(f"unknown words: {' '.join(left)}. Every value follows its option.")
    return tuple(map(_at_home, found))


def _at_home(values: Values) -> Values:
    """The values with `~` at the start of a path as the home folder: a shell leaves it in `--output-dir=~/x` and in quotes, and files of `--config` have no shell."""
    for name, value in vars(values).items():
        kept = [_expanded(one) for one in value] if isinstance(value, list) else _expanded(value)
        if kept != value:
            setattr(values, name, kept)
    return values


def _expanded(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("~"):
        return os.path.expanduser(value)
    return value.expanduser() if isinstance(value, Path) else value


@contextmanager
def _explained(parser: argparse.ArgumentParser) -> Iterator[None]:
    """End the program on a value that an option cannot have, with what may have been meant and without the usage, which hides it."""
    before, parser.exit_on_error = parser.exit_on_error, False
    try:
        yield
    except argparse.ArgumentError as error:
        action = next(
            (one for one in parser._actions if argparse.ArgumentError(one, "").argument_name == error.argument_name),
            None,
        )
        given = error.message.partition("'")[2].partition("'")[0]
        if action is None or not error.message.startswith("invalid"):
            parser.error(str(error))
        _refuse(parser, " ".join(filter(None, (f"{error}.", cure(action, given)))))
    finally:
        parser.exit_on_error = before


def _refuse(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    """As `parser.error`, with the way to the help in place of the usage."""
    parser.exit(2, f"{parser.prog}: error: {message}\n{parser.prog} --help lists the options.\n")


def _prepared(parser: argparse.ArgumentParser, words: Sequence[str] | None) -> list[str]:
    """The words without `--config FILE`, whose values are now the parser's defaults."""
    words = list(sys.argv[1:] if words is None else words)
    parser.register("type", float, number)
    if parser.format_usage().count("\n") > USAGE_LINES:
        needed = (f"{action.option_strings[-1]} ..." for action in parser._actions if action.required)
        parser.usage = f"%(prog)s [--help] {' '.join(needed)} [options]"
    _refuse_unknown(parser, words)
    rest, files = _without_config(parser, words)
    if len(files) > 1:
        parser.error(f"{CONFIG} is given {len(files)} times. Put all values into one file.")
    try:
        for file in files:
            take_values(parser, os.path.expanduser(file))
    except ValueError as error:
        _refuse(parser, str(error))
    return rest


def _refuse_unknown(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    known = parser._option_string_actions
    said = [word.split("=")[0] for word in words[: words.index("--") if "--" in words else None] if word[:2] == "--"]
    if unknown := [flag for flag in said if flag not in known]:
        near = {flag: nearest(flag, [name for name in known if name[:2] == "--"]) for flag in unknown}
        found = "; ".join(flag + (f", did you mean {near[flag]}?" if near[flag] else "") for flag in unknown)
        if not all(near.values()):
            found += f"\n{_option_list(parser)}"
        _refuse(parser, f"unknown option: {found}")


def _option_list(parser: argparse.ArgumentParser) -> str:
    """The names of the options, in a few lines."""
    names = [
        action.option_strings[-1]
        for action in parser._actions
        if action.option_strings and action.help != argparse.SUPPRESS
    ]
    return "\n".join(
        textwrap.wrap(
            f"Options: {' '.join(names)}",
            119,
            max_lines=OPTION_LINES,
            placeholder=" ...",
            break_on_hyphens=False,
            break_long_words=False,
        )
    )


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
