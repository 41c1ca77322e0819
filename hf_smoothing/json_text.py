"""JSON from files and options that people write: a value, or a `ValueError` that says what is wrong, whatever the text is. And values for JSON.

No dependencies, so that every room can ask here.
"""

from __future__ import annotations

import json
from typing import Any


DEEPEST = 64
"""Levels of lists and objects in each other: ten times what a run writes, and far from where functions that call themselves give up."""


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Args:
        text: The text; bytes are taken as UTF-8.

    Raises:
        ValueError: If it is not UTF-8 or no JSON, holds a whole number of thousands of digits or half a character, or is nested deeper
            than `DEEPEST`.

    >>> parse_json(b'{"sigma": 0.5}')
    {'sigma': 0.5}
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"it is nested deeper than {DEEPEST} levels") from error
    if text.count("[") + text.count("{") > DEEPEST and _deeper(value, DEEPEST):
        raise ValueError(f"it is nested deeper than {DEEPEST} levels")
    if "\\u" in text:  # an escape may stand for half of a character, which no file can hold
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def as_json(value: Any) -> Any:
    """A value as JSON has it: what it has no word for, such as a network, is named by its class.

    >>> as_json({"weight": (1, 2.5), "teacher": object()})
    {'weight': [1, 2.5], 'teacher': 'object'}
    """
    if isinstance(value, dict):
        return {str(key): as_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(entry) for entry in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__


def _deeper(value: Any, levels: int) -> bool:
    layer = [value] if isinstance(value, (list, dict)) else []
    for _ in range(levels):
        inner = (one.values() if isinstance(one, dict) else one for one in layer)
        layer = [inside for values in inner for inside in values if isinstance(inside, (list, dict))]
    return bool(layer)
