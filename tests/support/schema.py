"""The part of JSON Schema that the schemas of the record format use; an unknown keyword is an error, so that none is passed over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "null": (type(None),),
}  # fmt: skip
ANNOTATIONS = {"$schema", "title", "description"}
TOGETHER = {"then", "else", "properties", "additionalProperties"}


def faults(schema: Mapping[str, Any], value: Any, place: str = "$") -> Iterator[str]:
    """What is wrong with a value, each with its place."""
    for key, wanted in schema.items():
        if key not in ANNOTATIONS | TOGETHER:
            yield from CHECKS[key](schema, wanted, value, place)
    if isinstance(value, dict):
        yield from _keys(schema, value, place)


def _is(kind: str, value: Any) -> bool:
    return isinstance(value, KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _type(schema: Mapping[str, Any], wanted: Any, value: Any, place: str) -> Iterator[str]:
    if not any(_is(kind, value) for kind in ([wanted] if isinstance(wanted, str) else wanted)):
        yield f"{place} must be {wanted}, got {value!r}"


def _compared(text: str, holds: Any) -> Any:
    def check(schema: Mapping[str, Any], wanted: Any, value: Any, place: str) -> Iterator[str]:
        if not holds(value, wanted):
            yield f"{place} must be {text} {wanted!r}, got {value!r}"

    return check


def _number(holds: Any) -> Any:
    return lambda value, limit: not _is("number", value) or holds(value, limit)


def _condition(schema: Mapping[str, Any], wanted: Any, value: Any, place: str) -> Iterator[str]:
    branch = "else" if any(faults(wanted, value)) else "then"
    yield from faults(schema.get(branch, {}), value, place)


def _items(schema: Mapping[str, Any], wanted: Any, value: Any, place: str) -> Iterator[str]:
    for number, item in enumerate(value if isinstance(value, list) else ()):
        yield from faults(wanted, item, f"{place}[{number}]")


def _required(schema: Mapping[str, Any], wanted: Any, value: Any, place: str) -> Iterator[str]:
    yield from (f"{place} lacks {key!r}" for key in wanted if isinstance(value, dict) and key not in value)


def _keys(schema: Mapping[str, Any], value: dict[str, Any], place: str) -> Iterator[str]:
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for key, inside in value.items():
        if key in known:
            yield from faults(known[key], inside, f"{place}.{key}")
        elif others is False:
            yield f"{place} has an unknown key {key!r}"
        elif others is not True:
            yield from faults(others, inside, f"{place}.{key}")


CHECKS = {
    "type": _type,
    "if": _condition,
    "items": _items,
    "required": _required,
    "const": _compared("equal to", lambda value, wanted: type(value) is type(wanted) and value == wanted),
    "enum": _compared("one of", lambda value, wanted: value in wanted),
    "minimum": _compared("at least", _number(lambda value, limit: value >= limit)),
    "maximum": _compared("at most", _number(lambda value, limit: value <= limit)),
    "exclusiveMinimum": _compared("above", _number(lambda value, limit: value > limit)),
    "minItems": _compared("as long as", lambda value, length: not isinstance(value, list) or len(value) >= length),
    "maxItems": _compared("as short as", lambda value, length: not isinstance(value, list) or len(value) <= length),
}
