"""The examples in docstrings run."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import pkgutil

import pytest

import hf_smoothing


# A module that runs on import is no library module, and Triton is not everywhere.
MODULES = [
    info.name
    for info in pkgutil.walk_packages(hf_smoothing.__path__, "hf_smoothing.")
    if not info.name.endswith("__main__")
    and (info.name != "hf_smoothing.noise.grid_kernel" or importlib.util.find_spec("triton"))
]


@pytest.mark.parametrize("name", ["hf_smoothing", *MODULES])
def test_examples_of_docstrings(name):
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def test_the_examples_are_found():
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = {name for name in MODULES if any(test.examples for test in finder.find(importlib.import_module(name)))}
    assert {
        "hf_smoothing.statistics.binomial",
        "hf_smoothing.statistics.radius",
        "hf_smoothing.statistics.sequential",
        "hf_smoothing.noise.grid_law",
        "hf_smoothing.noise.mixture",
    } <= found
