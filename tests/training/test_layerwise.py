"""How deep a parameter sits, and what `train_last`, `body_learning_rate` and `layer_decay` make of it."""

import copy
import re
from collections import OrderedDict

import pytest
import torch
import transformers
from torch import nn
from transformers import (
    Adafactor,
    PreTrainedConfig,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.modeling_outputs import ImageClassifierOutput

from hf_smoothing import RobustTrainer, denoised_classifier, smoothed_ensemble
from hf_smoothing.models import CnnSevenConfig, CnnSevenForImageClassification
from hf_smoothing.training.layerwise import last_blocks, learning_rates, parameter_depths
from tests.support.deep import BLOCKS, RESNET, deep
from tests.support.tiny import (
    KINDS,
    MEAN,
    SIZE,
    STD,
    any_model,
    arguments,
    assert_same_tensors,
    data,
    label_maps,
    plain,
    tensors,
    trainer,
    trainer_values,
)
from tests.support.tiny import smoothed as tiny_smoothed


VIT = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, "image_size": SIZE,
    "patch_size": 4,
}  # fmt: skip
CONVNEXT = {"hidden_sizes": [8, 8, 16], "depths": [1, 2, 1], "num_stages": 3}
SWIN = {
    "image_size": SIZE, "patch_size": 2, "embed_dim": 8, "depths": [1, 2, 1], "num_heads": [1, 2, 2], "window_size": 2
}  # fmt: skip
NETWORKS = {
    "ViT": (VIT, r"vit\.layers\.(\d+)\."),
    "ResNet": (RESNET, r"resnet\.encoder\.stages\.(\d+)\."),
    "ConvNext": (CONVNEXT, r"convnext\.encoder\.stages\.(\d+)\."),
    "Swin": (SWIN, r"swin\.encoder\.(?:layers|stages)\.(\d+)\."),
    "DeiT": (VIT, r"deit\.(?:encoder\.)?layers?\.(\d+)\."),
    "Dinov2": (VIT, r"dinov2\.(?:encoder\.)?layers?\.(\d+)\."),
}
"""By name, a configuration of three blocks and where their numbers are in the names of parameters."""


def network(name):
    if name in ("ViT", "ResNet"):
        return plain(name.lower(), **NETWORKS[name][0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(**NETWORKS[name][0], **label_maps())
        return getattr(transformers, f"{name}ForImageClassification")(config).eval()


def block_of(model, parameter):
    """The number of the block that a parameter's name holds, or None."""
    found = [re.search(pattern, parameter) for _, pattern in NETWORKS.values()]
    numbers = {int(match[1]) for match in found if match}
    return numbers.pop() if numbers else None


def forward_order(model, image):
    """Names of the parameters in the order in which the modules that own them run."""
    order, hooks = [], []
    for where, module in model.named_modules():
        own = [f"{where}.{name}" if where else name for name, _ in module.named_parameters(recurse=False)]
        if own:
            hooks.append(module.register_forward_pre_hook(lambda _m, _a, own=own: order.extend(own)))
    model(pixel_values=image)
    for hook in hooks:
        hook.remove()
    return order


@pytest.mark.parametrize("name", NETWORKS)
def test_depths_follow_the_forward_pass(name):
    model = network(name)
    depths = parameter_depths(model)
    assert depths.of.keys() == {parameter for parameter, _ in model.named_parameters()}
    assert depths.blocks == BLOCKS
    assert set(depths.of.values()) == set(range(BLOCKS + 2))  # no block is empty
    order = [depths.of[parameter] for parameter in forward_order(model, torch.zeros(1, 3, SIZE, SIZE))]
    assert len(order) >= len(depths.of) - 1  # Dinov2 owns a mask token that it does not use
    assert order == sorted(order)


@pytest.mark.parametrize("name", NETWORKS)
def test_depths_are_those_that_the_names_say(name):
    model = network(name)
    depths = parameter_depths(model)
    for parameter, depth in depths.of.items():
        number = block_of(model, parameter)
        if number is not None:
            assert depth == number + 1, parameter
        else:
            assert depth == (0 if "embed" in parameter else BLOCKS + 1), parameter


@pytest.mark.parametrize("name", NETWORKS)
def test_the_head_is_the_classifier(name):
    model = network(name)
    assert parameter_depths(model).head == {
        parameter for parameter, _ in model.named_parameters() if parameter.startswith("classifier.")
    }


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_a_wrapper_changes_no_depth(kind):
    bare, wrapped = parameter_depths(deep(kind)), parameter_depths(deep(f"smoothed-{kind}"))
    assert wrapped.of == {f"base_network.{name}": depth for name, depth in bare.of.items()}
    assert wrapped.head == {f"base_network.{name}" for name in bare.head}
    assert wrapped.blocks == bare.blocks == BLOCKS


@pytest.mark.parametrize("count", range(BLOCKS + 1))
@pytest.mark.parametrize("name", NETWORKS)
def test_the_last_blocks_come_with_what_follows_them(name, count):
    model = network(name)
    chosen = set(last_blocks(model, count))
    for parameter, _ in model.named_parameters():
        number = block_of(model, parameter)
        if parameter.startswith("classifier."):
            expected = True
        elif number is not None:
            expected = number >= BLOCKS - count
        else:
            expected = count > 0 and "embed" not in parameter
        assert (parameter in chosen) == expected, parameter


@pytest.mark.parametrize("count", [-1, BLOCKS + 1, 100])
def test_more_blocks_than_there_are_is_refused(count, tmp_path):
    message = f"`train_last` must be a number of blocks from 0 .a linear probe. to 3, got {count}"
    with pytest.raises(ValueError, match=message):
        last_blocks(deep("vit"), count)
    with pytest.raises(ValueError, match=message):
        trainer(deep("smoothed-resnet"), tmp_path, train_last=count)


class Headless(nn.Module):
    """A backbone that is no list of blocks, or no backbone at all."""

    def __init__(self, backbone):
        super().__init__()
        self.base_model_prefix = "body"
        if backbone:
            self.body = nn.Linear(2, 2)
        self.classifier = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(2, 2), "Linear has no backbone apart from its head"),
        (Headless(backbone=False), "Headless has no backbone apart from its head"),
        (Headless(backbone=True), "The backbone of Headless has no list of blocks"),
        (denoised_classifier(tiny_smoothed(), sigma=0.25), "DenoisedClassifier.* made of several networks"),
        (smoothed_ensemble([tiny_smoothed(), tiny_smoothed()], sigma=0.25), "Ensemble.* made of several networks"),
    ],
)
def test_a_model_without_blocks_teaches_what_to_do(model, message):
    for ask in (parameter_depths, lambda m: last_blocks(m, 1), lambda m: learning_rates(m, 0.1)):
        with pytest.raises(ValueError, match=f"{message}.*`trainable`"):
            ask(model)


