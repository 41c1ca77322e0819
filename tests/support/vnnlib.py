"""A plain reader of the VNN-LIB properties that we write, which shares no code with the writer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction


@dataclass(frozen=True)
class Property:
    """A box of pixels and what must not happen in it: the logit of `prediction` at most that of one of `others`."""

    lower: tuple[Fraction, ...]
    upper: tuple[Fraction, ...]
    prediction: int
    others: frozenset[int]
    num_labels: int


def read_property(text: str) -> Property:
    code = re.sub(r";.*", "", text)
    assert code.count("(") == code.count(")")
    inputs = re.findall(r"\(declare-const X_(\d+) Real\)", code)
    outputs = re.findall(r"\(declare-const Y_(\d+) Real\)", code)
    assert inputs == [str(i) for i in range(len(inputs))] and outputs == [str(i) for i in range(len(outputs))]
    ends: dict[str, list[Fraction]] = {}
    for sign in (">=", "<="):
        found = re.findall(rf"\(assert \({sign} X_(\d+) (\d+\.\d+)\)\)", code)
        assert [name for name, _ in found] == inputs
        ends[sign] = [Fraction(Decimal(value)) for _, value in found]
    pairs = re.findall(r"\(and \(<= Y_(\d+) Y_(\d+)\)\)", code)
    assert len(re.findall(r"\(assert \(or\s", code)) == 1 and len({first for first, _ in pairs}) == 1
    assert code.count("assert") == 2 * len(inputs) + 1
    others = frozenset(int(second) for _, second in pairs)
    return Property(tuple(ends[">="]), tuple(ends["<="]), int(pairs[0][0]), others, len(outputs))
