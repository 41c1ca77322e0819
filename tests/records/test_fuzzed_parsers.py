"""A parser of what others wrote takes an input or refuses it with its documented error: never another exception, never without an end."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from hf_smoothing.json_text import DEEPEST, parse_json
from hf_smoothing.records import RunError, RunWriter
from hf_smoothing.records.shape import settings_fault
from tests.support.fuzz_parsers import Target, fuzz
from tests.support.fuzz_targets import targets
from tests.support.written_runs import LINF, SETTINGS
from tests.support.written_runs import SEQUENTIAL as RULE


QUICK, LONG = 20, 5_000
"""Inputs per share of a target; 201 shares in all."""


@pytest.fixture(scope="module")
def parsers():
    return targets()


def faults_of(found):
    return {kind: (said, data[:300]) for kind, (data, said) in found.faults.items()}


@pytest.mark.parametrize("factor", [QUICK, pytest.param(LONG, marks=pytest.mark.slow)])
def test_no_input_is_answered_otherwise(parsers, factor):
    for number, (name, target) in enumerate(parsers.items()):
        found = fuzz(target, factor * target.share, seed=1000 + number)
        assert faults_of(found) == {}, name
        # Inputs that are all refused alike, or all taken, test nothing.
        assert found.accepted > 0 or found.inputs < 100, name
        assert len(found.refusals) >= 10, name


# From Python 3.12 on, json reads lists that are nested thousands of levels deep, from 3.14 on tens of thousands.
TOO_DEEP = {"RecursionError"} if sys.version_info < (3, 12) else set()


def keyed(data):
    row = json.loads(data)
    return row["index"] + 1


def careless(data):
    try:
        return keyed(data)
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunError(f"row.json is corrupt ({error}).") from error


def endless(data):
    while b"9" * 19 in data:
        pass


def unnamed(data):
    if b"null" in data:
        raise RunError("It is corrupt.")


def swallowed(data):
    try:
        endless(data)
    except Exception:
        return


@pytest.mark.parametrize(
    ("parse", "kinds"),
    [
        (keyed, {"KeyError", "TypeError", "JSONDecodeError", "UnicodeDecodeError", *TOO_DEEP}),
        (careless, {"ValueError", *TOO_DEEP}),  # whole numbers of thousands of digits; nested lists
        (endless, {"Hang"}),
        (swallowed, {"Hang"}),
        (unnamed, {"unnamed:"}),
    ],
)
def test_planted_faults_are_found(parse, kinds):
    target = Target(parse, [b'{"index": 3, "radius": 0.5}\n'], (RunError,), "row.json")
    target.parse(target.seeds[0])
    found = fuzz(target, 4000 if parse in (keyed, careless) else 600, seed=0, hangs=0.02)
    assert kinds <= {kind.split()[0] for kind in found.faults}


def test_a_seed_that_is_refused_is_no_seed():
    with pytest.raises(KeyError):
        fuzz(Target(keyed, [b"{}"], (RunError,), ""), 1, seed=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), f"nested deeper than {DEEPEST} levels"),
        ("[" * 100_000 + "]" * 100_000, "nested deeper than"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "nested deeper than"),
        ("9" * 5000, "4300"),
        (b"\xff", "utf-8"),
        (r'{"id": "\ud800"}', "surrogates not allowed"),
        ("", "Expecting value"),
    ],
)
def test_json_that_would_break_its_reader_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_json(text)


def test_json_at_the_limit_is_read():
    text = "[" * DEEPEST + "]" * DEEPEST
    assert json.dumps(parse_json(text)) == text
    assert parse_json("[" + "[], " * 500 + "{}]") == [[]] * 500 + [{}]
    assert parse_json(r'"\ud83d\ude00"') == "\U0001f600"


def test_what_could_not_be_read_again_is_refused_before_the_first_row(tmp_path):
    deep = {"a": 1}
    for _ in range(DEEPEST):
        deep = {"a": deep}
    for settings, message in (
        ({"rounding": 3}, "rounding is 3, must be text"),
        ({"informative": {"unreadable": 7}}, "informative.unreadable is 7, must be a list of whole numbers"),
        ({"note": deep}, "nested deeper"),
    ):
        with pytest.raises(ValueError, match=message):
            RunWriter(tmp_path / "run", settings)
    assert not list(Path(tmp_path).rglob("run.json"))


SEQUENTIAL = SETTINGS | {"rule": RULE}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": {"selection": {"range": [0, 4, 0]}}}, "dataset.selection is .*must be null, indices"),
        ({"informative": {"class_names": {"rnge": 1}}}, "informative.class_names"),
        ({"rule": {"targets": [0.5, 0.5]}}, "rule.targets is .*ascending"),
        ({"rule": {"looks": [10, 10**9]}}, "rule.looks"),
        ({"rule": {"n": 10**9}}, "rule.n is 1000000000, must be a whole number from 1 to 524,288"),
        ({"resolution": [3, 4]}, "resolution is .*channels, height and width"),
        ({"sigma": float("nan")}, "sigma is nan"),
        ({"sigma": 7.7e-12}, "sigma is 7.7e-12, must be a number from 1e-06 to 4"),
        ({"alpha": 10**400}, "alpha is 1000.*from 1e-20 to 1/2"),
        ({"alpha": 1e-64}, "alpha is 1e-64.*from 1e-20 to 1/2"),
        ({"model": "id"}, "model is 'id', must be an object"),
        ({"num_images": True}, "num_images is True"),
        (SETTINGS | {"method": "interval-bounds", "norm": "linf"}, "deterministic is missing"),
        (SETTINGS | LINF | {"rule": {"name": "interval bounds", "largest": 1.0}}, "rule.covers_run is missing"),
        (
            SETTINGS | LINF | {"rule": LINF["rule"] | {"covers_run": "float32 runs"}},
            "rule.covers_run is .*must be true or false",
        ),
        (
            SEQUENTIAL | {"rule": SEQUENTIAL["rule"] | {"targets": [0.0, 1e308]}},
            "rule.targets is .*beyond what noise of sigma 0.5",
        ),
        (SEQUENTIAL | {"rule": SEQUENTIAL["rule"] | {"n": 300}}, "rule.looks is .*must end with rule.n, 300"),
        (SEQUENTIAL | {"rule": SEQUENTIAL["rule"] | {"name": "other"}}, "must be fixed-n or begin with sequential"),
        (SEQUENTIAL | {"rule": {"name": "sequential", "n0": 0, "n": 3}}, "rule.targets is missing"),
        (SETTINGS | LINF | {"deterministic": False}, "deterministic is False, must be True for interval-bounds"),
        (SETTINGS | {"deterministic": True}, "deterministic is True, must be False for randomized-smoothing"),
        ({"informative": {"unreadable": [[1]]}}, "informative.unreadable is .*whole numbers in ascending order"),
        ({"informative": {"unreadable": [3, 3]}}, "informative.unreadable is .*whole numbers in ascending order"),
        ({"model": {"weights_sha256": 5}}, "model.weights_sha256 is 5, must be text, or null"),
        ({"model": {"preprocessing": [1]}}, "model.preprocessing is .*must be an object"),
        ({"dataset": {"sha256": 5}}, "dataset.sha256 is 5, must be text"),
    ],
)
def test_settings_of_another_shape_are_named(settings, message):
    assert settings_fault({}) is settings_fault(SEQUENTIAL) is None
    with pytest.raises(AssertionError, match=message):
        assert settings_fault(settings) is None, settings_fault(settings)
