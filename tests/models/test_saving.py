"""Saving leaves everything as it was."""

import random

import numpy as np
import pytest
import torch
from transformers import SwinConfig, SwinForImageClassification, set_seed

from hf_smoothing import SmoothedClassifier, denoised_classifier, smoothed_ensemble
from hf_smoothing.models.reloading import check_reloadable
from tests.support.tiny import MEAN, SIZE, STD, plain, smoothed


PIXELS = {"size": SIZE, "image_mean": MEAN, "image_std": STD}


def drawn():
    return torch.rand(2).tolist(), np.random.rand(2).tolist(), [random.random(), random.random()]


@pytest.mark.parametrize("kind", ["vit", "resnet", "swin", "ensemble", "denoised"])
def test_saving_draws_from_no_global_generator(kind, tmp_path):
    """It would change the dropout of a training that saves, so that one that is resumed would not be the same."""
    if kind == "ensemble":
        model = smoothed_ensemble([plain(), plain("vit")], sigma=0.25, pixels=PIXELS)
    elif kind == "denoised":
        denoiser = {"kind": "residual", "width": 4, "depth": 2}
        model = denoised_classifier(plain(), sigma=0.25, denoiser=denoiser, pixels=PIXELS)
    elif kind == "swin":
        swin = SwinConfig(
            image_size=SIZE, patch_size=2, embed_dim=8, depths=[1, 2], num_heads=[1, 2], window_size=4, num_labels=3
        )
        model = SmoothedClassifier.from_base_pretrained(SwinForImageClassification(swin), sigma=0.25, **PIXELS)
    else:
        model = smoothed(kind)
    draws = []
    for save in (lambda: None, lambda: model.save_pretrained(tmp_path), lambda: check_reloadable(model)):
        set_seed(0)
        save()
        draws.append(drawn())
    assert draws[0] == draws[1] == draws[2]
