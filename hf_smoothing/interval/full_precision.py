"""Products of float32 numbers in float32: switches of torch that let a GPU or a CPU take fewer digits are off meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


_lock = threading.Lock()
_inside = 0
_restore: list[Callable[[], None]] = []  # one while somebody is inside


@contextmanager
def full_precision() -> Iterator[None]:
    """Matrix products and convolutions of float32 numbers without TF32 or bfloat16, and cuDNN without the search for its fastest formula.

    The switches are those of the whole process: the first of several threads, or of calls within each other, turns them off, and the last one
    puts them back as they were.
    """
    global _inside
    with _lock:
        if not _inside:
            _restore.append(_switched_off())
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _restore.pop()()


def _switched_off() -> Callable[[], None]:
    """Turn the switches off, by the settings that this torch has, and return what puts them back.

    From torch 2.9 each operation has a setting of its own; whether all convolutions may use TF32 cannot be read any more once two of them differ.
    """
    before = [(place, place.fp32_precision) for place in _places()]
    conv, benchmark = torch.backends.cudnn.allow_tf32 if not before else False, torch.backends.cudnn.benchmark
    products = _products()
    torch.backends.cudnn.benchmark = False
    if conv:
        torch.backends.cudnn.allow_tf32 = False
    if products not in (None, "highest"):
        torch.set_float32_matmul_precision("highest")
    for place, _ in before:
        _set(place, "ieee")

    def restore() -> None:
        torch.backends.cudnn.benchmark = benchmark
        if conv:
            torch.backends.cudnn.allow_tf32 = True
        if products not in (None, "highest"):
            torch.set_float32_matmul_precision(products)
        for place, precision in before:
            _set(place, precision)

    return restore


def _places() -> list[Any]:
    """What has a setting of its own; none before torch 2.9."""
    cudnn, cuda, mkldnn = torch.backends.cudnn, torch.backends.cuda, torch.backends.mkldnn
    if not hasattr(cudnn, "conv"):
        return []
    return [cudnn.conv, cudnn.rnn, cuda.matmul, mkldnn.conv, mkldnn.rnn, mkldnn.matmul]  # type: ignore[attr-defined]


def _products() -> str | None:
    """The one setting of all matrix products; None where their own settings say something else."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _set(place: Any, precision: str) -> None:
    """Change a setting that is another one; what it takes from that of its backend ("none" of its own) it goes on taking from there."""
    full = ("ieee", "none")
    if place.fp32_precision == precision or (precision in full and place.fp32_precision in full):
        return
    place.fp32_precision = "none"
    if place.fp32_precision != precision and not (precision in full and place.fp32_precision in full):
        place.fp32_precision = precision
