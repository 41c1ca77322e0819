"""A text for what a module or a configuration holds: the same for equal numbers, on any machine and in any process."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from hf_smoothing.certification.probes import GOLDEN


_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_DEVICE = re.compile(
    r"device\(type='\w+'(?:, index=\d+)?\)|\b(?:cpu|cuda|mps|xpu|hpu|npu|xla|meta)(?::\d+)?\b", re.IGNORECASE
)
_PATH = re.compile(r"(?<![\w./])/\w[\w.\-]*(?:/[\w.\-]*)+")
_SET = re.compile(r"\{([^{}]*)\}")

_FEW, _MANY, _DEEP = 8, 1 << 24, 6
"""Numbers in an array that are all told; the largest number of them that are read, and of containers in one another."""


def told(value: Any) -> str | None:
    """A text for numbers, texts, arrays and tensors of numbers, and containers of these; None where a part of it is something else, such as an object.

    1 and 1.0, a list and a tuple, a number of Python and of numpy have one text. Larger floating-point arrays have a mixture of their values, to
    six digits, since another processor computes the tables that a network makes for itself to the last digit otherwise.

    >>> told((1.0, np.float64(0.5), {"b", "a"})), told(object())
    ("[1, 0.5, {'a', 'b'}]", None)
    """
    return _told(value, 0)


def _told(value: Any, depth: int) -> str | None:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (bool, bytes)) or value is None:
        return repr(value)
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, complex):
        return f"{_number(value.real)}+{_number(value.imag)}j"
    if isinstance(value, str):
        return repr("" if os.path.isabs(value) or is_device(value) else without_addresses(value))
    if isinstance(value, (Tensor, np.ndarray)):
        return _array(value)
    if depth == _DEEP or not isinstance(value, (Mapping, list, tuple, set, frozenset)):
        return None
    if isinstance(value, Mapping):
        pairs = [(_told(key, depth + 1), _told(one, depth + 1)) for key, one in value.items()]
        items = [None if key is None or one is None else f"{key}: {one}" for key, one in pairs]
    else:
        items = [_told(one, depth + 1) for one in value]
    found = [item for item in items if item is not None]
    if len(found) < len(items):
        return None
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(found)}]"
    return f"{{{', '.join(sorted(found))}}}"


def _number(value: float) -> str:
    """Of whole numbers what a whole type says; of others as many digits as two mathematical libraries agree on."""
    return str(int(value)) if math.isfinite(value) and value == int(value) else f"{value:.12g}"


def _array(value: Tensor | np.ndarray[Any, Any]) -> str | None:
    try:
        if isinstance(value, Tensor):
            value = value.detach()
            value = (value.dequantize() if value.is_quantized else value).cpu()
            value = (value.double() if value.is_floating_point() else value).numpy()
        if value.dtype.kind not in "biufc" or value.size > _MANY:
            return None
        if value.ndim == 0:
            return _told(value.item(), 0)
        if value.size <= _FEW:
            held = [f"{one:.7g}" if value.dtype.kind == "f" else str(one) for one in value.ravel().tolist()]
        else:
            flat = value.ravel().astype(np.complex128 if value.dtype.kind == "c" else np.float64)
            weights = np.arange(1, flat.size + 1) * GOLDEN % 1.0
            mixed = complex(np.sum(weights * np.nan_to_num(flat)))
            held = [f"{mixed.real:.6g}", f"{mixed.imag:.6g}"]
    except (TypeError, ValueError, RuntimeError, NotImplementedError):  # sparse, nested, without content
        return None
    return f"{tuple(value.shape)}[{', '.join(held)}]"


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
    ordered = _SET.sub(lambda found: f"{{{', '.join(sorted(found[1].split(', ')))}}}", text)
    return _PATH.sub("", _DEVICE.sub("", without_addresses(ordered)))


def without_addresses(text: str) -> str:
    """A text without the addresses in memory that Python prints for objects.

    >>> without_addresses("<function f at 0x7f0c>")
    '<function f>'
    """
    return _ADDRESS.sub("", text)
