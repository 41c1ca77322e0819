"""Each option of certification is defined once, and every entry has all of them."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields

import pytest
import torch
from PIL import Image
from transformers import pipeline

from hf_smoothing import SmoothedClassifier, certify, certify_dataset, predict
from hf_smoothing.certification import Execution, make_rule, make_stream
from hf_smoothing.certification.noise_kinds import noise_facts
from hf_smoothing.certification.options import (
    CertifyOptions,
    ExecutionOptions,
    PredictOptions,
    RunOptions,
    RunRuleOptions,
    filled,
    options_in,
    options_of,
)
from hf_smoothing.cli import build_parser
from tests.support.classifiers import Linear
from tests.support.tiny import smoothed


def shown(function):
    """Keyword-only arguments of a function with their defaults, as `help` shows them."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        (certify, CertifyOptions),
        (SmoothedClassifier.certify, CertifyOptions),
        (certify_dataset, RunOptions),
        (make_rule, RunRuleOptions),
        (predict, PredictOptions),
        (SmoothedClassifier.predict, PredictOptions),
    ],
)
def test_an_entry_shows_each_option_with_its_default_and_meaning(entry, kind):
    options = options_of(kind)
    assert {name: shown(entry)[name] for name in options} == {name: one.default for name, one in options.items()}
    for one in options.values():
        assert f"        {one.name}: {one.meaning}" in entry.__doc__


def test_the_pipeline_and_the_command_line_have_every_option():
    model = smoothed()
    task = pipeline("certified-image-classification", model=model, image_processor=model.image_processor())
    with pytest.raises(ValueError, match="got nothing_known") as refused:
        task(Image.new("RGB", (16, 16)), nothing_known=1)
    (listed,) = re.findall("takes the options (.*), got", str(refused.value))
    assert set(options_of(CertifyOptions)) <= set(listed.split(", "))
    flags = {flag for action in parser_of("certify")._actions for flag in action.option_strings}
    assert {f"--{name.replace('_', '-')}" for name in options_of(RunOptions)} <= flags


def parser_of(command):
    (commands,) = (action for action in build_parser()._actions if action.dest == "command")
    return commands.choices[command]


def test_types_defaults_and_choices_of_the_command_line_are_those_of_the_options():
    given = [
        "--targets",
        "0.1",
        "0.2",
        "--n0",
        "7",
        "--n",
        "300",
        "--alpha",
        "0.01",
        "--noise-kind",
        "grid",
        "--spending",
        "--compile",
    ]
    args = parser_of("certify").parse_args(["model", "data", "--output-dir", "out", *given])
    assert (args.targets, args.n0, args.n, args.alpha, args.noise_kind) == ([0.1, 0.2], 7, 300, 0.01, "grid")
    assert args.spending is True and args.compile is True and args.label_aware is False
    bare = parser_of("certify").parse_args(["model", "data", "--output-dir", "out"])
    for one in options_of(RunOptions).values():
        assert getattr(bare, one.name) == one.default
        action = next(action for action in parser_of("certify")._actions if action.dest == one.name)
        assert tuple(action.choices or ()) == one.choices


def test_execution_has_the_fields_and_defaults_of_its_options():
    assert {field.name: field.default for field in fields(Execution)} == {
        name: one.default for name, one in options_of(ExecutionOptions).items()
    }


def test_an_option_that_is_none_is_named():
    with pytest.raises(TypeError, match=r"The options are mode, targets, .*compile, got 'spendng'"):
        certify(Linear(), torch.zeros(1, 3, 2, 2), sigma=0.5, spendng=True)
    with pytest.raises(TypeError, match="got 'label_aware'"):  # which only a run that measures may ask for
        certify(Linear(), torch.zeros(1, 3, 2, 2), sigma=0.5, label_aware=True)


# A value of each option that is not its default.
OTHERS = {
    "mode": "curve", "targets": (0.0, 0.1), "n0": 50, "n": 1_000, "alpha": 0.01, "spending": True, "label_aware": True,
    "bound": "runner-up", "noise_kind": "gaussian", "dtype": "bfloat16", "channels_last": True, "compile": True,
}  # fmt: skip


def recorded(**options):
    kind = options.pop("noise_kind", "grid")
    rule = make_rule(0.5, **options_in(RunRuleOptions, options))
    stream = make_stream(kind, seed=0, shape=(1, 2, 2), device=torch.device("cpu"), sigma=0.5)
    return rule.to_dict() | Execution(**options_in(ExecutionOptions, options)).to_dict() | noise_facts(stream)


@pytest.mark.parametrize("name", options_of(RunOptions))
def test_the_record_of_a_run_tells_every_option(name):
    """Else a run would be resumed with another rule than it began with."""
    if name == "copies_per_batch":  # which never changes a row
        return
    plain = {"mode": "fixed"} if name == "bound" else {}
    assert recorded(**plain) != recorded(**plain, **{name: OTHERS[name]})


@pytest.mark.parametrize("name", [one.name for one in options_of(RunOptions).values() if one.type is bool])
@pytest.mark.parametrize("value", ["no", "yes", 0, 1, None])
def test_a_flag_is_true_or_false(name, value):
    with pytest.raises(TypeError, match=f"`{name}` must be True or False, got {value!r}"):
        filled(RunOptions, {name: value})


@pytest.mark.parametrize("name", [one.name for one in options_of(RunOptions).values() if one.choices])
@pytest.mark.parametrize("value", ["runner_up", "Fixed", None])
def test_a_value_that_is_no_choice_is_answered_with_the_choices(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be one of '.*, got {value!r}"):
        filled(RunOptions, {name: value})


def test_flags_are_not_abbreviated(capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["certify", "model", "data", "--output-dir", "out", "--noise", "gaussian"])
    assert "unrecognized arguments: --noise gaussian" in capsys.readouterr().err


def test_options_are_listed_at_one_margin():
    for entry in (certify, certify_dataset, SmoothedClassifier.certify, SmoothedClassifier.predict):
        lines = inspect.getdoc(entry).splitlines()
        named = [line for line in lines if line.strip().split(":")[0] in options_of(CertifyOptions)]
        assert len(named) > 5 and len({len(line) - len(line.lstrip()) for line in named}) == 1
