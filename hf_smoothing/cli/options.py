"""Options of the command line that are defined elsewhere, and messages of the library in its words."""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import MISSING, fields
from typing import Any, get_args, get_type_hints

from hf_smoothing.certification.options import RunOptions, options_of
from hf_smoothing.cli.parsing import add_switch
from hf_smoothing.data.choice import DataChoice


def add_data_options(
    parser: argparse.ArgumentParser,
    *,
    positional: tuple[str, ...] = (),
    leave_out: tuple[str, ...] = (),
    **defaults: Any,
) -> None:
    """Add an option for each field of `DataChoice`.

    Args:
        parser: Parser of a command.
        positional: Fields that are arguments by their place.
        leave_out: Fields that mean nothing to the command.
        defaults: Defaults of fields, where the command has others.
    """
    hints = get_type_hints(DataChoice)
    for one in (one for one in fields(DataChoice) if one.name not in leave_out):
        values: dict[str, Any] = {key: one.metadata[key] for key in ("help", "choices") if key in one.metadata}
        if one.name in positional:
            parser.add_argument(one.name, **values)
            continue
        default = defaults.get(one.name, None if one.default is MISSING else one.default)
        values["help"] = values["help"].removesuffix(" (%(default)s)")
        if default is not None and hints[one.name] is not bool:
            values["help"] += " (%(default)s)"
        if one.default is MISSING and one.name not in defaults:
            values["required"] = True
        if hints[one.name] is bool:
            add_switch(parser, one.name, values["help"])
            continue
        if hints[one.name] in (int, int | None):
            values["type"] = int
        if one.name == "label_map":
            values["metavar"] = "FILE"
        parser.add_argument(f"--{one.name.replace('_', '-')}", default=default, **values)


def add_options(parser: argparse.ArgumentParser, kind: type) -> None:
    """Add a flag for each option of certification.

    Args:
        parser: Parser of a command.
        kind: A class of `hf_smoothing.certification.options`.
    """
    for one in options_of(kind).values():
        values: dict[str, Any] = {"default": one.default, "dest": one.name}
        known = set(get_args(one.type)) or {one.type}
        if bool in known:
            add_switch(parser, one.name, one.meaning.replace("%", "%%"))
            continue
        if one.choices:
            values["choices"] = one.choices
        elif int in known or float in known:
            values["type"] = int if int in known else float
        else:  # several numbers
            values |= {"type": float, "nargs": "+"}
        shown = "" if one.default is None else " (%(default)s)"
        values["help"] = one.meaning.replace("%", "%%") + shown
        parser.add_argument(f"--{one.name.replace('_', '-')}", **values)


def add_normalisation_options(parser: argparse.ArgumentParser) -> None:
    """Add what a checkpoint without an image processor does not say of its pixels."""
    for name, what in (("mean", "means"), ("std", "standard deviations")):
        parser.add_argument(
            f"--image-{name}", type=float, nargs="+",
            help=f"{what} by which a plain classifier's pixels are normalised, in [0, 1] pixel units, one for all channels or one each; where its checkpoint does not say",
        )  # fmt: skip


def normalisation(args: argparse.Namespace) -> dict[str, Any]:
    """What the options of `add_normalisation_options` say."""
    return {"image_mean": args.image_mean, "image_std": args.image_std}


def data_choice(args: argparse.Namespace) -> DataChoice:
    """What the options say."""
    return DataChoice(**{one.name: getattr(args, one.name) for one in fields(DataChoice) if hasattr(args, one.name)})


FLAGS = (
    *(one.name for one in fields(DataChoice)),
    *options_of(RunOptions),
    *(
        "sigma",
        "seed",
        "size",
        "image_mean",
        "image_std",
        "device",
        "largest",
        "cover_run",
        "batch_size",
        "attacks",
        "layers",
        "steps",
        "restarts",
        "copies",
        "thresholds",
        "names",
        "epochs",
        "indices",
        "max_claims",
        "radius",
        "timeout",
        "radii",
        "explore",
        "confirm",
        "false_alarm",
        "images_per_call",
    ),
)
"""Arguments of the library that have a flag of the same name."""
_VALUE = r"'[^']*'|\{[^}]*\}|\[[^\]]*\]|True|False|\.\.\.|\d+(?:\.\d+)?"
_END = r"(?![\w/\\=]|[.-]\w)"
"""After a value: nothing that makes it the part of a path."""


def flag_of(name: str, default: Any = None) -> str:
    """The flag that gives an option another value than its default.

    >>> flag_of("only_right", False), flag_of("cover_run", True)
    ('--only-right', '--no-cover-run')
    """
    return f"--{'no-' if default is True else ''}{name.replace('_', '-')}"


def given_words(values: Iterable[Any]) -> list[str]:
    """What a person has typed that could be taken for an argument of the library, such as a folder `seed=0`; the longest first.

    >>> given_words([["exp/seed=0", "exp"], 5, "--output_dir=size=32"])
    ['--output_dir=size=32', 'exp/seed=0', 'size=32']
    """
    words = [str(word) for value in values for word in (value if isinstance(value, list) else [value])]
    words += [word.partition("=")[2] for word in words if word.startswith("--")]
    return sorted((word for word in {*words} if "=" in word), key=lambda word: (-len(word), word))


def in_flags(message: str, names: Collection[str] = FLAGS, given: Sequence[str] = ()) -> str:
    """A message with the arguments of the library named as on the command line.

    Args:
        message: What the library says.
        names: The options of the command, with underscores; what it has not stays Python.
        given: Words that stay as they are, from `given_words`; parts of paths do in any case.

    >>> in_flags("`stride` must be at least 1.")
    '--stride must be at least 1.'
    >>> in_flags("Pass label_column=... or labels='by-number', label_map={...}, or skip_unreadable=True.")
    'Pass --label-column ... or --labels by-number, --label-map FILE, or --skip-unreadable.'
    >>> in_flags("Use mode='fixed', targets=[0.25, 0.5] or size=224, or pass cover_run=False.")
    'Use --mode fixed, --targets 0.25 0.5 or --size 224, or pass --no-cover-run.'
    >>> in_flags("Leave `size` out, or finetune with Model.from_base_pretrained(..., size=20).")
    'Leave --size out, or finetune with Model.from_base_pretrained(..., size=20).'
    >>> in_flags("Pass size=32, image_mean=[0.5, 0.5, 0.5] or cover_run=False.", names=["size"])
    'Pass --size 32, image_mean=[0.5, 0.5, 0.5] or cover_run=False.'
    >>> in_flags("seed=1 does not exist, nor exp/seed=0 or seed=0/run; pass seed=2.", given=["seed=1"])
    'seed=1 does not exist, nor exp/seed=0 or seed=0/run; pass --seed 2.'
    """
    known = "|".join(sorted({*FLAGS} & {*names}, key=len, reverse=True))
    if not known:
        return message

    def flag(match: re.Match[str]) -> str:
        name, value = match.groups()
        if name is None:  # a word of the person, or a call, which stays Python
            return match[0]
        if name == "label_map":
            value = "FILE"
        shown = "" if value in ("True", "False") else " " + value.strip("'[]").replace(",", "")
        return flag_of(name, value == "False") + shown

    message = re.sub(rf"`({known})`", lambda match: f"--{match[1].replace('_', '-')}", message)
    kept = "".join(f"{re.escape(word)}|" for word in given)
    return re.sub(rf"{kept}\w+\.\w+\([^()]*\)|(?<![\w./\\'\"-])({known})=({_VALUE}){_END}", flag, message)
