"""A text for what a module or a configuration holds: the same for equal numbers, on any machine and in any process."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import PurePath
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_smoothing.certification.probes import GOLDEN


_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_DEVICE = re.compile(
    r"device\(type='\w+'(?:, index=\d+)?\)|\b(?:cpu|cuda|mps|xpu|hpu|npu|xla|meta)(?::\d+)?\b", re.IGNORECASE
)
_PATH = re.compile(r"(?<![\w./])/\w[\w.\-]*(?:/[\w.\-]*)+")
_QUOTED = re.compile(r"(?<!\w)b?(?:'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\")(?!\w)")
_INNERMOST = re.compile(r"\{[^(){}\[\]]*\}|\([^(){}\[\]]*\)|\[[^(){}\[\]]*\]")
_KEPT = re.compile("\0([0-9]+)\0")

DEVICE, FOLDER, OTHER = "device", "path", "other"
"""What stands for a device, for an absolute path, and for what has no text; texts themselves have quotation marks."""

_FEW, _MANY, _DEEP, _BITS = 8, 1 << 24, 6, 1024
"""Numbers in an array that are all stated; the largest number of them that are read, of containers in one another, and of bits in decimal digits."""
_CHUNK, _HUGE = 1 << 16, GOLDEN * 1e8
"""Numbers that are read at a time; what is larger is a sentinel, such as the least number of a type, whose position counts by itself."""
_MIXING = np.arange(1, _CHUNK + 1) * GOLDEN % 1.0


def told(value: Any, other: str | None = None) -> str | None:
    """A text for numbers, texts, arrays, dataclasses, namespaces, and containers of these; None where a part of it is something else, such as an object.

    1 and 1.0, a list and a tuple, a number of Python and of numpy have one text. Arrays of whole numbers are compared exactly, up to 2^24 of them. Larger floating-point
    arrays have mixtures of their values, to six digits, since another processor computes the tables that a network makes for itself to the last
    digit otherwise.

    Args:
        value: What is to be stated.
        other: Stands for parts that have no text, so that the rest is stated.

    >>> told((1.0, np.float64(0.5), {"b", "a"})), told([1, object()]), told([1, object()], "?")
    ("[1, 0.5, {'a', 'b'}]", None, '[1, ?]')
    """
    return _told(value, other, 0)


def _told(value: Any, other: str | None, depth: int) -> str | None:
    try:
        text = _text(value, other, depth)
    except Exception:  # objects of other libraries may raise anything where they are read
        text = None
    return other if text is None else text


def _text(value: Any, other: str | None, depth: int) -> str | None:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (bool, bytes)) or value is None:
        return repr(value)
    if isinstance(value, int):
        return str(int(value)) if value.bit_length() <= _BITS else hex(value)  # Python limits the digits of a decimal
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, complex):
        return f"{_number(value.real)}+{_number(value.imag)}j"
    if isinstance(value, PurePath):
        value = str(value)
    if isinstance(value, torch.device) or (isinstance(value, str) and is_device(value)):
        return DEVICE
    if isinstance(value, str):
        return FOLDER if os.path.isabs(value) else repr(without_addresses(value))
    if isinstance(value, (Tensor, np.ndarray)):
        return _array(value, other, depth)
    return _container(value, other, depth) if depth < _DEEP else None


def _container(value: Any, other: str | None, depth: int) -> str | None:
    if isinstance(value, (list, tuple)):
        return _joined((_told(one, other, depth + 1) for one in value), "[]")
    if isinstance(value, (set, frozenset)):
        return _joined((_told(one, other, depth + 1) for one in value), "{}")
    if not isinstance(value, Mapping):
        # Configurations also say where a network came from and how it is used.
        if isinstance(value, type) or hasattr(value, "to_dict"):
            return None
        if dataclasses.is_dataclass(value):
            named = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        elif isinstance(value, SimpleNamespace):
            named = vars(value)
        else:
            return None
        value = {key: one for key, one in named.items() if not key.startswith("_")}
    pairs = ((_told(key, other, depth + 1), _told(one, other, depth + 1)) for key, one in value.items())
    return _joined((None if key is None or one is None else f"{key}: {one}" for key, one in pairs), "{}")


def _joined(items: Iterable[str | None], brackets: str) -> str | None:
    """Items in brackets, in their order in square ones; None if one of them is None."""
    found: list[str] = []
    for item in items:
        if item is None:
            return None
        found.append(item)
    return f"{brackets[0]}{', '.join(found if brackets == '[]' else sorted(found))}{brackets[1]}"


def _number(value: float) -> str:
    """Of whole numbers what a whole type says; of others as many digits as two mathematical libraries agree on."""
    return str(int(value)) if math.isfinite(value) and value == int(value) else f"{value:.12g}"


def _array(value: Tensor | np.ndarray[Any, Any], other: str | None, depth: int) -> str | None:
    """The text of an array; None if it is sparse, nested, or without content."""
    shape = tuple(value.shape)
    if isinstance(value, Tensor):
        value = value.detach()
        value = value.dequantize() if value.is_quantized else value
        value = value.reshape(-1)[:: _step(value.numel())].cpu().resolve_conj().resolve_neg()
        flat = (value.float() if value.is_floating_point() and value.dtype != torch.float64 else value).numpy()
    else:
        flat = np.asarray(value).reshape(-1)
        flat = flat[:: _step(flat.size)]
    kind = flat.dtype.kind
    if kind in "OUS":
        items = _told(flat.tolist() if shape else flat.item(), other, depth + 1)
        return None if items is None else f"{shape}{items}" if shape else items
    if kind not in "biufc":
        return None
    if not shape:
        return _told(flat.item(), other, depth)
    if flat.size <= _FEW:
        held = [f"{one:.7g}" if kind == "f" else str(one) for one in flat.tolist()]
    elif kind in "biu":
        held = [_exactly(flat)]
    else:
        held = _mixtures(np.ascontiguousarray(flat).view(flat.real.dtype) if kind == "c" else flat)
    return f"{shape}[{', '.join(held)}]"


def _step(size: int) -> int:
    return max(1, -(-size // _MANY))


def _exactly(flat: np.ndarray[Any, Any]) -> str:
    """A hash of whole numbers, whatever type holds them."""
    digest = hashlib.sha256()
    for start in range(0, flat.size, _CHUNK):
        digest.update(flat[start : start + _CHUNK].astype(np.uint8 if flat.dtype.kind == "b" else "<i8").tobytes())
    return digest.hexdigest()[:16]


def _mixtures(flat: np.ndarray[Any, Any]) -> list[str]:
    """Mixtures of an array: of its numbers; of x / (1 + |x|), which large ones do not swamp; and of the logarithms of huge ones.

    Where numbers are huge or not finite is hashed.
    """
    sums = np.zeros((3, 2))
    digest, any_huge = hashlib.sha256(), False
    for start in range(0, flat.size, _CHUNK):
        x = flat[start : start + _CHUNK].astype(np.float64)
        weights = _MIXING[: x.size] * (1 + (start // _CHUNK) * math.sqrt(2.0) % 1.0)
        size = np.abs(x)
        huge = ~(size < _HUGE)
        if huge.any():
            any_huge = True
            found, finite = x[huge], np.isfinite(x[huge])
            signs = np.where(np.isnan(found), 2, np.sign(found)) + np.where(finite, 0, 4)
            digest.update(start.to_bytes(8, "little") + np.packbits(huge).tobytes() + signs.astype(np.int8).tobytes())
            sums[2] += weights[huge][finite] @ np.log(size[huge][finite])
            x[huge] = size[huge] = 0.0
        share = 1.0 / (1.0 + size)
        sums[0] += weights @ x, weights @ size
        sums[1] += weights @ (x * share), weights @ (size * share)
    held = [_six_digits(float(one), float(most)) for one, most in sums]
    return [*held, digest.hexdigest()[:16]] if any_huge else held[:2]


def _six_digits(value: float, most: float) -> str:
    """A sum to six digits of what its terms add up to without their signs: terms that cancel leave nothing but their rounding beyond these."""
    if most < 1e-300:
        return "0"
    unit = math.floor(math.log10(most)) - 5
    return f"{round(value / 10.0**unit)}e{unit}"


def is_device(text: str) -> bool:
    """Whether a text is the name of a device.

    >>> is_device("cuda:1"), is_device("cubic")
    (True, False)
    """
    return bool(_DEVICE.fullmatch(text))


def printed(text: str) -> str:
    """What a module prints of itself, without devices, absolute paths and addresses, and sets in one order.

    >>> printed("classes={'dog', 'cat'}, device=cuda:0")
    "classes={'cat', 'dog'}, device="
    """
    return _PATH.sub("", _DEVICE.sub("", without_addresses(_ordered(text))))


def _ordered(text: str) -> str:
    """A text with the items of sets in one order, whatever quoted texts and other brackets are in them."""
    kept: list[str] = []

    def shown(part: str) -> str:
        return _KEPT.sub(lambda found: kept[int(found[1])], part)

    def hidden(found: re.Match[str]) -> str:
        part = found[0]
        if part.startswith("{"):
            part = f"{{{', '.join(sorted(map(shown, part[1:-1].split(', '))))}}}"
        kept.append(shown(part))
        return f"\0{len(kept) - 1}\0"

    text, more = _QUOTED.sub(hidden, text.replace("\0", "")), 1
    while more:
        text, more = _INNERMOST.subn(hidden, text)
    return shown(text)


def without_addresses(text: str) -> str:
    """A text without the addresses in memory that Python prints for objects.

    >>> without_addresses("<function f at 0x7f0c>")
    '<function f>'
    """
    return _ADDRESS.sub("", text)
