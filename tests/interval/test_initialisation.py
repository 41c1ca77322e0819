"""Widths of the bounds neither explode nor vanish under the initialisation."""

import copy
import math

import pytest
import torch
from torch import nn

from hf_smoothing import CnnSevenConfig, CnnSevenForImageClassification
from hf_smoothing.interval import box_around, initialise_for_intervals
from tests.support.bounded_networks import images


def network():
    torch.manual_seed(0)
    return CnnSevenForImageClassification(CnnSevenConfig(width=16, image_size=16, num_labels=4)).double().eval()


def widths(model):
    box = box_around(images(4, 16), 0.001)
    model(pixel_values=box)
    return [float(layer.radius.mean().detach()) for layer in box.trace.before_activations]


def test_widths_neither_explode_nor_vanish():
    usual, model = network(), network()
    initialise_for_intervals(model)
    found, before = widths(model), widths(usual)
    assert max(found) < 3 * found[0]
    assert min(found) > found[0] / 3
    assert before[-1] > 20 * before[0]


def test_spread_of_the_weights_and_the_head_left_alone():
    model = network()
    head = copy.deepcopy(model.classifier.state_dict())
    initialise_for_intervals(model)
    for layer in model.body:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            fan_in = layer.weight[0].numel()
            assert float(layer.weight.detach().std()) == pytest.approx(math.sqrt(2 * math.pi) / fan_in, rel=0.15)
            assert not layer.bias.any()
    assert all(torch.equal(value, head[name]) for name, value in model.classifier.state_dict().items())


def test_layers_after_additions_get_half_and_unknown_ones_are_refused():
    whole, half = network(), network()
    torch.manual_seed(1)
    initialise_for_intervals(whole)
    torch.manual_seed(1)
    initialise_for_intervals(half, halved=["body.3"])
    assert torch.allclose(half.body[3].weight, whole.body[3].weight / 2)
    assert torch.equal(half.body[0].weight, whole.body[0].weight)
    with pytest.raises(ValueError, match=r"`halved` names \['body\.1'\].*There are: body\.0, body\.3"):
        initialise_for_intervals(network(), halved=["body.1"])
