"""Values of options from a YAML or JSON file: checked as the words of a command line are, and called by the same names."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from hf_smoothing.cli.values import cure, number
from hf_smoothing.json_text import DEEPEST, parse_json
from hf_smoothing.spelling import nearest


class Number(str):
    """A number or a date in a file, as it is written: YAML 1.1 reads 010 as 8, 1:30 as 90 and 1.10 as 1.1, a command line does not."""


class _Loader(yaml.SafeLoader):
    """Reads numbers and dates as `Number`, also 1e-4, which YAML 1.1 takes for text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)
for _kind in ("int", "float", "timestamp"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", lambda loader, node: Number(loader.construct_scalar(node)))


def take_values(parser: argparse.ArgumentParser, file: str) -> None:
    """Make the values of a file the defaults of a parser, so that words of the command line win over them.

    Args:
        parser: Parser of a command.
        file: YAML or JSON file with one mapping, option -> value. Hyphens and underscores in names are the same.

    Raises:
        ValueError: If the file cannot be read, names an option twice or one that is unknown, or holds a value of another type.
    """
    take_pairs(parser, file, read_config(file))


def take_pairs(parser: argparse.ArgumentParser, file: str, pairs: list[tuple[str, Any]]) -> None:
    """Make keys and values from a file the defaults of a parser, as `take_values`."""
    known = options_by_name(parser)
    for name, (key, value) in _by_plain_name(file, pairs).items():
        if name not in known:
            near = nearest(name, known)
            instead = f"Did you mean `{near}`?" if near else f"The options are {', '.join(known)}."
            raise ValueError(f"{file}: `{key}` is no option of {parser.prog}. {instead}")
        action = known[name]
        try:
            action.default = _converted(action, value)
        except ValueError as error:
            raise ValueError(f"{file}: `{key}` must be {error}") from error
        action.required = False
        if not action.option_strings:
            action.nargs = "*" if action.nargs == "+" else "?"


def options_by_name(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """The options of a parser as a file calls them: flags without their hyphens, arguments by place as the usage shows them."""
    found: dict[str, argparse.Action] = {}
    for action in parser._actions:
        if action.default is not argparse.SUPPRESS:
            shown = action.dest if action.option_strings else action.metavar or action.dest
            found.setdefault(str(shown).lower(), action)
    return found


def read_config(file: str) -> list[tuple[str, Any]]:
    """The keys and values of a YAML or JSON file, in order; a key that stands there twice twice.

    Raises:
        ValueError: If it cannot be read, or is no mapping.
    """
    try:
        return config_of(Path(file).read_bytes(), file)
    except OSError as error:
        raise ValueError(
            f"The file of --config, {file}, cannot be read ({error.strerror}). Pass a YAML or JSON file with lines such as `sigma: 0.25`."
        ) from error


def config_of(content: bytes, file: str) -> list[tuple[str, Any]]:
    """The keys and values in the bytes of a file, as `read_config`; its name says whether it is JSON."""
    try:
        text = content.decode("utf-8")
        if Path(file).suffix.lower() == ".json":
            parse_json(text)  # or the error
            found = json.loads(text, parse_int=Number, parse_float=Number)
            keys = [key for key, _ in json.loads(text, object_pairs_hook=list)] if isinstance(found, dict) else []
        else:
            found, keys = _read_yaml(text)
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"The file of --config, {file}, cannot be read ({reason}). Pass a YAML or JSON file with lines such as `sigma: 0.25`."
        ) from error
    if not isinstance(found, dict):
        got = "nothing" if found is None else f"a {type(found).__name__}"
        raise ValueError(
            f"The file of --config, {file}, must hold one mapping of options to values, with lines such as `sigma: 0.25`, got {got}."
        )
    return [(key, found.get(key)) for key in keys]


def _read_yaml(text: str) -> tuple[Any, list[str]]:
    """A YAML document, and the keys of its mapping as they stand there.

    Raises:
        ValueError, yaml.YAMLError: If it is none. Parts of it may not stand for other parts (`&name`, `*name`): a few lines of those can
            hold more values than any memory. Nor may it be nested deeply: the time of the reader grows with the square of that.
    """
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"it is nested deeper than {DEEPEST} levels")
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"`*{event.anchor}` stands for another part of it; write the value out")
    found, node = _Loader(text).get_single_data(), yaml.compose(text, Loader=yaml.SafeLoader)
    return found, [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []


def _by_plain_name(file: str, pairs: list[tuple[str, Any]]) -> dict[str, tuple[str, Any]]:
    values: dict[str, tuple[str, Any]] = {}
    for key, value in pairs:
        name = key.replace("-", "_").lower()
        if name in values:
            raise ValueError(f"{file}: `{key}` stands there twice. Keep one of the two lines.")
        values[name] = (key, value)
    return values


def _converted(action: argparse.Action, value: Any) -> Any:
    """What the command line would make of a value. An error says what it must be."""
    if (
        action.const is True or getattr(action.type, "__name__", "") == "string_to_bool"
    ):  # a switch, or one of transformers
        if not isinstance(value, bool):
            raise ValueError(f"true or false, got {_shown(value)}.")
        return value
    if action.nargs in ("+", "*"):
        values = value if isinstance(value, list) else [value]
        if not values:
            raise ValueError("a list with at least one entry, got []. Leave the line out for the default.")
        return [_one(action, entry) for entry in values]
    if isinstance(value, list):
        raise ValueError(f"one value, {_wanted(action)}, got a list: {_shown(value)}.")
    return _one(action, value)


def _one(action: argparse.Action, value: Any) -> Any:
    kind: Any = number if action.type is float else action.type or str
    if value is None:
        raise ValueError(f"{_wanted(action)}, got nothing. Leave the line out for the default.")
    if isinstance(value, bool):
        raise ValueError(
            f"{_wanted(action)}, got {_shown(value)}. YAML reads yes, no, on and off as true and false: put quotes around text."
        )
    try:
        if isinstance(value, Mapping) and kind is str:  # options that take JSON
            return json.dumps(_as_json(value))
        made = kind(_as_json(value) if isinstance(value, Mapping) else str(value))
    except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
        raise ValueError(_refusal(action, value)) from error
    if action.choices is not None and made not in action.choices:
        raise ValueError(_refusal(action, value))
    return made


def _refusal(action: argparse.Action, value: Any) -> str:
    return f"{_wanted(action)}, got {_shown(value)}. {cure(action, str(value))}".rstrip()


def _wanted(action: argparse.Action) -> str:
    if action.choices is not None:
        return f"one of {', '.join(map(str, action.choices))}"
    kind: Any = action.type
    return {int: "a whole number", float: "a number", None: "text", str: "text", Path: "a path"}.get(
        kind, "a valid value"
    )


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, Number):
        return str(value)
    try:
        return json.dumps(_as_json(value), default=str)
    except TypeError:  # YAML also has bytes as keys
        return str(value)


def _as_json(value: Any) -> Any:
    """A value with its numbers as a command line reads them; what is none there stays a word."""
    if isinstance(value, Mapping):
        return {key: _as_json(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_as_json(one) for one in value]
    for kind in (int, float) if isinstance(value, Number) else ():
        with suppress(ValueError):
            return kind(value)
    return value
