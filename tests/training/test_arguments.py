"""Training arguments state what differs from their parent, and read noise from the command line and from files."""

import copy
import json
import re

import numpy as np
import pytest
import torch
from transformers import HfArgumentParser

from hf_smoothing import NoiseMixture, RobustTrainingArguments
from hf_smoothing.training.objectives import OBJECTIVES
from hf_smoothing.training.protocols import PROTOCOLS
from tests.support.tiny import arguments, data, plain, smoothed, trainer


MIXTURE = {"sigmas": [0.0, 1.0], "clean": 0.25, "distribution": "uniform"}


def parse(tmp_path, *words):
    parser = HfArgumentParser(RobustTrainingArguments)
    (args,) = parser.parse_args_into_dataclasses(["--output-dir", str(tmp_path), "--use_cpu", "true", *words])
    return args


def test_what_differs_from_the_parent(tmp_path):
    args = RobustTrainingArguments(output_dir=str(tmp_path))
    assert args.remove_unused_columns is False
    assert args.mixture() is None
    assert args.noise_owner == "trainer"


@pytest.mark.parametrize(("name", "known"), [("objective", OBJECTIVES), ("protocol", PROTOCOLS)])
def test_the_help_lists_all_that_is_known(name, known):
    shown = RobustTrainingArguments.__dataclass_fields__[name].metadata["help"]
    assert ": " + ", ".join(known) + ". " in shown


@pytest.mark.parametrize(
    ("word", "mixture"),
    [
        (json.dumps(MIXTURE), NoiseMixture((0.0, 1.0), 0.25, "uniform")),
        ("0.5", NoiseMixture((0.5,))),
        ("[0.25, 0.5]", NoiseMixture((0.25, 0.5))),
        ("clean", None),
        ("none", None),
    ],
)
def test_noise_on_the_command_line(word, mixture, tmp_path):
    assert parse(tmp_path, "--noise", word).mixture() == mixture


def test_everything_on_the_command_line(tmp_path):
    args = parse(
        tmp_path, "--noise_owner", "trainer", "--crop_padding", "2", "--horizontal_flip", "true", "--trainable", "classifier",
        "stages.3", "--freeze_batch_norm", "true", "--image_mean", "0.4", "0.5", "0.6", "--image_std", "0.2", "0.2", "0.2",
        "--model_size", "32", "--channels_last", "true",
    )  # fmt: skip
    assert (args.crop_padding, args.horizontal_flip, args.trainable) == (2, True, ["classifier", "stages.3"])
    assert (args.image_mean, args.model_size, args.channels_last) == ([0.4, 0.5, 0.6], 32, True)
    assert args.freeze_batch_norm is True


