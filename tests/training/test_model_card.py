"""What a trained plain network says about its pixels (`config.hf_smoothing`), and who believes it."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForImageClassification

from hf_smoothing import NoisyImageProcessor, RobustTrainer, SmoothedClassifier
from hf_smoothing.data import DecodedPixels
from hf_smoothing.training.model_card import objective_note
from hf_smoothing.training.objectives import OBJECTIVES, find_objective
from tests.support.tiny import MEAN, SIZE, STD, any_model, arguments, data, pixels, plain, smoothed, tensors, trainer


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
        "objective": {"name": "mixture", "mixup": 0.0},
    }


@pytest.mark.parametrize("kind", ["resnet", "smoothed-resnet"])
def test_the_objective_is_in_the_configuration_and_in_the_model_card(kind, tmp_path):
    settings = {"copies": 3}
    loop = trainer(any_model(kind), tmp_path, noise="0.5", objective="consistency", objective_args=settings)
    loop.train()
    loop.save_model(str(tmp_path / "saved"))
    assert note(tmp_path / "saved")["objective"] == {
        "name": "consistency",
        "copies": 3,
        "weight": 10.0,
        "entropy": 0.5,
    }
    assert note(tmp_path / "saved")["noise"]["sigmas"] == [0.5]
    loop.create_model_card()
    card = (tmp_path / "README.md").read_text()
    assert '- objective: `consistency` with `{"copies": 3, "weight": 10.0, "entropy": 0.5}`' in card
    assert '- noise, sigma in [0, 1] pixel units: `{"sigmas": [0.5]' in card
    assert card.startswith("---\n")  # the stock card's own head
    load = "from_pretrained" if "smoothed" in kind else "from_base_pretrained"
    assert f'SmoothedClassifier.{load}("{tmp_path.name}"' in card and "## Load and certify" in card
    data = ModelCard(card).data
    assert data.library_name == ("hf_smoothing" if "smoothed" in kind else "transformers")
    assert data.pipeline_tag == "image-classification" and "hf_smoothing" in data.tags
    loop.create_model_card()
    assert (tmp_path / "README.md").read_text() == card


def test_an_objective_of_ones_own_is_noted_by_its_name(tmp_path):
    def own(model, batch, state, *, teacher=Path("somewhere"), weight=2.0):
        return model(batch.pixels).square().mean(), {}

    loop = trainer(plain(), tmp_path, objective=own)
    loop.create_model_card()
    assert loop.note["objective"] == {"name": "own", "teacher": "PosixPath", "weight": 2.0}
    assert "- noise, sigma in [0, 1] pixel units: none\n" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("kind", ["resnet", "smoothed-resnet"])
def test_resuming_a_run_that_was_another_is_reported(kind, tmp_path):
    trainer(any_model(kind), tmp_path, noise="0.5", save_strategy="steps", save_steps=2).train()
    checkpoint = str(tmp_path / "checkpoint-2")
    loop = trainer(any_model(kind), tmp_path, noise="0.25", objective="consistency", max_steps=3)
    with pytest.warns(
        UserWarning,
        match=r"was trained otherwise: noise .*0\.5.* there and .*0\.25.* here, objective .*mixture.* there",
    ):
        loop.train(resume_from_checkpoint=checkpoint)


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
    if "image_mean" in change:
        del model.config.hf_smoothing
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


def test_a_wrapper_needs_no_note_of_its_pixels(tmp_path):
    model = smoothed()
    trainer(model, tmp_path).train()
    assert model.config.hf_smoothing.keys() == {"noise", "objective"}
    assert not hasattr(model.base_network.config, "hf_smoothing")


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


def test_lists_of_settings_are_noted_whole():
    """As a resumed run compares them: "list" would hide that the weights are others."""
    notes = [
        objective_note(find_objective("consistency", OBJECTIVES, {"weight": weights}), "consistency")
        for weights in ([2.0, 5.0], [2.0, 6.0])
    ]
    assert [note["weight"] for note in notes] == [[2.0, 5.0], [2.0, 6.0]]


@pytest.mark.parametrize(
    ("processor", "noise"),
    [
        (
            NoisyImageProcessor(size=SIZE, noise=0.25, do_noise=True),
            {"sigmas": [0.25], "clean": 0.0, "distribution": "list"},
        ),
        (NoisyImageProcessor(size=SIZE, noise=0.25), "added by the image processor, which does not say"),
        (NoisyImageProcessor(size=SIZE), "added by the image processor, which does not say"),
        (None, "added by the image processor, which does not say"),
    ],
)
def test_noise_of_a_processor_is_noted_as_training_noise(processor, noise, tmp_path):
    more = {} if processor is None else {"processing_class": processor}
    ready = DecodedPixels(data().pixels / 255, data().labels)
    own = {"noise": None, "noise_owner": "processor", "image_mean": None, "image_std": None, "train_dataset": ready}
    loop = trainer(plain(), tmp_path, **own, **more)
    assert loop.note["noise"] == noise
    loop.train()
    loop.create_model_card()
    assert f"- noise, sigma in [0, 1] pixel units: `{json.dumps(noise)}`" in (tmp_path / "README.md").read_text()
