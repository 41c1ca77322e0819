"""Widths of the bounds neither explode nor vanish under the initialisation."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrizations, prune

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


WANTED = math.sqrt(2 * math.pi) / 48


def with_first(wrap):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), wrap(nn.Linear(48, 64)), nn.ReLU(), nn.Linear(64, 2))


@pytest.mark.parametrize("wrap", [
    lambda layer: layer, parametrizations.weight_norm,
    lambda layer: parametrizations.weight_norm(layer.double()).float(),
], ids=["plain", "weight norm", "cast"])  # fmt: skip
def test_parametrised_weights_are_drawn_through_their_parametrisation(wrap):
    model, plain = with_first(wrap), with_first(lambda layer: layer)
    for one in (model, plain):
        torch.manual_seed(1)
        initialise_for_intervals(one)
    assert float(model[1].weight.detach().std()) == pytest.approx(WANTED, rel=0.1)
    assert torch.allclose(model[1].weight, plain[1].weight, atol=1e-6)
    assert not model[1].bias.any()
    assert torch.equal(model[3].weight, plain[3].weight)


@pytest.mark.parametrize(("wrap", "message"), [
    (parametrizations.spectral_norm, r"parametrisation \(_SpectralNorm\)"), (parametrizations.orthogonal, r"parametrisation \(_Orthogonal\)"),
    (nn.utils.weight_norm, "computed from bias, weight_g, weight_v"), (nn.utils.spectral_norm, "computed from bias, weight_orig"),
    (lambda layer: prune.random_unstructured(layer, "weight", 0.5), "computed from bias, weight_orig"),
    (lambda layer: parametrizations.weight_norm(layer, "bias"), r"parametrisation \(_WeightNorm\)"), (lambda layer: nn.LazyLinear(64), "has no shape yet. Run the network once"),
], ids=["spectral", "orthogonal", "older weight norm", "older spectral", "pruned", "weight norm of a bias", "lazy"])  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*_norm. is deprecated", "ignore:Lazy modules")
def test_weights_that_take_nothing_are_refused_by_name_and_nothing_changes(wrap, message):
    model = nn.Sequential(nn.Linear(48, 48), *with_first(wrap))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=f"The (weight|bias) of '2' .*{message}"):
        initialise_for_intervals(model)
    same = (
        value is before[key] or is_lazy(value) or torch.equal(value, before[key])
        for key, value in model.state_dict().items()
    )
    assert all(same)


class Registered(nn.Module):
    """Layers in the order in which they are given, whatever that of the calls is."""

    def __init__(self, **layers):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)


HEAD, BODY, CONV = nn.Linear(64, 2), nn.Linear(48, 64), nn.Conv2d(3, 4, 3)


@pytest.mark.parametrize(("model", "options", "kept"), [
    (Registered(head=HEAD, body=BODY), {}, "head"), (Registered(body=BODY, head=HEAD), {}, "head"),
    (Registered(head=nn.Linear(16, 3), conv=CONV), {}, "head"), (Registered(head=nn.Conv2d(4, 10, 1), conv=CONV), {}, "head"),
    (Registered(head=HEAD, same=nn.Linear(64, 64), body=BODY), {}, "head"), (Registered(a=HEAD, b=nn.Linear(64, 5)), {"last": "a"}, "a"),
    (nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 8))), {}, "1.1"), (nn.Sequential(nn.Linear(8, 8)), {}, "0"),
], ids=str)  # fmt: skip
def test_the_layer_that_makes_the_logits_keeps_its_weights(model, options, kept):
    model = copy.deepcopy(model)
    before = copy.deepcopy(model.state_dict())
    initialise_for_intervals(model, **options)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.rsplit(".", 1)[0] != kept}


def test_a_head_by_the_number_of_classes_wherever_it_is():
    model = network()
    model.add_module("auxiliary", nn.Linear(7, 5))
    before = copy.deepcopy(model.classifier.state_dict())
    initialise_for_intervals(model)
    assert all(torch.equal(value, before[name]) for name, value in model.classifier.state_dict().items())
    assert not model.auxiliary.bias.any()


@pytest.mark.parametrize(("layers", "options", "message"), [
    ({"a": HEAD, "b": nn.Linear(64, 5)}, {}, "it may be a or b. Name it"), ({"a": nn.Linear(8, 8), "b": nn.Linear(8, 8)}, {}, "it may be a or b"),
    ({"a": HEAD, "b": BODY}, {"last": "c"}, r"`last` names \['c'\].*There are: a, b"),
    ({"a": HEAD, "b": BODY}, {"halved": ["a"]}, "`halved` names 'a', the last layer"),
])  # fmt: skip
def test_a_last_layer_that_is_not_known_is_asked_for(layers, options, message):
    model = Registered(**copy.deepcopy(layers))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        initialise_for_intervals(model, **options)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
