"""JSON files, and what two of them disagree about."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What two settings disagree about, in words.

    >>> differences({"epochs": 1, "noise": {"sigma": 0.5}}, {"epochs": 2, "noise": {"sigma": 0.5}})
    ['epochs was 1, is 2']
    """
    was, is_ = dict(_flat(before)), dict(_flat(now))
    keys = sorted(key for key in was | is_ if was.get(key) != is_.get(key))
    return [f"{key} was {was.get(key)!r}, is {is_.get(key)!r}" for key in keys]


def _flat(settings: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(settings, Mapping) and settings:
        for key, value in settings.items():
            yield from _flat(value, f"{above}.{key}".lstrip("."))
    else:
        yield above, settings


def read_json(path: Path) -> Any:
    """A JSON file, or None where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def write_json(path: Path, value: Any) -> None:
    """A whole file or none."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
