"""CNN7 is the network of the literature, at any size, and loads with the Auto classes."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageClassification

from hf_smoothing import CnnSevenConfig, CnnSevenForImageClassification, SmoothedClassifier
from hf_smoothing.training.layerwise import last_blocks, parameter_depths
from tests.support.tiny import MEAN, STD, label_maps


def model(**kwargs):
    return CnnSevenForImageClassification(
        CnnSevenConfig(**({"width": 4, "image_size": 16} | label_maps() | kwargs))
    ).eval()


def test_it_is_the_network_of_the_literature():
    network = CnnSevenForImageClassification(CnnSevenConfig(num_labels=10))
    count = sum(parameter.numel() for parameter in network.parameters())
    assert 17.0e6 < count < 17.3e6
    shapes = [tuple(m.weight.shape) for m in network.modules() if hasattr(m, "weight") and m.weight.ndim > 1]
    assert shapes == [
        (64, 3, 3, 3), (64, 64, 3, 3), (128, 64, 3, 3), (128, 128, 3, 3), (128, 128, 3, 3), (512, 128 * 16 * 16), (10, 512),
    ]  # fmt: skip


@pytest.mark.parametrize(("size", "channels", "last"), [(16, 3, 1), (17, 3, 2), (28, 1, 1), (64, 3, 2)])
def test_any_size_and_number_of_channels(size, channels, last):
    network = model(image_size=size, num_channels=channels, last_stride=last)
    output = network(torch.rand(2, channels, size, size), labels=torch.tensor([0, 2]))
    assert output.logits.shape == (2, 3)
    assert output.loss.ndim == 0
    assert torch.equal(
        network(torch.rand(2, channels, size, size), return_dict=False)[0].isfinite(), torch.ones(2, 3, dtype=bool)
    )


def test_it_saves_and_loads_with_the_auto_classes_alone_and_wrapped(tmp_path):
    network = model()
    network.save_pretrained(tmp_path / "plain")
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "plain")
    assert type(again) is CnnSevenForImageClassification
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), again.state_dict().values(), strict=True)
    )
    assert AutoConfig.from_pretrained(tmp_path / "plain").width == 4
    wrapped = SmoothedClassifier.from_base_pretrained(
        tmp_path / "plain", sigma=0.25, size=16, image_mean=MEAN, image_std=STD
    )
    wrapped.save_pretrained(tmp_path / "wrapped")
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(
        SmoothedClassifier.from_pretrained(tmp_path / "wrapped").eval().classify(x), wrapped.classify(x)
    )


def test_its_layers_have_depths():
    depths = parameter_depths(model())
    assert depths.blocks == 6  # five convolutions and a linear layer, each with its batch norm and ReLU
    assert depths.head == {"classifier.weight", "classifier.bias"}
    last = {f"{layer}.{kind}" for layer in ("classifier", "body.16", "body.17") for kind in ("weight", "bias")}
    assert set(last_blocks(model(), 1)) == last
    assert [depths.of[f"body.{place}.weight"] for place in (0, 1, 3, 4, 12, 13, 16, 17)] == [1, 1, 2, 2, 5, 5, 6, 6]


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"must have shape \(batch, 3, 16, 16\), got \(2, 3, 8, 8\)"):
        model()(torch.rand(2, 3, 8, 8))


@pytest.mark.parametrize(
    ("name", "value"), [("width", 0), ("image_size", -1), ("last_stride", 1.5), ("num_channels", True)]
)
def test_numbers_out_of_range_are_refused(name, value):
    with pytest.raises(Exception, match=name):
        CnnSevenConfig(**{name: value})
