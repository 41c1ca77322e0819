"""Texts for values: others for other values, the same on every machine, and some text or none for whatever an attribute holds."""

from __future__ import annotations

import enum
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hf_smoothing.certification.values import printed, told


@dataclass
class Settings:
    threshold: float
    _seen: int = 0


class Rule(enum.Enum):
    STRICT, LENIENT = "strict", "lenient"


def changed(array: torch.Tensor, **entries: float) -> torch.Tensor:
    """A copy with other entries, written as `_3=0.5`."""
    array = array.clone()
    for place, value in entries.items():
        array[int(place[1:])] = value
    return array


ORDER, INFINITE = torch.arange(1000), float("inf")
SWAPPED = changed(ORDER, _500=501, _501=500)
ZEROS, HUGE = torch.zeros(20), torch.full((4000,), 1e4)
OTHERS: dict[str, tuple[Any, Any]] = {
    "a permutation": (ORDER, SWAPPED),
    "a permutation of numpy": (ORDER.int().numpy(), SWAPPED.int().numpy()),
    "few whole numbers beside a large one": (changed(ORDER, _3=10**12), changed(ORDER, _3=10**12, _4=7)),
    "one bit": (torch.ones(200_000, dtype=torch.bool), changed(torch.ones(200_000, dtype=torch.bool), _1=0)),
    "another shape": (ORDER, ORDER.reshape(10, 100)),
    "where numbers are infinite": (changed(ZEROS, _8=-INFINITE), changed(ZEROS, _9=-INFINITE)),
    "which infinity": (changed(ZEROS, _8=-INFINITE), changed(ZEROS, _8=INFINITE)),
    "no number": (changed(ZEROS, _8=float("nan")), changed(ZEROS, _8=INFINITE)),
    "beside infinities": (changed(ZEROS, _0=0.93, _7=-INFINITE), changed(ZEROS, _0=5.0, _7=-INFINITE)),
    "beside the least number": (changed(ZEROS, _0=0.93, _7=-3.4e38), changed(ZEROS, _0=5.0, _7=-3.4e38)),
    "huge numbers": (changed(ZEROS, _7=1e30), changed(ZEROS, _7=1e31)),
    "where numbers are huge": (changed(HUGE, _7=1e9), changed(HUGE, _2007=1e9)),
    "among large numbers": (changed(HUGE, _0=0.9), changed(HUGE, _0=5.0)),
    "the last chunk": (torch.ones(70_000), changed(torch.ones(70_000), _69999=3.0)),
    "complex numbers": (ZEROS + 1j, ZEROS - 1j),
    "texts of numpy": (np.array(["a", "b"]), np.array(["a", "c"])),
    "objects of numpy": (np.array(["a", 1], object), np.array(["a", 2], object)),
    "a dataclass": (Settings(0.93), Settings(5.0)),
    "a namespace": (SimpleNamespace(t=[0.93]), SimpleNamespace(t=[5.0])),
    "an enumeration": (Rule.STRICT, Rule.LENIENT),
    "a huge whole number": (10**5000, 10**5000 + 1),
    "a name of a device": ("meta", "mean"),
    "a name like a path": ("/x", ""),
    "None": (None, "cpu"),
    "a dictionary with an object": ({"t": 1, "f": torch.relu}, {"t": 2, "f": torch.relu}),
    "a list with an object": ([object(), 1], [object(), 2]),
    "None beside an object": ([None], [object()]),
}


@pytest.mark.parametrize(("first", "second"), OTHERS.values(), ids=OTHERS)
def test_other_values_have_other_texts(first, second):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert told(first, "?") != told(second, "?")


