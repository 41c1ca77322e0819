"""The folder of an analysis: `transfer.json` with its settings, and a JSON record a measurement."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from hf_smoothing.records import RunError


SETTINGS = "transfer.json"


def read_analysis(output: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The settings (with "about") and the records by name.

    Raises:
        RunError: if there are none.
    """
    folder = Path(output)
    if not (folder / SETTINGS).exists():
        raise RunError(f"{folder} holds no transfer analysis. Make one with `hf-smoothing transfer`.")
    records = {file.stem: read_record(file) for file in sorted((folder / "records").glob("*.json"))}
    return read_record(folder / SETTINGS), records


def read_record(file: Path) -> dict[str, Any]:
    """A JSON object of an analysis.

    Raises:
        RunError: if it is none, naming the file.
    """
    cure = "Delete it, and it is measured again."
    if file.name == SETTINGS:  # without it nobody knows what the records are of
        cure = f"Delete the folder {file.parent}, or use another --output-dir."
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{file} is damaged or not of an analysis ({error}). {cure}") from error
    if not isinstance(found, dict):
        raise RunError(f"{file} is not of an analysis: it holds no JSON object. {cure}")
    return found


def bits(flags: Any) -> str:
    """Flags as a string of 0 and 1."""
    return "".join("1" if flag else "0" for flag in (flags.tolist() if hasattr(flags, "tolist") else flags))


def from_bits(text: str) -> list[bool]:
    """Back from a record's string of 0 and 1."""
    return [character == "1" for character in text]
