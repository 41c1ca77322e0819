"""Protocols of finetuning fill what is not given, keep what is given, and train the parts that they name."""

import copy
import pickle
from dataclasses import asdict, replace

import pytest
import torch
from transformers import HfArgumentParser

from hf_smoothing import RobustTrainer, RobustTrainingArguments
from hf_smoothing.training.layerwise import parameter_depths
from hf_smoothing.training.protocols import PROTOCOLS, Finetuning
from tests.support.deep import deep
from tests.support.tiny import MEAN, STD, arguments, data, tensors, trainer


def test_protocols_fill_what_is_not_given(tmp_path):
    filled = {
        name: (arguments(tmp_path, protocol=name).finetuning(), arguments(tmp_path, protocol=name).layer_decay)
        for name in PROTOCOLS
    }
    assert filled == {
        "whole": (Finetuning(None, False, None), 1.0),
        "last-stage": (Finetuning(1, True, None), 1.0),
        "linear-probe": (Finetuning(0, True, None), 1.0),
        "light": (Finetuning(None, True, 5e-4), 1.0),
    }
    assert arguments(tmp_path).finetuning() == Finetuning(None, False, None)


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
    expected = PROTOCOLS[protocol] | given
    expected.pop("layer_decay", None)
    assert asdict(args.finetuning()).items() >= expected.items()


def also(args):
    """The same arguments by every way that they travel."""
    kept = {name: value for name, value in args.to_dict().items() if name != "accelerator_config"}
    return [
        args,
        copy.copy(args),
        copy.deepcopy(args),
        pickle.loads(pickle.dumps(args)),
        RobustTrainingArguments(**kept),
    ]


@pytest.mark.parametrize("given", [{}, {"train_last": 2}, {"freeze_batch_norm": False}, {"body_learning_rate": 1e-3}])
@pytest.mark.parametrize("first", [None, *PROTOCOLS])
def test_a_protocol_can_be_replaced_by_another(first, given, tmp_path):
    for protocol in [None, *PROTOCOLS]:
        fresh = arguments(tmp_path, protocol=protocol, **given)
        for args in also(arguments(tmp_path, protocol=first, **given)):
            other = replace(args, protocol=protocol)
            assert other.finetuning() == fresh.finetuning(), (first, protocol)
            args.protocol = protocol
            assert args.finetuning() == fresh.finetuning(), "set as a sweep over settings does"


def test_a_protocol_replaced_by_another_trains_what_it_says(tmp_path):
    model = deep("resnet")
    before = tensors(model)
    given = arguments(tmp_path, protocol="whole", noise="0.25", image_mean=MEAN, image_std=STD)
    RobustTrainer(model, replace(given, protocol="linear-probe"), train_dataset=data()).train()
    changed = {name for name, value in tensors(model).items() if not torch.equal(value, before[name])}
    assert changed == parameter_depths(model).head


def test_protocols_on_the_command_line(tmp_path):
    parser = HfArgumentParser(RobustTrainingArguments)
    words = ["--output-dir", str(tmp_path), "--use_cpu", "true", "--protocol", "last-stage"]
    (args,) = parser.parse_args_into_dataclasses(words)
    assert (args.protocol, args.finetuning()) == ("last-stage", Finetuning(1, True, None))
    (args,) = parser.parse_args_into_dataclasses([*words, "--train_last", "2", "--freeze_batch_norm", "false"])
    assert args.finetuning() == Finetuning(2, False, None)


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
    assert (args.trainable, args.finetuning()) == (["stages.1"], Finetuning(None, True, None))


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