@pytest.mark.parametrize(("body", "decay"), [(None, 1.0), (0.01, 1.0), (None, 0.5), (0.01, 0.5)])
@pytest.mark.parametrize("name", NETWORKS)
def test_learning_rates(name, body, decay):
    model = network(name)
    rates = learning_rates(model, 0.1, body, decay)
    last = 0.1 if body is None else body
    for parameter, _ in model.named_parameters():
        number = block_of(model, parameter)
        if parameter.startswith("classifier."):
            expected = 0.1
        elif number is not None:
            expected = last * decay ** (BLOCKS - number)  # the last block decays once
        else:
            expected = last * decay ** (BLOCKS + 1) if "embed" in parameter else last
        assert rates.pop(parameter) == pytest.approx(expected, rel=1e-12), parameter
    assert rates == {}


@pytest.mark.parametrize("decay", [0.0, -0.5, 1.1, float("nan")])
def test_a_decay_outside_its_range_is_refused(decay, tmp_path):
    with pytest.raises(ValueError, match=r"`layer_decay` must be in \(0, 1\]"):
        arguments(tmp_path, layer_decay=decay)


@pytest.mark.parametrize("rate", [-0.1, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(rate, tmp_path):
    """As torch refuses a negative learning_rate: a negative rate climbs."""
    with pytest.raises(ValueError, match="(?i)`body_learning_rate`|invalid learning rate"):
        trainer(deep("vit"), tmp_path, body_learning_rate=rate).create_optimizer()


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_only_the_last_blocks_change(kind, count, tmp_path):
    model = deep(kind)
    before = tensors(model)
    trainer(model, tmp_path, train_last=count, freeze_batch_norm=True, noise="0.25").train()
    changed = {name for name, value in tensors(model).items() if not torch.equal(value, before[name])}
    # What a key's bias adds to every score of a query, the softmax takes away: its gradient is rounding alone.
    expected = {name for name in last_blocks(model, count) if "k_proj.bias" not in name and "key.bias" not in name}
    assert expected <= changed <= set(last_blocks(model, count))


def rates_and_decays(loop):
    """By parameter name: learning rate and weight decay, each parameter exactly once."""
    names = {parameter: name for name, parameter in loop.model.named_parameters()}
    found = [
        (names[parameter], group["lr"], group["weight_decay"])
        for group in loop.optimizer.param_groups
        for parameter in group["params"]
    ]
    assert len(found) == len({name for name, _, _ in found})
    return {name: rate for name, rate, _ in found}, {name: decay for name, _, decay in found}


RATES = [{"layer_decay": 0.5}, {"body_learning_rate": 0.001}, {"layer_decay": 0.75, "body_learning_rate": 0.002}]


@pytest.mark.parametrize("settings", RATES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_optimizer_has_these_rates_and_the_decays_of_the_stock_trainer(kind, settings, tmp_path):
    loop = trainer(deep(kind), tmp_path, weight_decay=0.1, adam_beta2=0.9, **settings)
    loop.create_optimizer()
    stock = Trainer(deep(kind), TrainingArguments(**trainer_values(tmp_path), weight_decay=0.1), train_dataset=data())
    stock.create_optimizer()
    rates, decays = rates_and_decays(loop)
    expected = learning_rates(loop.model, 0.01, settings.get("body_learning_rate"), settings.get("layer_decay", 1.0))
    assert rates == pytest.approx(expected)
    assert decays == rates_and_decays(stock)[1]
    assert set(decays.values()) == {0.0, 0.1}
    assert all(group["betas"] == (0.9, 0.9) and group["params"] for group in loop.optimizer.param_groups)


def test_without_them_the_groups_are_those_of_the_stock_trainer(tmp_path):
    loop = trainer(plain(), tmp_path, weight_decay=0.1)  # a ViT of one block, which has no list, would do as well
    loop.create_optimizer()
    assert [group["lr"] for group in loop.optimizer.param_groups] == [0.01, 0.01]


def test_frozen_parameters_are_in_no_group(tmp_path):
    loop = trainer(deep("vit"), tmp_path, train_last=1, layer_decay=0.5)
    loop.create_optimizer()
    rates, _ = rates_and_decays(loop)
    assert rates.keys() == set(last_blocks(loop.model, 1))
    assert set(rates.values()) == {0.01, 0.005}


def test_an_optimizer_of_ones_own_is_left_alone(tmp_path):
    loop = trainer(deep("vit"), tmp_path, layer_decay=0.5)
    loop.optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.3)
    loop.create_optimizer()
    assert [group["lr"] for group in loop.optimizer.param_groups] == [0.3]


@pytest.mark.parametrize("settings", [*RATES, {"protocol": "light"}])
@pytest.mark.parametrize(
    ("kind", "given"), [("SGD", {"lr": 0.5, "momentum": 0.9}), ("AdamW", {"lr": 0.003}), ("SGD", {})]
)
def test_an_optimizer_class_of_ones_own_keeps_its_learning_rate_for_the_head(kind, given, settings, tmp_path):
    model, optimizer = deep("vit"), getattr(torch.optim, kind)
    args = arguments(tmp_path, **settings, image_mean=MEAN, image_std=STD)
    loop = RobustTrainer(model, args, train_dataset=data(), optimizer_cls_and_kwargs=(optimizer, dict(given)))
    made = loop.create_optimizer()
    rate = given.get("lr", made.defaults["lr"])
    expected = learning_rates(model, rate, args.finetuning().body_learning_rate, args.layer_decay)
    assert isinstance(made, optimizer) and rates_and_decays(loop)[0] == pytest.approx(expected)
    assert all(group.get("momentum", 0) == given.get("momentum", 0) for group in made.param_groups)


def test_an_optimizer_without_a_learning_rate_is_refused(tmp_path):
    args = arguments(tmp_path, layer_decay=0.5, image_mean=MEAN, image_std=STD)
    given = (Adafactor, {"lr": None, "relative_step": True})
    loop = RobustTrainer(deep("vit"), args, train_dataset=data(), optimizer_cls_and_kwargs=given)
    with pytest.raises(ValueError, match="need an optimizer with a learning rate, got one without. Give it one"):
        loop.create_optimizer()


class Rates(TrainerCallback):
    """The learning rates with which each step was made."""

    def __init__(self):
        self.seen = []

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
        self.seen.append([group["lr"] for group in optimizer.param_groups])


def test_the_scheduler_scales_them_all(tmp_path):
    record = Rates()
    loop = trainer(
        deep("vit"), tmp_path, layer_decay=0.5, body_learning_rate=0.002, max_steps=4, lr_scheduler_type="linear",
        callbacks=[record],
    )  # fmt: skip
    loop.train()
    full = record.seen[0]
    assert sorted(set(full)) == pytest.approx(sorted({0.01, *(0.002 * 0.5**k for k in range(BLOCKS + 2))}))
    for step, rates in enumerate(record.seen):
        assert rates == pytest.approx([rate * (1 - step / 4) for rate in full])


@pytest.mark.parametrize("kind", ["resnet", "smoothed-vit"])
def test_each_parameter_moves_by_its_own_rate(kind, tmp_path):
    step = {
        "max_steps": 1, "optim": "sgd", "max_grad_norm": 0.0, "lr_scheduler_type": "constant", "freeze_batch_norm": True
    }  # fmt: skip
    moved = []
    for settings in ({"learning_rate": 1.0}, {"learning_rate": 0.5, "layer_decay": 0.5, "body_learning_rate": 0.25}):
        model = deep(kind)
        before = tensors(model)
        trainer(model, tmp_path, **step, **settings).train()
        moved.append({name: p.detach() - before[name] for name, p in model.named_parameters()})
    gradients, layered = moved
    for name, rate in learning_rates(deep(kind), 0.5, 0.25, 0.5).items():
        torch.testing.assert_close(layered[name], rate * gradients[name], rtol=1e-3, atol=1e-6)
    assert max(float(value.abs().max()) for value in layered.values()) > 1e-3


@pytest.mark.parametrize("kind", ["resnet", "smoothed-vit"])
def test_a_resumed_run_is_bit_exact(kind, tmp_path):
    results = []
    for folder, seed, resume in (("whole", 0, None), ("part", 1, str(tmp_path / "whole" / "checkpoint-2"))):
        model = deep(kind, seed)
        loop = trainer(
            model, tmp_path / folder, layer_decay=0.5, body_learning_rate=0.005, weight_decay=0.1, noise="0.25", max_steps=4,
            save_strategy="steps", save_steps=2,
        )  # fmt: skip
        loop.train(resume_from_checkpoint=resume)
        results.append(tensors(model))
        rates_and_decays(loop)  # each parameter once, still
    assert_same_tensors(*results)


def test_a_network_of_one_block_has_last_blocks_too():
    depths = parameter_depths(any_model("vit"))
    assert depths.blocks == 1
    assert {name for name, depth in depths.of.items() if depth == 1} == {n for n in depths.of if ".layers.0." in n}


class OwnConfig(PreTrainedConfig):
    model_type = "own_lists"


class Own(PreTrainedModel):
    config_class = OwnConfig
    base_model_prefix = "body"

    def __init__(self, config, body):
        super().__init__(config)
        self.body, self.head = body, nn.Linear(8, config.num_labels)
        self.post_init()

    def forward(self, pixel_values=None, labels=None, **kwargs):
        return ImageClassifierOutput(logits=self.head(self.body(pixel_values).mean((2, 3))))


def conv(inside=8):
    return nn.Conv2d(inside, 8, 3, padding=1)


BODIES = {
    "named": ({"conv1": conv(3), "relu1": nn.ReLU(), "conv2": conv(), "relu2": nn.ReLU()}, [1, 2]),
    "norms": ({"a": conv(3), "n": nn.GroupNorm(2, 8), "r": nn.ReLU(), "b": conv(), "m": nn.BatchNorm2d(8)}, [1, 1, 2, 2]),
    "first": ({"0": nn.Identity(), "1": nn.BatchNorm2d(3), "2": conv(3), "3": nn.ReLU(), "4": conv()}, [1, 1, 2]),
    "gaps": ({"3": conv(3), "7": conv()}, [1, 2]),
}  # fmt: skip


@pytest.mark.parametrize(("parts", "expected"), BODIES.values(), ids=BODIES)
def test_layers_between_belong_to_the_block_before_them(parts, expected, tmp_path):
    model = Own(OwnConfig(num_labels=3), copy.deepcopy(nn.Sequential(OrderedDict(parts))))
    depths = parameter_depths(model)
    assert depths.blocks == max(expected)
    assert [depths.of[name] for name in depths.of if name.endswith("weight") and "head" not in name] == expected
    for settings in ({"train_last": 1}, {"layer_decay": 0.7}, {"protocol": "last-stage"}, {"protocol": "light"}):
        trainer(model, tmp_path, learning_rate=0.1, **settings, max_steps=1).train()
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == set()


def test_learning_rates_decay_once_per_block_of_cnn_seven():
    model = CnnSevenForImageClassification(CnnSevenConfig(width=4, image_size=16, num_labels=3))
    rates = learning_rates(model, 1.0, decay=0.5)
    assert rates["body.16.weight"] == rates["body.17.weight"] == 0.5
    assert rates["body.0.weight"] == 0.5**6