LARGE = torch.randn(3000, generator=torch.Generator().manual_seed(0))
EQUAL: dict[str, tuple[Any, Any]] = {
    "the last digit": (LARGE, LARGE * (1 + 1e-7)),
    "the last digit of each": (
        LARGE,
        LARGE * (1 + 6e-8 * torch.randn(3000, generator=torch.Generator().manual_seed(1))),
    ),
    "what cancels": (torch.linspace(-1, 1, 99), changed(torch.linspace(-1, 1, 99), _49=4e-8)),
    "the last digit beside infinities": (changed(LARGE, _3=INFINITE), changed(LARGE * (1 + 1e-7), _3=INFINITE)),
    "the last digit of a huge number": (changed(LARGE, _3=1e30), changed(LARGE, _3=1.0000001e30)),
    "the type of whole numbers": (ORDER, ORDER.int().numpy()),
    "half precision": (torch.ones(20).bfloat16(), torch.ones(20).double()),
    "devices": ({"at": "cpu"}, {"at": torch.device("cuda", 1)}),
    "paths": (["/a/b"], [Path("/c")]),
    "what a dataclass keeps for itself": (Settings(0.5), Settings(0.5, 3)),
}


@pytest.mark.parametrize(("first", "second"), EQUAL.values(), ids=EQUAL)
def test_equal_values_have_one_text(first, second):
    assert told(first) == told(second) is not None


class Closed(dict[str, int]):
    def items(self) -> Any:
        raise RuntimeError("needs a connection")


class Streamed(list[int]):
    def __iter__(self) -> Any:
        raise RuntimeError("is read once")


class Secret:
    @property
    def to_dict(self) -> Any:
        raise RuntimeError("is locked")


CIRCLE: list[Any] = [1]
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    "value", [Closed(a=1), Streamed([1]), Secret(), CIRCLE, torch.empty(3, device="meta"), object()], ids=lambda one: type(one).__name__
)  # fmt: skip
def test_what_cannot_be_read_has_no_text(value):
    assert told(value) is None
    assert told([value, 1]) is None
    assert "?" in str(told([value, 1], "?"))


def test_numbers_whose_sum_is_infinite_have_a_text():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "inf" not in str(told(torch.full((20,), 1e308, dtype=torch.float64)))


def test_more_numbers_than_are_read_have_a_text():
    rows = torch.zeros(1).expand((1 << 24) + 3)
    assert str(told(rows)).startswith("(16777219,)[")


PRINTED: dict[str, tuple[str, str]] = {
    "braces in a text": ("{'f{g}', 'a'}", "{'a', 'f{g}'}"),
    "one brace in a text": ("{'f{', 'a', 'b}'}", "{'b}', 'a', 'f{'}"),
    "commas in a text": ("{'c(d, e)', 'a'}", "{'a', 'c(d, e)'}"),
    "sets of sets": ("{frozenset({2, 1}), frozenset({3})}", "{frozenset({3}), frozenset({1, 2})}"),
    "pairs": ("{('b', 2), ('a', 1)}", "{('a', 1), ('b', 2)}"),
    "an apostrophe": ("don't {b, a} isn't", "don't {a, b} isn't"),
    "no end": ("{'b', ('a'", "{'b', ('a'"),
}


@pytest.mark.parametrize(("first", "second"), PRINTED.values(), ids=PRINTED)
def test_sets_are_printed_in_one_order(first, second):
    assert printed(first) == printed(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [("{('a', 1), ('b', 2)}", "{('a', 2), ('b', 1)}"), ("[1, 2]", "[2, 1]"), ("{'a, b'}", "{'b, a'}")],
)
def test_the_order_of_everything_else_counts(first, second):
    assert printed(first) != printed(second)


def test_sets_are_printed_alike_in_every_process():
    program = (
        "from hf_smoothing.certification.values import printed; print(printed(str({'b', 'a', 'c(d, e)', 'f{g}'})))"
    )
    found = {
        subprocess.run([sys.executable, "-c", program], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True, check=True).stdout
        for seed in "12"
    }  # fmt: skip
    assert found == {"{'a', 'b', 'c(d, e)', 'f{g}'}\n"}
