"""What is seen inside every image classifier of `transformers`: the features behind its heads, and the layers to compare."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hf_smoothing.models.denoised import DenoisedClassifierForImageClassification as Denoised
from hf_smoothing.models.denoised import denoised_classifier
from hf_smoothing.models.ensemble import smoothed_ensemble
from hf_smoothing.models.heads import backbone_of, head_parameters
from hf_smoothing.models.layers import layers_of, running_blocks
from hf_smoothing.models.network import Network, heads_of, recorded
from hf_smoothing.robustness_transfer.similarity import pooled
from hf_smoothing.training.stochastic_depth import stochastic_depth
from tests.support.architectures import ARCHITECTURES, label
from tests.support.tiny import SIZE, smoothed


LIGHT = [a for a in ARCHITECTURES if not (a.absent or a.refused or a.slow)]
SEVERAL = {"DeiTForImageClassificationWithTeacher", "LevitForImageClassificationWithTeacher", "SwiftFormerForImageClassification"}  # fmt: skip
NO_STEM = {"Cvt", "PvtV2", "Segformer"}
"""Their first stage begins with the embedding of the patches."""


def images(count=4, size=SIZE):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def from_heads(features, heads):
    """The mean of what the heads make of the features, their own part each, or all the same."""
    widths = [head.in_features for head in heads]
    shared = sum(widths) != features.shape[1]
    parts = [features] * len(heads) if shared else features.split(widths, dim=1)
    return torch.stack([head(part) for head, part in zip(heads, parts, strict=True)]).mean(0)


@pytest.mark.parametrize("architecture", LIGHT, ids=label)
def test_the_logits_are_a_linear_function_of_the_features(architecture):
    module = architecture.build()
    heads = list(heads_of(module).values())
    assert (len(heads) > 1) == (architecture.name in SEVERAL)
    with torch.no_grad():
        for head in heads:
            head.weight.normal_(), head.bias.normal_()
        network = Network(module, lambda x: module(pixel_values=x).logits)
        logits, features = network.with_features(images(size=architecture.size))
        torch.testing.assert_close(from_heads(features, heads), logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", LIGHT, ids=label)
def test_the_layers_to_compare_run_in_their_order_from_the_stem_on(architecture):
    module = architecture.build()
    layers = layers_of(module)
    order = []
    handles = [
        one.register_forward_hook(lambda *_, name=name: order.append(name)) for name, one in module.named_modules()
    ]
    with recorded(layers) as seen, torch.no_grad():
        module(pixel_values=images(size=architecture.size))
    for handle in handles:
        handle.remove()
    assert list(layers) == [name for name in order if name in layers] and len(layers) > 1
    assert all(len(pooled(seen[name])) == 4 for name in layers)
    stem, *_ = layers
    assert float(pooled(seen[stem]).std(0).max()) > 0  # it sees the image
    blocks = list(running_blocks(module))
    assert (stem in blocks or stem.startswith(blocks[0])) == (architecture.config in NO_STEM)
    # Nothing but the wiring of a module ends between the stem and the first block's own modules.
    if architecture.config not in NO_STEM:
        between = order[order.index(stem) + 1 : order.index(next(n for n in order if n.startswith(blocks[0])))]
        assert not [n for n in between if any(True for _ in module.get_submodule(n).parameters())]
    assert set(blocks) <= set(order)


class Heads(nn.Module):
    """Two linear layers of the same width, one after the other or side by side, without a configuration or with one."""

    def __init__(self, way, config):
        super().__init__()
        self.first, self.second, self.way = nn.Linear(3, 3), nn.Linear(3, 3), way
        if config:
            self.config = SimpleNamespace(num_labels=3)

    def forward(self, x):
        x = x.mean((2, 3))
        if self.way == "chain":
            return self.second(self.first(x).relu())
        if self.way == "in place":
            logits = self.first(x)
            return logits.add_(self.second(x.relu()))
        if self.way == "twice":
            return self.second(x) + self.second(x.relu())
        return self.first(x) + self.second(x.relu())


@pytest.mark.parametrize(("way", "width"), [("chain", 3), ("side by side", 6), ("in place", 6), ("twice", 6)])
@pytest.mark.parametrize("config", [True, False])
def test_what_goes_into_the_heads_that_ran_is_known_by_running(way, width, config):
    module = Heads(way, config)
    logits, features = Network(module, module).with_features(images())
    assert features.shape == (4, width)
    x = images().mean((2, 3))
    expected = {"chain": module.first(x).relu()}.get(way, torch.cat([x, x.relu()], 1))
    assert torch.equal(features, expected)
    assert torch.autograd.grad(logits.sum() + features.sum(), module.second.weight)


def test_the_features_of_an_ensemble_are_those_of_all_members():
    members = [smoothed("vit", 0).eval(), smoothed("resnet", 1).eval()]
    both = smoothed_ensemble(members, sigma=0.25).eval()
    features = [Network(one, one.classify).features(images()) for one in members]
    torch.testing.assert_close(Network(both, both.classify).features(images()), torch.cat(features, 1))


@pytest.mark.parametrize("around", [lambda one: one, lambda one: denoised_classifier(one, sigma=0.25)])
def test_the_layers_and_heads_of_an_ensemble_are_those_of_all_members(around):
    members = [around(smoothed("vit", 0, base={"num_hidden_layers": 2})), smoothed("resnet", 1)]
    both = around(smoothed_ensemble(members, sigma=0.25)).eval()
    place = "base_network.network.members" if isinstance(both.base_network, Denoised) else "base_network.members"
    for of in (layers_of, heads_of, backbone_of, head_parameters):
        inner = [[name.removeprefix("base_network.") for name in of(one)] for one in members]
        assert set(of(both)) == {f"{place}.{k}.{name}" for k, names in enumerate(inner) for name in names}
    layers = layers_of(both)
    with recorded(layers) as seen, torch.no_grad():
        both.classify(images())
    assert list(seen) == list(layers) and all(len(pooled(value)) == 4 for value in seen.values())
    assert running_blocks(both) == {}


def test_no_head_and_heads_that_do_not_run_on_the_batch_are_refused():
    with pytest.raises(ValueError, match=r"Flatten has no linear layer, so .* Give it a linear head"):
        heads_of(nn.Flatten())
    module = Heads("chain", True)
    with pytest.raises(ValueError, match=r"of first, second of Heads none ran\. Give it"):
        Network(module, lambda x: x.mean((2, 3))).features(images())
    parts = Network(module, lambda x: torch.cat([module(x[:2]), module(x[2:])]))
    with pytest.raises(ValueError, match=r"must run on the whole batch for its features, got 2 rows for 4 images"):
        parts.features(images())


@pytest.mark.parametrize("kind", ["PoolFormer", "Pvt"])
def test_of_a_stage_that_is_a_plain_list_the_last_block_is_compared_and_every_block_is_one(kind):
    architecture = next(a for a in LIGHT if a.config == kind)
    module = replace(architecture, values=architecture.values | {"depths": [1, 2, 1, 3]}).build()
    places = [name.split("encoder.")[1] for name in layers_of(module)]
    assert places == ["patch_embeddings.0", "block.0.0", "block.1.1", "block.2.0", "block.3.2"]
    assert [name.split("encoder.block.")[1] for name in running_blocks(module)] == [
        "0.0", "1.0", "1.1", "2.0", "3.0", "3.1", "3.2",
    ]  # fmt: skip
    stochastic_depth(module.train(), 0.9, lambda: torch.Generator().manual_seed(0))
    whole = module(pixel_values=images(size=32)).logits
    assert not torch.equal(whole, module.eval()(pixel_values=images(size=32)).logits)
