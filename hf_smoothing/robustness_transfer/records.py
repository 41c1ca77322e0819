"""The folder of an analysis: `analysis.json` with its settings, and one JSON record per measurement."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hf_smoothing.json_text import parse_json
from hf_smoothing.records import RunError


SETTINGS = "analysis.json"

_NAMES = re.compile(r"attack-\w+-[\w-]+-(linf|l2)|universal-\w+-(linf|l2)|(similarity|frequency)-\w+")
"""The texts that are keys."""
_FIELDS = {"attack": ("epsilons", "right"), "universal": ("epsilon", "changed"), "frequency": ("low", "high")}
"""What a record of each kind has; one of similarity has pairs of networks."""


@dataclass(frozen=True)
class Key:
    """Which measurement a record is of; its text is the name of the record's file.

    Attributes:
        kind: The kind, "attack", "universal", "similarity" or "frequency".
        subject: The network's role; of similarity the kind of images.
        attack: Its name, of an attack.
        norm: The norm, "linf" or "l2", of an attack or a universal perturbation.

    >>> str(Key("attack", "finetuned", "mi-fgsm", "linf"))
    'attack-finetuned-mi-fgsm-linf'
    >>> Key.parse("attack-finetuned-mi-fgsm-linf").attack
    'mi-fgsm'
    """

    kind: str
    subject: str
    attack: str = ""
    norm: str = ""

    def __str__(self) -> str:
        return "-".join(part for part in (self.kind, self.subject, self.attack, self.norm) if part)

    @classmethod
    def parse(cls, text: str) -> Key:
        """The key of which this is the text.

        Raises:
            ValueError: If it is of none.
        """
        if not _NAMES.fullmatch(text):
            raise ValueError(f"A record is named as {cls('attack', 'finetuned', 'pgd', 'linf')}, got {text!r}.")
        kind, subject, *rest = text.split("-")
        norm = rest.pop() if rest else ""
        return cls(kind, subject, "-".join(rest), norm)


def pair_key(first: str, second: str) -> str:
    """The key of two networks, by their roles, in a record of similarity."""
    return f"{first}-{second}"


def pair_of(key: str) -> tuple[str, str]:
    """The roles of the two networks of which this is the key.

    >>> pair_of(pair_key("pretrained", "finetuned"))
    ('pretrained', 'finetuned')
    """
    first, second = key.split("-")
    return first, second


Records = Mapping[Key, dict[str, Any]]


def read_analysis(output: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[Key, dict[str, Any]]]:
    """The settings (with "about") and the records by their keys; files of other names are left alone.

    Raises:
        RunError: If there are none, or a record is damaged.
    """
    folder = Path(output)
    if not (folder / SETTINGS).exists():
        raise RunError(
            f"{folder} holds no analysis of robustness transfer. Make one with `Analysis(..., output).run()`."
        )
    files = sorted(file for file in (folder / "records").glob("*.json") if _NAMES.fullmatch(file.stem))
    return read_record(folder / SETTINGS), {Key.parse(file.stem): read_record(file) for file in files}


def read_record(file: Path) -> dict[str, Any]:
    """A JSON object of an analysis.

    Raises:
        RunError: If it is none, naming the file.
    """
    return record_of(file, file.read_bytes())


def record_of(file: Path, content: bytes) -> dict[str, Any]:
    """The record in the bytes of a file, as `read_record`."""
    cure = "Delete it, and it is measured again."
    if file.name == SETTINGS:  # without it the source of the records is unknown
        cure = f"Delete the folder {file.parent}, or use another output folder."
    try:
        found = parse_json(content)
    except ValueError as error:
        raise RunError(f"{file} is damaged or not of an analysis ({error}). {cure}") from error
    if not isinstance(found, dict):
        raise RunError(f"{file} is not of an analysis: it holds no JSON object. {cure}")
    fields = ("settings", "about") if file.name == SETTINGS else _FIELDS.get(file.stem.partition("-")[0], ())
    missing = [name for name in fields if name not in found]
    if missing or not found:
        raise RunError(f"{file} is not of an analysis: it has no {(missing or ['measurement'])[0]!r}. {cure}")
    return found


def bits(flags: Any) -> str:
    """Flags, one for each image, as a string of 0 and 1.

    Args:
        flags: Truth values (images,): a list, an array or a tensor on any device.

    Raises:
        ValueError: If they have another dimension, of which each row would count as true, or are something else.
    """
    values = np.asarray(flags.tolist() if hasattr(flags, "tolist") else flags)
    if values.ndim != 1 or not (values.dtype == bool or not len(values)):
        raise ValueError(
            f"Flags of a record must be one truth value for each image, got {values.dtype} of shape {values.shape}. Compare answers (images,) with labels "
            "(images,)."
        )
    return "".join("1" if flag else "0" for flag in values.tolist())


def from_bits(text: str) -> list[bool]:
    """Back from a record's string of 0 and 1."""
    return [character == "1" for character in text]
