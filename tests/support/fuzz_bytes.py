"""Mutations of files: a few changes of bytes, or of one JSON value to another, so that most inputs are nearly right."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any


LONGEST = 1 << 16
"""Bytes of an input."""

TOKENS = [
    b"null", b"true", b"[]", b"{}", b'""', b"-1", b"0", b"-0.0", b"NaN", b"-Infinity", b"1e999", b"1e-999", b"9" * 19, b"9" * 400,
    b"9" * 5000, b"0x" + b"f" * 5000, b"1_0", "٣".encode(), b"\x00", b"\xff", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\r", b"\n", b"\r\n",
    b"\t", b"\x0b", b"\x85", b",", b";", b":", b'"', b"'", b"\\", b"\\ud800", b"\\u0000", "\U0001f600".encode(), "\u202e".encode(),
    b"[" * 2000, b"{'a':" * 500, b'{"a":' * 500, b"[[[", b"]]]", b"&a ", b"*a", b"<<: ", b"!!python/object:os.system ", b"2001-01-01",
    b"? [a]\n: ", b"- ", b"|\n", b"\xed\xa0\x80", b"idx\tlabel\tpredict\tradius\n", b"1 day, 0:00:01", b"%", b"#",
]  # fmt: skip

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3.5, -0.5, 1e308, -1e308, float("inf"), float("nan"), 10**9, 2**31, 2**63, 2**64, 10**400, "", "x",
    "0.5", "\ud800", "NaN", "x" * 5000, [], {}, [None], [[]], [0.0, 0.25], [0.25, 0.0], list(range(100)), {"a": 1}, {"id": 3}, {"0": 7},
    {"range": [0, 4, 1]}, {"range": [0, 4, 0]}, {"range": None}, [3, 4, 4], [0, 0, 0], [2**40, 2**40, 2**40], "one-sided", "runner-up", "grid",
    "linf", "l2", "fixed-n", "sequential, error spending", "randomized-smoothing", "interval-bounds", [10**6] * 3, [1, 10**6], -(10**400),
]  # fmt: skip
KEYS = ["index", "draws", "partial", "counts_by_look", "label", "prediction", "radius", "p_lower", "certified_targets", "rule", "n", "n0", "targets",
        "looks", "informative", "indices", "unreadable", "num_images", "resolution", "model", "dataset", "id", "selection", "class_names",
        "rounding", "largest", "sigma", "alpha", "bound", "method", "norm", "", "0", "1", "__class__", "x" * 100]  # fmt: skip


def mutate(source: random.Random, corpus: Sequence[bytes]) -> bytes:
    """One input: an entry of the corpus with one to five changes."""
    data = source.choice(corpus)
    for _ in range(1 + int(source.expovariate(1.0)) % 5):
        other = _json_change(source, data) if source.random() < 0.6 else None
        data = _byte_change(source, data, corpus) if other is None else other
    return data[:LONGEST]


def _byte_change(source: random.Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    change = source.choice(BYTE_CHANGES)
    start = source.randrange(len(data) + 1)
    end = min(len(data), start + source.choice((1, 1, 2, 4, 16, 64, 300)))
    return change(source, data[:start], data[start:end], data[end:], corpus)


ByteChange = Callable[[random.Random, bytes, bytes, bytes, Sequence[bytes]], bytes]


def _times(source: random.Random) -> int:
    return source.choice((2, 2, 2, 3, 10, 100)) if source.random() < 0.98 else 3000


BYTE_CHANGES: list[ByteChange] = [
    lambda source, before, part, after, corpus: before + after,
    lambda source, before, part, after, corpus: before + part * _times(source) + after,
    lambda source, before, part, after, corpus: before + source.choice(TOKENS) + after,
    lambda source, before, part, after, corpus: before + source.choice(TOKENS) + part + after,
    lambda source, before, part, after, corpus: before + bytes(byte ^ (1 << source.randrange(8)) for byte in part[:1]) + part[1:] + after,
    lambda source, before, part, after, corpus: before + source.randbytes(len(part)) + after,
    lambda source, before, part, after, corpus: after + part + before,
    lambda source, before, part, after, corpus: before,
    lambda source, before, part, after, corpus: before + source.choice(corpus)[-len(after) - 1 :],
    lambda source, before, part, after, corpus: before + part[::-1] + after,
]  # fmt: skip


def _json_change(source: random.Random, data: bytes) -> bytes | None:
    """Another value, key or element in one of the lines; lines in another order, or twice. None where the line is no JSON."""
    lines = data.split(b"\n")
    place = source.randrange(len(lines))
    if len(lines) > 1 and source.random() < 0.1:
        other = source.randrange(len(lines))
        lines[place], lines[other] = lines[other], lines[place]
        return b"\n".join(lines if source.random() < 0.5 else [*lines, lines[place]])
    try:
        value = json.loads(lines[place])
    except (ValueError, RecursionError):
        return None
    try:
        lines[place] = json.dumps(_changed(source, value)).encode()
    except (ValueError, RecursionError):  # too deep, or a number of more digits than can be written
        return None
    return b"\n".join(lines)


def _changed(source: random.Random, value: Any) -> Any:
    """The value with one part of it changed, chosen on the way down."""
    if not isinstance(value, (dict, list)) or not value or source.random() < 0.15:
        return _instead(source, value)
    if isinstance(value, list):
        place = source.randrange(len(value))
        kind = source.random()
        if kind < 0.1:
            return value[:place] + value[place + 1 :]
        if kind < 0.2:
            return value[:place] + [value[place]] * _times(source) + value[place:]
        return [_changed(source, one) if number == place else one for number, one in enumerate(value)]
    key = source.choice(list(value))
    kind = source.random()
    if kind < 0.1:
        return {other: one for other, one in value.items() if other != key}
    if kind < 0.2:
        return value | {source.choice(KEYS): source.choice(VALUES)}
    if kind < 0.25:
        return {source.choice(KEYS) if other == key else other: one for other, one in value.items()}
    return value | {key: _changed(source, value[key])}


def _instead(source: random.Random, value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and source.random() < 0.5:
        if not abs(value) < 1e300:
            return 0
        return source.choice(
            (value + 1, value - 1, -value, value * 2, value / 2, value * 1e6, str(value), [value], float(value))
        )
    return source.choice(VALUES)
