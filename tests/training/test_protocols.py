"""Protocols of finetuning fill what is not given, keep what is given, and train the parts that they name."""

import pytest
import torch
from transformers import HfArgumentParser

from hf_smoothing import RobustTrainingArguments
from hf_smoothing.training.layerwise import parameter_depths
from hf_smoothing.training.protocols import PROTOCOLS
from tests.support.deep import deep
from tests.support.tiny import arguments, tensors, trainer


def test_protocols_fill_what_is_not_given(tmp_path):
    filled = {
        name: (args.train_last, args.freeze_batch_norm, args.body_learning_rate, args.layer_decay)
        for name in PROTOCOLS
        for args in [arguments(tmp_path, protocol=name)]
    }
    assert filled == {
        "whole": (None, False, None, 1.0),
        "last-stage": (1, True, None, 1.0),
        "linear-probe": (0, True, None, 1.0),
        "light": (None, True, 5e-4, 1.0),
    }
    args = arguments(tmp_path)
    assert (args.train_last, args.freeze_batch_norm, args.body_learning_rate) == (None, False, None)


@pytest.mark.parametrize(
    ("protocol", "given"),
    [
        ("last-stage", {"train_last": 2}),
        ("last-stage", {"train_last": 0}),
        ("last-stage", {"freeze_batch_norm": False}),
        ("linear-probe", {"train_last": 1, "freeze_batch_norm": False}),
        ("light", {"body_learning_rate": 0.0}),
        ("light", {"body_learning_rate": 0.005, "layer_decay": 0.5}),
        ("whole", {"train_last": 1}),
    ],
)
def test_protocols_leave_what_is_given(protocol, given, tmp_path):
    args = arguments(tmp_path, protocol=protocol, **given)
    assert {name: getattr(args, name) for name in given} == given
    others = {name: value for name, value in PROTOCOLS[protocol].items() if name not in given}
    assert {name: getattr(args, name) for name in others} == others


def test_protocols_on_the_command_line(tmp_path):
    parser = HfArgumentParser(RobustTrainingArguments)
    words = ["--output-dir", str(tmp_path), "--use_cpu", "true", "--protocol", "last-stage"]
    (args,) = parser.parse_args_into_dataclasses(words)
    assert (args.protocol, args.train_last, args.freeze_batch_norm) == ("last-stage", 1, True)
    (args,) = parser.parse_args_into_dataclasses([*words, "--train_last", "2", "--freeze_batch_norm", "false"])
    assert (args.train_last, args.freeze_batch_norm) == (2, False)


def test_an_unknown_protocol_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match="`protocol` must be one of whole, last-stage, linear-probe, light, got 'head'"
    ):
        arguments(tmp_path, protocol="head")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"train_last": 1}, "not both"),
        ({"train_last": 0}, "not both"),
        ({"train_last": 1, "protocol": "last-stage"}, "not both"),
    ],
)
def test_two_ways_of_naming_the_trained_part_are_refused(kwargs, message, tmp_path):
    with pytest.raises(ValueError, match=f"`trainable` .* or `train_last`.*{message}"):
        arguments(tmp_path, trainable=["classifier"], **kwargs)


@pytest.mark.parametrize("protocol", ["last-stage", "linear-probe"])
def test_named_parts_replace_those_of_the_protocol(protocol, tmp_path):
    args = arguments(tmp_path, protocol=protocol, trainable=["stages.1"])
    assert (args.trainable, args.train_last, args.freeze_batch_norm) == (["stages.1"], None, True)


@pytest.mark.parametrize("kind", ["resnet", "smoothed-resnet"])
def test_a_linear_probe_changes_the_classifier_alone(kind, tmp_path):
    model = deep(kind)
    before = tensors(model)
    trainer(model, tmp_path, protocol="linear-probe", noise="0.25").train()
    changed = {name for name, value in tensors(model).items() if not torch.equal(value, before[name])}
    assert changed == parameter_depths(model).head


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_trains(protocol, tmp_path):
    model = deep("smoothed-resnet")
    before = tensors(model)
    trainer(model, tmp_path, protocol=protocol, max_steps=1).train()
    assert any(not torch.equal(value, before[name]) for name, value in tensors(model).items())


def test_a_light_protocol_whose_backbone_learns_faster_than_the_head_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"protocol='light' is for .* learning rate is 0\.0005 and the head's 5e-05"):
        RobustTrainingArguments(str(tmp_path), protocol="light")
