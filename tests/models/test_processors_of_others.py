"""What is read from the image processors of published checkpoints."""

from __future__ import annotations

import pytest
import torch
from transformers import ViTImageProcessor

from hf_smoothing import NoisyImageProcessor, SmoothedClassifier
from hf_smoothing.data.processors import read_processor
from hf_smoothing.models.level_range import warn_of_levels
from tests.support.tiny import plain, trainer


@pytest.mark.parametrize("factor", [1 / 255, 1 / 127.5])
def test_the_normalisation_is_that_of_the_processor_whatever_its_range(factor):
    theirs = ViTImageProcessor(
        size={"height": 8, "width": 8}, rescale_factor=factor, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4]
    )
    image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ours = read_processor(theirs).preprocessing(image[None].float() / 255)
    torch.testing.assert_close(theirs(image, return_tensors="pt")["pixel_values"], ours)


def test_the_processor_comes_from_where_the_weights_come_from(tmp_path):
    for folder, mean in ((tmp_path, 0.9), (tmp_path / "v2", 0.1)):
        plain().save_pretrained(folder)
        ViTImageProcessor(size={"height": 16, "width": 16}, image_mean=[mean] * 3).save_pretrained(folder)
    model = SmoothedClassifier.from_base_pretrained(tmp_path, sigma=0.25, subfolder="v2")
    assert model.config.image_mean == [0.1] * 3


def test_attention_can_be_chosen_and_half_precision_must_be(tmp_path):
    model = SmoothedClassifier.from_base_pretrained(
        plain("vit"), sigma=0.25, size=16, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    model.to(torch.float16).save_pretrained(tmp_path)
    loaded = SmoothedClassifier.from_pretrained(tmp_path, attn_implementation="sdpa")
    assert loaded.base_network.config._attn_implementation == "sdpa"
    assert loaded.dtype == torch.float32
    assert SmoothedClassifier.from_pretrained(tmp_path, dtype=torch.float16).dtype == torch.float16


def test_the_processor_is_saved_before_anything_is_uploaded(tmp_path, monkeypatch):
    from transformers import PreTrainedModel

    model = SmoothedClassifier.from_base_pretrained(
        plain(), sigma=0.25, size=16, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    seen = []
    monkeypatch.setattr(
        PreTrainedModel, "save_pretrained", lambda self, path, **_: seen.extend(p.name for p in path.iterdir())
    )
    model.save_pretrained(tmp_path)
    assert "preprocessor_config.json" in seen
    assert isinstance(model.image_processor(), NoisyImageProcessor)


PLAIN = {"size": {"height": 16, "width": 16}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
UNSCALED = {
    "not rescaled": {"do_rescale": False},
    "a factor of 1": {"rescale_factor": 1.0},
    "of ImageNet": {"do_rescale": False, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
    "a mean alone": {"do_rescale": False, "image_std": [1.0] * 3},
}
MEANT = {
    "rescaled": {},
    "of levels": {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3},
    "less a mean of levels": {"do_rescale": False, "image_mean": [124.0, 117.0, 104.0], "image_std": [1.0] * 3},
    "levels as they are": {"do_rescale": False, "do_normalize": False},
    "levels, normalised by nothing": {"do_rescale": False, "image_mean": [0.0] * 3, "image_std": [1.0] * 3},
    "twice the range": {"rescale_factor": 1 / 127.5},
}


def wrap_with(processor, where, **kwargs):
    plain().save_pretrained(where)
    processor.save_pretrained(where)
    return SmoothedClassifier.from_base_pretrained(where, sigma=0.25, **kwargs)


@pytest.mark.parametrize("settings", UNSCALED.values(), ids=UNSCALED)
def test_a_normalisation_of_pixels_that_meets_levels_is_warned_of_once(settings, tmp_path):
    processor = ViTImageProcessor(**(PLAIN | settings))
    said = r"gives the network values from .* as if it had been trained on levels 0..255.*set do_rescale to true"
    with pytest.warns(UserWarning, match=said) as warned:
        model = wrap_with(processor, tmp_path / "a")
    assert len([one for one in warned if "levels 0..255" in str(one.message)]) == 1
    highest = (1 - model.config.image_mean[0]) / model.config.image_std[0]
    assert highest > 250
    halves = {"image_mean": processor.image_mean, "image_std": processor.image_std}
    cured = wrap_with(processor, tmp_path / "b", **halves)
    right = wrap_with(ViTImageProcessor(**(PLAIN | halves)), tmp_path / "c")
    pixels = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(cured.classify(pixels), right.classify(pixels))
    model.save_pretrained(tmp_path / "saved")
    SmoothedClassifier.from_pretrained(tmp_path / "saved")  # said once, when it was wrapped
    with pytest.warns(UserWarning, match=f"This ViTImageProcessor.* {said}"):
        trainer(plain(), tmp_path / "run", processing_class=processor)


@pytest.mark.parametrize("settings", MEANT.values(), ids=MEANT)
def test_levels_that_are_meant_are_not_warned_of(settings, tmp_path):
    processor = ViTImageProcessor(**(PLAIN | settings))
    wrap_with(processor, tmp_path)
    trainer(plain(), tmp_path / "run", processing_class=processor)


def test_a_processor_that_does_not_say_its_settings_is_warned_of_too():
    found = read_processor(ViTImageProcessor(**PLAIN, do_rescale=False))
    with pytest.warns(UserWarning, match="^It gives the network values from -1 to 509, as if .* image_mean=None"):
        warn_of_levels(object(), found, "It")
