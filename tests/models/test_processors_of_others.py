"""What is read from the image processors of published checkpoints."""

from __future__ import annotations

import pytest
import torch
from transformers import ViTImageProcessor

from hf_smoothing import NoisyImageProcessor, SmoothedClassifier
from hf_smoothing.data.processors import read_processor
from tests.support.tiny import plain


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
