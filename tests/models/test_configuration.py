"""The configuration of a smoothed classifier checks its values, agrees with its base on the classes, and survives JSON."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedConfig

from hf_smoothing import (
    CnnSevenConfig,
    NoiseMixture,
    SmoothedClassifier,
    SmoothedClassifierConfig,
    denoised_classifier,
    smoothed_ensemble,
)
from hf_smoothing.models.denoised import DenoisedClassifierConfig
from hf_smoothing.models.ensemble import EnsembleConfig
from hf_smoothing.models.loading import load_classifier
from tests.support.tiny import MEAN, NAMES, SIZE, STD, label_maps, plain, resnet_config, smoothed, trainer, vit_config


def config(**kwargs):
    values = {"base_config": resnet_config(), "sigma": 0.25, "size": SIZE, "image_mean": MEAN, "image_std": STD}
    return SmoothedClassifierConfig(**(values | kwargs))


def test_classes_without_their_inverse_do():
    base = resnet_config(label2id=None)
    base.label2id = None  # as transformers leaves it where only id2label is given
    assert config(base_config=base).label2id == {name: index for index, name in enumerate(NAMES)}


@pytest.mark.parametrize("name", ["base_config", "sigma", "size", "image_mean", "image_std"])
def test_required_values_are_required_and_the_message_names_the_cure(name):
    with pytest.raises(ValueError, match=f"needs `{name}`.*from_base_pretrained"):
        config(**{name: None})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sigma": 0.0}, "sigma"),
        ({"sigma": -0.5}, "sigma"),
        ({"sigma": float("nan")}, "sigma"),
        ({"sigma": float("inf")}, "sigma"),
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": 1.0}, "alpha"),
        ({"size": 0}, "`size` must be"),
        ({"size": [16, -1]}, "`size` must be"),
        ({"size": [16, 16, 3]}, "`size` must be"),
        ({"model_size": 0}, "`model_size` must be"),
        ({"image_mean": [0.5, 0.5]}, "one number per channel"),
        ({"image_std": [0.5, 0.5, 0.0]}, "must be positive"),
        ({"image_mean": [125.3, 123.0, 113.9]}, "Divide figures in 0..255"),
        ({"num_samples": 0}, "`num_samples` must be at least 1"),
        ({"noise_owner": "me"}, "`noise_owner` must be one of"),
        ({"noise": 0.5}, "exactly when noise_owner='model'"),
        ({"noise_owner": "model"}, "exactly when noise_owner='model'"),
        ({"noise": 0.5, "noise_owner": "processor"}, "exactly when noise_owner='model'"),
        ({"noise": {"sigma": 0.5}, "noise_owner": "model"}, "keys 'sigmas'"),
    ],
)
def test_values_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        config(**wrong)


@pytest.mark.parametrize("wrong", [{"n": 0}, {"n0": 0}, {"n": 9}])
def test_default_draws_that_certify_could_never_use_are_refused(wrong):
    with pytest.raises(ValueError, match="must be at least"):
        config(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"problem_type": "regression"},
        {"problem_type": "multi_label_classification"},
        {"id2label": {0: "only"}, "label2id": {"only": 0}},
    ],
)
def test_heads_that_do_not_choose_a_class_are_refused(wrong):
    with pytest.raises(ValueError, match="single-label classification with at least two classes"):
        config(base_config=resnet_config(**wrong))


@pytest.mark.parametrize("wrong", ["resnet", 3, object()])
def test_a_base_config_of_another_kind_is_refused(wrong):
    with pytest.raises(TypeError, match="`base_config` must be a transformers configuration"):
        config(base_config=wrong)


def test_a_base_config_without_a_model_type_is_refused():
    with pytest.raises(ValueError, match="'model_type'"):
        config(base_config={"hidden_sizes": [8]})


def test_the_label_map_of_the_base_classifier_is_taken_over():
    wrapper = config()
    assert wrapper.id2label == dict(enumerate(NAMES))
    assert wrapper.label2id == {name: index for index, name in enumerate(NAMES)}
    assert wrapper.num_labels == 3


def test_another_label_map_is_pushed_down():
    names = ("fox", "gnu", "hen", "ibis", "jay")
    wrapper = config(**label_maps(names))
    assert wrapper.num_labels == wrapper.base_config.num_labels == 5
    assert wrapper.id2label == wrapper.base_config.id2label == dict(enumerate(names))
    assert wrapper.base_config.label2id["jay"] == 4


def test_num_labels_alone_is_pushed_down():
    wrapper = config(num_labels=7)
    assert wrapper.num_labels == wrapper.base_config.num_labels == 7
    assert wrapper.id2label == wrapper.base_config.id2label


def test_the_config_that_was_passed_is_not_changed():
    base = resnet_config()
    before = base.to_dict()
    config(base_config=base, **label_maps(("a", "b")))
    assert base.to_dict() == before


@pytest.mark.parametrize("base", [resnet_config(), vit_config()], ids=["resnet", "vit"])
def test_json_round_trip_keeps_every_value(base, tmp_path):
    mixture = {"sigmas": [0.0, 1.0], "clean": 0.25, "distribution": "uniform"}
    wrapper = config(
        base_config=base, size=(16, 12), model_size=32, num_samples=7, n0=11, n=1234, alpha=0.01, noise=mixture,
        noise_owner="model",
    )  # fmt: skip
    wrapper.save_pretrained(tmp_path)
    json.loads((tmp_path / "config.json").read_text())
    for loaded in (SmoothedClassifierConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert isinstance(loaded, SmoothedClassifierConfig)
        for name in (
            "sigma",
            "size",
            "model_size",
            "image_mean",
            "image_std",
            "num_samples",
            "n0",
            "n",
            "alpha",
            "noise",
            "noise_owner",
        ):
            assert getattr(loaded, name) == getattr(wrapper, name), name
        assert loaded.size == [16, 12] and loaded.model_size == [32, 32]
        assert loaded.id2label == wrapper.id2label
        assert type(loaded.base_config) is type(base)
        assert loaded.base_config.to_dict() == wrapper.base_config.to_dict()


@pytest.mark.parametrize("value", [0.5, [0.5], "0.5", NoiseMixture((0.5,)), {"sigmas": [0.5]}])
def test_noise_is_kept_as_plain_values_however_it_is_written(value):
    assert config(noise=value, noise_owner="model").noise == {"sigmas": [0.5], "clean": 0.0, "distribution": "list"}


def test_clean_is_no_noise():
    assert config(noise="clean").noise is None


PER_CHANNEL = [
    np.float32(0.5),
    np.float64(0.5),
    np.array(0.5),
    np.full(3, 0.5, np.float32),
    torch.tensor(0.5),
    torch.full((3,), 0.5),
    (0.5,),
    0.5,
]


@pytest.mark.parametrize(
    "value", PER_CHANNEL, ids=lambda value: f"{type(value).__name__}-{getattr(value, 'shape', '')}"
)
@pytest.mark.parametrize("name", ["image_mean", "image_std"])
def test_numbers_per_channel_come_from_anywhere_and_are_plain(name, value):
    made = config(**{name: value})
    assert getattr(made, name) == [0.5] * 3 and {type(number) for number in getattr(made, name)} == {float}
    json.dumps(made.to_dict())


@pytest.mark.parametrize("value", ["0.5", [None] * 3, [[0.5]] * 3, object(), {"red": 0.5}])
def test_what_is_no_number_per_channel_is_refused(value):
    with pytest.raises(ValueError, match="`image_mean` must hold one number per channel"):
        config(image_mean=value)


def test_preprocessing_says_what_the_configuration_says():
    prepared = config(model_size=(32, 24)).preprocessing()
    assert prepared.image_mean == tuple(MEAN)
    assert prepared.image_std == tuple(STD)
    assert prepared.model_size == (32, 24)


def test_it_can_be_printed():
    assert '"sigma": 0.25' in str(config())
    assert isinstance(config(), PreTrainedConfig)


def test_the_type_is_known_without_values_and_no_model_comes_of_that():
    empty = AutoConfig.for_model("smoothed_classifier")
    assert isinstance(empty, SmoothedClassifierConfig)
    with pytest.raises(ValueError, match="needs `base_config`. To wrap a plain image classifier"):
        SmoothedClassifier(empty)
    with pytest.raises(ValueError, match="needs `base_config`"):
        SmoothedClassifierConfig(sigma=0.5)


GAPS = {
    "from 1": {"1": "cat", "2": "dog", "3": "eel"},
    "gap": {0: "cat", 2: "dog", 7: "eel"},
    "negative": {-1: "none", 0: "cat", 1: "dog"},
    "list": ["cat", "dog", "eel"],
    "text": {"cat": 0, "dog": 1, "eel": 2},
}


def edited(folder, model, id2label):
    """The folder of a saved model, its names edited by hand."""
    model.save_pretrained(folder)
    values = json.loads((folder / "config.json").read_text())
    for part in (values, values.get("base_config"), *(member["base_config"] for member in values.get("members", []))):
        if part is not None:
            part["id2label"] = {str(k): v for k, v in id2label.items()} if isinstance(id2label, dict) else id2label
    (folder / "config.json").write_text(json.dumps(values))
    return folder


PIXELS = {"size": SIZE, "image_mean": MEAN, "image_std": STD}
ROUTES = {
    "configuration": lambda where, names: config(id2label=names),
    "wrapping with names": lambda where, names: wrap(saved(where, plain()), id2label=names),
    "loading with names": lambda where, names: SmoothedClassifier.from_pretrained(saved(where, smoothed()), id2label=names),
    "wrapping": lambda where, names: wrap(edited(where, plain(), names)),
    "loading": lambda where, names: SmoothedClassifier.from_pretrained(edited(where, smoothed(), names)),
    "command line": lambda where, names: load_classifier(str(edited(where, smoothed(), names)), sigma=0.25),
    "ensemble": lambda where, names: smoothed_ensemble([edited(where, plain(), names)], sigma=0.25, pixels=PIXELS),
    "denoised": lambda where, names: denoised_classifier(edited(where, plain(), names), sigma=0.25, pixels=PIXELS),
    "ensemble of itself": lambda where, names: SmoothedClassifier.from_pretrained(
        edited(where, smoothed_ensemble([smoothed()], sigma=0.25), names)
    ),
}  # fmt: skip


def wrap(where, **kwargs):
    return SmoothedClassifier.from_base_pretrained(where, sigma=0.25, **PIXELS, **kwargs)


def saved(where, model):
    model.save_pretrained(where)
    return where


@pytest.mark.parametrize("names", GAPS.values(), ids=GAPS)
@pytest.mark.parametrize("route", ROUTES)
def test_every_class_that_can_be_certified_has_a_name_whichever_way_the_names_come(route, names, tmp_path):
    """A prediction without a name is an error after the draws, or an abstention to who asks for names with `get`."""
    with pytest.raises(ValueError, match="`id2label` must name each class by its number|config.json of .* Correct it"):
        ROUTES[route](tmp_path / "model", names)


@pytest.mark.parametrize("names", [GAPS["from 1"], GAPS["list"]])
def test_names_are_corrected_by_the_names_in_order(names, tmp_path):
    """The cure that the message names."""
    right = dict(enumerate(NAMES))
    where = edited(tmp_path, smoothed(), names)
    if isinstance(names, dict):
        assert SmoothedClassifier.from_pretrained(where, id2label=right).config.base_config.id2label == right
    assert config(base_config=resnet_config(id2label={1: "cat", 2: "dog", 3: "eel"}), id2label=right).id2label == right


def test_a_plain_network_is_not_trained_with_names_that_no_wrapper_takes(tmp_path):
    with pytest.raises(ValueError, match="`id2label` must name each class by its number"):
        trainer(plain(id2label={1: "cat", 2: "dog", 3: "eel"}, label2id=None), tmp_path)


NUMBERS = {
    "other names": {"x": 0, "y": 1, "z": 2},
    "another order": {"cat": 1, "dog": 0, "eel": 2},
    "fewer": {"cat": 0, "dog": 1},
    "more": {"cat": 0, "dog": 1, "eel": 2, "fox": 3},
    "a list": ["cat", "dog", "eel"],
}


PLAIN = "plain"
PIXELS = {"size": SIZE, "image_mean": MEAN, "image_std": STD}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    smoothed().save_pretrained(folder)
    plain().save_pretrained(folder / PLAIN)
    return folder


def wrapped(folder, **given):
    return SmoothedClassifier.from_base_pretrained(folder / PLAIN, sigma=0.25, **PIXELS, **given)


@pytest.mark.parametrize("wrong", NUMBERS)
@pytest.mark.parametrize(
    "make",
    [
        lambda folder, **given: config(**given),
        lambda folder, **given: config(id2label=dict(enumerate(NAMES)), **given),
        lambda folder, **given: SmoothedClassifier.from_pretrained(folder, **given),
        lambda folder, **given: SmoothedClassifier.from_pretrained(folder, id2label=dict(enumerate(NAMES)), **given),
        lambda folder, **given: AutoModelForImageClassification.from_pretrained(folder, **given),
        lambda folder, **given: AutoConfig.from_pretrained(folder, **given),
        lambda folder, **given: wrapped(folder, **given),
        lambda folder, **given: wrapped(folder, id2label=dict(enumerate(NAMES)), **given),
        lambda folder, **given: denoised_classifier(folder / PLAIN, sigma=0.25, pixels=PIXELS, **given),
        lambda folder, **given: smoothed_ensemble([folder / PLAIN], sigma=0.25, pixels=PIXELS, **given),
    ],
    ids=[
        "config", "config and names", "model", "model and names", "auto", "auto config", "wrapped", "wrapped and names", "denoised", "ensemble",
    ],
)  # fmt: skip
def test_numbers_of_classes_at_odds_with_their_names_are_refused(make, wrong, checkpoint):
    with pytest.raises(ValueError, match="`label2id` must be the inverse of `id2label`, .* Leave it out"):
        make(checkpoint, label2id=NUMBERS[wrong])
    right = make(checkpoint, label2id={name: index for index, name in enumerate(NAMES)})
    assert getattr(right, "config", right).label2id == {name: index for index, name in enumerate(NAMES)}


def test_numbers_of_classes_follow_the_names_that_are_asked_for(checkpoint):
    names = ("fox", "gnu", "hen", "ibis")
    model = SmoothedClassifier.from_pretrained(
        checkpoint, id2label=dict(enumerate(names)), ignore_mismatched_sizes=True
    )
    for one in (model.config, model.config.base_config):
        assert one.label2id == {name: index for index, name in enumerate(names)}
    twice = {0: "crane", 1: "crane", 2: "eel"}  # as two classes of ImageNet are
    assert config(id2label=twice, label2id={"crane": 1, "eel": 2}).label2id == {"crane": 1, "eel": 2}
    for kind in (str, torch.tensor, np.int64):  # however the numbers are written
        numbers = {name: kind(index) for index, name in enumerate(NAMES)}
        assert config(label2id=numbers).label2id == {name: index for index, name in enumerate(NAMES)}
    values = json.loads((checkpoint / "config.json").read_text("utf-8")) | {
        "label2id": {"x": 0}
    }  # as it was saved before
    assert SmoothedClassifierConfig.from_dict(values).label2id == {name: index for index, name in enumerate(NAMES)}


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification"])
@pytest.mark.parametrize(
    "make",
    [
        lambda folder, **given: config(**given),
        lambda folder, **given: config(base_config=resnet_config(**given)),
        lambda folder, **given: SmoothedClassifierConfig.from_dict(
            json.loads((folder / "config.json").read_text("utf-8")) | given
        ),
        lambda folder, **given: SmoothedClassifier.from_pretrained(folder, **given),
        lambda folder, **given: AutoModelForImageClassification.from_pretrained(folder, **given),
        lambda folder, **given: AutoConfig.from_pretrained(folder, **given),
    ],
    ids=["config", "base", "file", "model", "auto", "auto config"],
)
def test_other_kinds_of_problems_are_refused_of_the_wrapper_as_of_its_base(make, problem, checkpoint):
    """A pipeline would answer with other shares than the votes."""
    with pytest.raises(ValueError, match=f"single-label classification .* got problem_type='{problem}'"):
        make(checkpoint, problem_type=problem)
    made = make(checkpoint, problem_type="single_label_classification")
    assert getattr(made, "config", made).num_labels == 3


MEAN_STD = {"image_mean": MEAN, "image_std": STD}
TWICE = {0: "crane", 1: "crane", 2: "eel"}  # as two classes of ImageNet are called
PARTS = {
    "ensemble": lambda **given: EnsembleConfig(members=[{"base_config": resnet_config(), **MEAN_STD}] * 2, **given),
    "denoised": lambda **given: DenoisedClassifierConfig(
        denoiser={"kind": "residual"}, base_config=resnet_config(), sigma=0.25, **MEAN_STD, **given
    ),
}


@pytest.mark.parametrize("number", [0, 1])
def test_of_classes_of_one_name_the_caller_says_which_is_meant(number, checkpoint, tmp_path):
    numbers = {"crane": number, "eel": 2}
    with pytest.warns(UserWarning, match="class 0 is 'cat' there and 'crane' here"):
        made = SmoothedClassifier.from_pretrained(checkpoint, id2label=TWICE, label2id=numbers)
    made.save_pretrained(tmp_path)
    again = SmoothedClassifier.from_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="class 0 is 'cat' there and 'crane' here"):
        wrapper = wrapped(checkpoint, id2label=TWICE, label2id={"crane": str(number), "eel": 2})
    assert wrapper.base_network.config.label2id == numbers
    for one in (config(id2label=TWICE, label2id={"crane": str(number), "eel": 2}), made.config, again.config):
        assert one.label2id == one.base_config.label2id == numbers


@pytest.mark.parametrize("names", [("x", "y", "z"), ("dog", "cat", "eel"), ("cat", "dog", "fox")])
def test_names_are_replaced_in_the_values_of_a_configuration(names):
    """Its numbers are those of the names before."""
    made = SmoothedClassifierConfig(**config().to_dict() | {"id2label": dict(enumerate(names))})
    for one in (made, made.base_config):
        assert one.id2label == dict(enumerate(names))
        assert one.label2id == {name: number for number, name in enumerate(names)}
    wrong = {name: (number + 1) % 3 for number, name in enumerate(names)}
    with pytest.raises(ValueError, match="`label2id` must be the inverse"):
        SmoothedClassifierConfig(**config().to_dict() | {"id2label": dict(enumerate(names)), "label2id": wrong})


def test_numbers_without_names_are_not_passed_over():
    with pytest.raises(ValueError, match="`label2id` must be the inverse of `id2label`, .* Leave it out"):
        CnnSevenConfig(label2id={"a": 0, "b": 1, "c": 2})
    names = {0: "a", 1: "b", 2: "c"}
    assert CnnSevenConfig(**CnnSevenConfig(id2label=names).to_dict()).id2label == names


@pytest.mark.parametrize("make", PARTS.values(), ids=PARTS)
def test_a_configuration_made_of_others_checks_its_classes_as_well(make):
    for wrong in NUMBERS.values():
        with pytest.raises(ValueError, match="`label2id` must be the inverse"):
            make(label2id=wrong)
    for names in GAPS.values():
        with pytest.raises(ValueError, match="`id2label` must name each class by its number"):
            make(id2label=names)
    right = {name: number for number, name in enumerate(NAMES)}
    assert make().label2id == make(label2id=right).label2id == right
    assert type(make())(**make().to_dict()).to_dict() == make().to_dict()
