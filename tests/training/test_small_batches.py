"""A last batch of one image, which a batch norm on a 1x1 map cannot take, is found in the first forward pass."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hf_smoothing.training.small_batches import has_batch_of_one, norms_watched
from tests.support.tiny import data, plain, smoothed, trainer


DEEP = {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1]}
"""A ResNet whose last stage has a 1x1 map for 16 px."""


def steps_of(loop):
    return loop.state.global_step


@pytest.mark.parametrize("wrapped", [False, True])
def test_it_is_said_before_the_first_step(wrapped, tmp_path):
    model = smoothed("resnet", base=DEEP) if wrapped else plain("resnet", **DEEP)
    loop = trainer(model, tmp_path, train_dataset=data(9), max_steps=-1, num_train_epochs=1)
    before = model.state_dict()["base_network.classifier.1.weight" if wrapped else "classifier.1.weight"].clone()
    with pytest.raises(ValueError, match=r"batch norm '.*' would see one value.*dataloader_drop_last=True.*9 images"):
        loop.train()
    assert steps_of(loop) == 0
    assert torch.equal(
        before, model.state_dict()["base_network.classifier.1.weight" if wrapped else "classifier.1.weight"]
    )
    assert not any(module._forward_pre_hooks for module in model.modules() if isinstance(module, nn.BatchNorm2d))


@pytest.mark.parametrize(
    "cure",
    [
        {"dataloader_drop_last": True},
        {"per_device_train_batch_size": 3},
        {"per_device_train_batch_size": 9},
        {"freeze_batch_norm": True},
        {"max_steps": 2},  # the last batch is the third
        {"objective": "consistency", "noise": "0.25"},  # two copies of each image
    ],
)
def test_what_works_is_not_refused(cure, tmp_path):
    values = {"max_steps": -1, "num_train_epochs": 1} | cure
    loop = trainer(plain("resnet", **DEEP), tmp_path, train_dataset=data(9), **values)
    loop.train()
    assert steps_of(loop) > 0


@pytest.mark.parametrize(("model", "images"), [("resnet", 9), ("vit", 9)])
def test_networks_without_such_a_norm_take_one_image(model, images, tmp_path):
    loop = trainer(plain(model), tmp_path, train_dataset=data(images), max_steps=-1, num_train_epochs=1)
    loop.train()
    assert steps_of(loop) == 3


def test_batches_of_one_have_another_cure(tmp_path):
    loop = trainer(plain("resnet", **DEEP), tmp_path, per_device_train_batch_size=1)
    with pytest.raises(ValueError, match="Set per_device_train_batch_size to at least 2"):
        loop.train()


def args(**kwargs):
    values = {"world_size": 1, "dataloader_drop_last": False, "gradient_accumulation_steps": 1, "even": True} | kwargs
    return SimpleNamespace(**values, accelerator_config=SimpleNamespace(even_batches=values["even"]))


@pytest.mark.parametrize(
    ("more", "images", "size", "steps", "expected"),
    [
        ({}, 9, 4, 3, True),
        ({}, 9, 4, 2, False),
        ({"gradient_accumulation_steps": 2}, 9, 4, 2, True),
        ({}, 8, 4, 3, False),
        ({}, 10, 4, 3, False),
        ({"dataloader_drop_last": True}, 9, 4, 3, False),
        ({"world_size": 2}, 9, 4, 3, False),  # filled up
        ({"world_size": 2, "even": False}, 9, 4, 2, True),
        ({"world_size": 2}, 9, 1, 1, True),
    ],
)
def test_the_last_batch_of_a_rank(more, images, size, steps, expected):
    assert has_batch_of_one(args(**more), images, size, steps) is expected


def test_only_norms_in_train_mode_are_watched():
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3))
    images = torch.rand(4, 3, 1, 1)
    with pytest.raises(ValueError, match=r"batch norm '1'.*Do that\."), norms_watched(network, 4, "Do that."):
        network(images)
    with norms_watched(network.eval(), 4, ""):
        network(images)
