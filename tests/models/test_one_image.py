"""Images that are no pixels yet are refused with a line that makes the right ones: those of the network's own processor."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor, ViTImageProcessor
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from hf_smoothing import SmoothedClassifier
from hf_smoothing.data.processors import LARGEST, MEAN
from tests.support.tiny import plain, trainer


HALVES = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
PROCESSORS = {
    "whole": ViTImageProcessor(size={"height": 16, "width": 16}, **HALVES),
    "larger": ViTImageProcessor(size={"height": 24, "width": 20}, **HALVES),
    "cropped": CLIPImageProcessor(size={"shortest_edge": 20}, crop_size={"height": 16, "width": 16}, **HALVES),
    "sharp": ViTImageProcessor(size={"height": 16, "width": 16}, resample=1, **HALVES),
}


def pictures(shapes=((45, 90), (70, 30))):
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(60, 200, (*shape, 3), dtype=np.uint8)) for shape in shapes]


@pytest.fixture(params=PROCESSORS)
def checkpoint(request, tmp_path):
    plain().save_pretrained(tmp_path)
    PROCESSORS[request.param].save_pretrained(tmp_path)
    return tmp_path


CALLS = {
    "certify": lambda model, images: model.certify(images, n=20),
    "predict": lambda model, images: model.predict(images, n=20),
    "classify": lambda model, images: model.classify(images),
    "forward": lambda model, images: model(images),
    "train": lambda model, images: model.train()(images),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_line_in_the_message_makes_the_pixels_of_the_own_processor(call, checkpoint):
    model, theirs = SmoothedClassifier.from_base_pretrained(checkpoint, sigma=0.25), pictures()
    for images in (theirs, theirs[0], [np.asarray(image) for image in theirs], np.asarray(theirs[0])):
        with pytest.raises(TypeError, match="must be a torch tensor") as refused:
            call(model, images)
        check_line(str(refused.value), model, images, checkpoint)
    with pytest.raises(ValueError, match="at the certified resolution") as refused:
        call(model, torch.rand(2, 3, 50, 50))
    check_line(str(refused.value), model, theirs, checkpoint)


def check_line(message, model, images, checkpoint):
    line = re.search(r"model\.image_processor\(\)\(images, .*?\)\[.*?\]", message)[0]
    made = eval(line, {"model": model, "images": images})
    own = AutoImageProcessor.from_pretrained(checkpoint)(images, return_tensors="pt")["pixel_values"]
    gap = (made - (0.5 * own + 0.5)).abs()
    assert gap.max() <= LARGEST and gap.mean() <= MEAN
    assert len(model.eval().certify(made, n=20)) == len(made)


def test_a_trainer_says_so_of_images_of_another_size(tmp_path):
    plain().save_pretrained(tmp_path)
    PROCESSORS["cropped"].save_pretrained(tmp_path)
    model = SmoothedClassifier.from_base_pretrained(tmp_path, sigma=0.25)
    items = [{"pixel_values": torch.rand(3, 50, 50), "labels": 0}] * 4
    with pytest.raises(ValueError, match=r"model\.image_processor\(\)\(images"):
        trainer(model, tmp_path / "run", train_dataset=items).train()