def test_from_a_file(tmp_path):
    file = tmp_path / "args.json"
    file.write_text(
        json.dumps({"output_dir": str(tmp_path), "use_cpu": True, "noise": json.dumps(MIXTURE), "crop_padding": 4})
    )
    (args,) = HfArgumentParser(RobustTrainingArguments).parse_json_file(str(file))
    assert args.mixture().to_dict() == MIXTURE
    assert args.crop_padding == 4


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"noise": "lots"}, "noise mixture must be 'clean', a sigma, or JSON"),
        ({"noise": '{"sigma": 1}'}, "keys 'sigmas'"),
        ({"noise": "-0.5"}, "`sigmas` must be"),
        ({"noise": '{"sigmas": [0.5], "clean": 2}'}, "`clean` must be"),
        ({"noise": '{"sigmas": [1, 0], "distribution": "uniform"}'}, r"\(lowest, highest\)"),
        ({"noise_owner": "nobody"}, "`noise_owner` must be one of"),
        ({"noise": "0.5", "noise_owner": "model"}, "exactly one owner"),
        ({"noise": "0.5", "noise_owner": "processor"}, "exactly one owner"),
        ({"crop_padding": -1}, "`crop_padding` must be >= 0"),
        ({"model_size": 0}, "`model_size` must be"),
    ],
)
def test_bad_values_are_refused(kwargs, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        arguments(tmp_path, **kwargs)


SWITCHES = (
    "horizontal_flip",
    "freeze_batch_norm",
    "data_on_device",
    "channels_last",
    "remove_unused_columns",
    "logging_nan_inf_filter",
)
COUNTS = ("crop_padding", "train_last", "eval_num_samples")
NUMBERS = ("drop_path", "body_learning_rate", "layer_decay", "ema_decay", "label_smoothing_factor")


@pytest.mark.parametrize("value", ["false", "true", "no", 0, 1, [True], ""])
@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_is_true_or_false(name, value, tmp_path):
    with pytest.raises(TypeError, match=rf"`{name}` must be True or False, got {re.escape(repr(value))}"):
        arguments(tmp_path, **{name: value})
    with pytest.raises(TypeError, match=f"`{name}` must be True or False"):
        HfArgumentParser(RobustTrainingArguments).parse_dict(
            {"output_dir": str(tmp_path), "use_cpu": True, name: value}
        )
    assert getattr(arguments(tmp_path, **{name: np.bool_(True)}), name) is True


@pytest.mark.parametrize("value", ["2", 2.5, 1.0, True, [1]])
@pytest.mark.parametrize("name", COUNTS)
def test_a_count_is_a_whole_number(name, value, tmp_path):
    with pytest.raises(ValueError, match=f"`{name}` must be a whole number, got "):
        arguments(tmp_path, **{name: value})
    assert type(getattr(arguments(tmp_path, **{name: np.int64(1)}), name)) is int


@pytest.mark.parametrize("value", ["0.1", "1e-3", True, [0.1]])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_rate_is_a_number(name, value, tmp_path):
    with pytest.raises(ValueError, match=f"`{name}` must be a number, got "):
        arguments(tmp_path, **{name: value})
    assert type(getattr(arguments(tmp_path, **{name: np.float32(0.5)}), name)) is float


@pytest.mark.parametrize("name", NUMBERS)
def test_a_rate_is_not_nan(name, tmp_path):
    with pytest.raises(ValueError, match=f"`{name}` must be .*, got nan"):
        arguments(tmp_path, **{name: float("nan")})


def test_no_number_of_ours_is_unchecked():
    kinds = ("bool", "int", "float")
    own = {name for name, kind in RobustTrainingArguments.__annotations__.items() if str(kind).split()[0] in kinds}
    assert own - {"model_size"} == {*SWITCHES, *COUNTS, *NUMBERS} - {"label_smoothing_factor"}


@pytest.mark.parametrize("value", [MIXTURE, NoiseMixture((0.0, 1.0), 0.25, "uniform"), json.dumps(MIXTURE)])
def test_noise_can_be_written_in_several_ways_and_saved(value, tmp_path):
    args = arguments(tmp_path, noise=value)
    assert args.mixture().to_dict() == MIXTURE
    assert "0.25" in args.to_json_string()
    loop = trainer(plain("vit"), tmp_path, noise=value, max_steps=1, save_strategy="steps", save_steps=1)
    loop.train()
    saved = torch.load(tmp_path / "checkpoint-1" / "training_args.bin", weights_only=False)
    assert saved.mixture().to_dict() == MIXTURE


@pytest.mark.parametrize(
    "settings", [None, {"weight": 0.2}, {"weight": [0.1, 0.2]}, {"weight": {"a": (1, 2)}}, "network"]
)
def test_arguments_can_be_written_whatever_the_objective_is_given(settings, tmp_path):
    teacher = smoothed()
    teacher.hook = lambda: None  # as some networks have; no pickle holds it
    given = {"teacher": teacher, "weight": 0.2} if settings == "network" else settings
    shown = (
        {"teacher": "SmoothedClassifier", "weight": 0.2} if settings == "network" else json.loads(json.dumps(settings))
    )
    args = arguments(tmp_path, objective_args=given)
    assert json.loads(args.to_json_string())["objective_args"] == args.to_dict()["objective_args"] == shown
    assert args.to_sanitized_dict()["objective_args"] == str(shown)
    assert copy.copy(args).objective_args is args.objective_args is given


def test_a_teacher_is_not_written_into_checkpoints(tmp_path):
    teacher = smoothed()
    teacher.hook = lambda: None
    loop = trainer(
        smoothed(), tmp_path, objective="feature-distillation", objective_args={"teacher": teacher}, save_strategy="steps", save_steps=1,
    )  # fmt: skip
    loop.train()
    assert loop.args.objective_args["teacher"] is teacher
    saved = torch.load(tmp_path / "checkpoint-2" / "training_args.bin", weights_only=False)
    assert saved.objective_args == {"teacher": "SmoothedClassifier"}
    assert saved.max_steps == 2


@pytest.mark.parametrize(("name", "value"), [("objective", None), ("objective", 3), ("metric_for_best_model", 1)])
def test_what_is_called_by_name_is_a_name(name, value, tmp_path):
    with pytest.raises(TypeError, match=f"`{name}` must be a name, got {value}. .* '"):
        arguments(tmp_path, **{name: value})


def test_an_unknown_objective_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`objective` must be one of .*mixture"):
        trainer(plain(), tmp_path, objective="magic")
    with pytest.raises(ValueError, match="`objective` must be one of .*mixture"):
        trainer(plain(), tmp_path, train_dataset=data(), **{"objective": "nothing"})
