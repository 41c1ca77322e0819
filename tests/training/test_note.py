"""What a trained plain network says about its pixels (`config.hf_smoothing`), and who believes it."""

import json

import pytest
import torch
from tiny import MEAN, SIZE, STD, arguments, data, pixels, plain, smoothed, tensors, trainer
from transformers import AutoModelForImageClassification

from hf_smoothing import NoisyImageProcessor, RobustTrainer, SmoothedClassifier


OTHER = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]}


def note(folder):
    return json.loads((folder / "config.json").read_text())["hf_smoothing"]


@pytest.fixture
def pretrained(tmp_path):
    loop = trainer(plain(), tmp_path / "run", noise="0.5", model_size=32)
    loop.train()
    loop.save_model(str(tmp_path / "saved"))
    return tmp_path / "saved"


def test_the_note_is_saved(pretrained):
    noise = {"sigmas": [0.5], "clean": 0.0, "distribution": "list"}
    assert note(pretrained) == {
        "size": [SIZE, SIZE],
        "model_size": [32, 32],
        "image_mean": MEAN,
        "image_std": STD,
        "noise": noise,
    }


def test_checkpoints_have_it_too(tmp_path):
    trainer(plain(), tmp_path, save_strategy="steps", save_steps=2).train()
    assert note(tmp_path / "checkpoint-2")["size"] == [SIZE, SIZE]


@torch.no_grad()
def test_the_wrapper_is_built_from_the_note(pretrained):
    model = SmoothedClassifier.from_base_pretrained(pretrained, sigma=0.25)
    assert (model.config.size, model.config.model_size) == ([SIZE, SIZE], [32, 32])
    base = AutoModelForImageClassification.from_pretrained(pretrained)
    loop = trainer(base, pretrained, model_size=32)
    expected = base.eval()(pixel_values=loop.preprocessing(pixels() / 255)).logits
    torch.testing.assert_close(model.classify(pixels() / 255), expected)


def test_the_checkpoint_is_a_plain_one(pretrained):
    assert json.loads((pretrained / "config.json").read_text())["model_type"] == "resnet"
    assert (pretrained / "model.safetensors").is_file()


def test_a_model_that_was_just_trained_can_be_wrapped(tmp_path):
    model = plain()
    trainer(model, tmp_path).train()
    assert SmoothedClassifier.from_base_pretrained(model, sigma=0.25).config.size == [SIZE, SIZE]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (OTHER | {"model_size": 32}, OTHER | {"model_size": [32, 32], "size": [16, 16]}),
        ({"image_mean": MEAN, "image_std": STD, "model_size": 24}, {"model_size": [24, 24]}),
        ({"noise": "1.0"}, {"noise": {"sigmas": [1.0], "clean": 0.0, "distribution": "list"}}),
        ({"noise": None}, {"noise": None}),
        ({"size": 8}, {"size": [8, 8], "model_size": [32, 32]}),
    ],
    ids=["normalisation", "model size", "noise", "clean", "size"],
)
def test_training_on_brings_the_note_up_to_date(change, expected, pretrained, tmp_path):
    model = AutoModelForImageClassification.from_pretrained(pretrained)
    change = dict(change)
    size = change.pop("size", SIZE)
    loop = RobustTrainer(model, arguments(tmp_path / "next", **change), train_dataset=data(size=size))
    loop.train()
    loop.save_model(str(tmp_path / "next"))
    saved = note(tmp_path / "next")
    assert {key: saved[key] for key in expected} == expected


def test_what_the_processor_says_is_noted(tmp_path):
    processor = NoisyImageProcessor(size=SIZE, model_size=32, **OTHER)
    loop = trainer(plain(), tmp_path, processing_class=processor)
    loop.train()
    loop.save_model(str(tmp_path / "saved"))
    saved = note(tmp_path / "saved")
    assert {key: saved[key] for key in OTHER} == OTHER
    assert saved["model_size"] == [32, 32]
    assert (tmp_path / "saved" / "preprocessor_config.json").is_file()


def test_a_wrapper_needs_no_note(tmp_path):
    model = smoothed()
    trainer(model, tmp_path).train()
    assert not hasattr(model.config, "hf_smoothing")
    assert not hasattr(model.base_classifier.config, "hf_smoothing")


def test_a_trained_wrapper_is_saved_whole(tmp_path):
    model = smoothed()
    loop = trainer(model, tmp_path, noise="0.5")
    loop.train()
    loop.save_model(str(tmp_path / "saved"))
    loaded = SmoothedClassifier.from_pretrained(tmp_path / "saved")
    before, after = tensors(model), tensors(loaded)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_note_is_kept_when_a_complete_run_is_resumed_and_saved(tmp_path):
    values = {"noise": "0.5", "model_size": 32, "save_strategy": "steps", "save_steps": 2}
    trainer(plain(), tmp_path / "run", **values).train()
    again = trainer(plain(), tmp_path / "run", **values)
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    again.save_model(str(tmp_path / "saved"))
    assert note(tmp_path / "saved")["size"] == [SIZE, SIZE]
