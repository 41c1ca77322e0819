"""Training parts of a network."""

import copy
import pickle

import pytest
import torch

from hf_smoothing import SmoothedClassifier, denoised_classifier
from hf_smoothing.models import add_lora
from hf_smoothing.training.freezing import named_in, train_only
from hf_smoothing.training.protocols import PROTOCOLS
from tests.support.tiny import MEAN, SIZE, STD, any_model, data, pixels, plain, smoothed, tensors, trainer


def freeze_all_but(model, patterns):
    train_only(model, named_in(model, patterns))


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def names(model, *starts):
    return {name for name, _ in model.named_parameters() if name.startswith(starts)}


@pytest.mark.parametrize(
    ("patterns", "starts"),
    [
        (["classifier"], ["classifier"]),
        ("classifier", ["classifier"]),
        (["encoder.stages.1"], ["resnet.encoder.stages.1."]),
        (["stages.1", "classifier"], ["resnet.encoder.stages.1.", "classifier"]),
        (["resnet"], ["resnet"]),
        (["resnet.embedder", "classifier.1.bias"], ["resnet.embedder", "classifier.1.bias"]),
    ],
)
def test_patterns(patterns, starts):
    model = plain()
    freeze_all_but(model, patterns)
    assert trained(model) == names(model, *starts)


def test_patterns_reach_into_a_wrapper():
    model = smoothed()
    freeze_all_but(model, ["classifier"])
    # The head alone: patterns are whole components of a name.
    assert trained(model) == names(model, "base_network.classifier")


@pytest.mark.parametrize("patterns", [5, [5], {"classifier": 1, 2: 3}, b"classifier"])
def test_what_is_no_list_of_names_is_refused(patterns):
    with pytest.raises(TypeError, match="`trainable` must be a list of names of modules"):
        named_in(plain(), patterns)


def test_a_number_is_not_the_start_of_another():
    model = plain("vit", num_hidden_layers=12)
    freeze_all_but(
        model, ["layers.1" if any("layers.1." in name for name, _ in model.named_parameters()) else "layer.1"]
    )
    assert len(trained(model)) > 0
    assert not any(".10." in name or ".11." in name for name in trained(model))


def test_parameters_are_unfrozen_again():
    model = plain()
    freeze_all_but(model, ["classifier"])
    freeze_all_but(model, ["resnet"])
    assert trained(model) == names(model, "resnet")


@pytest.mark.parametrize("pattern", ["head", "lassifier", "stages.9"])
def test_a_pattern_that_matches_nothing_is_refused(pattern):
    with pytest.raises(
        ValueError, match=f"`trainable` names '{pattern}', which no parameter has. There are: .*classifier"
    ):
        freeze_all_but(plain(), [pattern])


def test_an_empty_list_is_refused(tmp_path):
    with pytest.raises(ValueError, match="trainable"):
        trainer(plain(), tmp_path, trainable=[])


@pytest.mark.parametrize("kind", ["resnet", "smoothed-vit"])
def test_only_the_named_part_changes(kind, tmp_path):
    model = any_model(kind)
    before = tensors(model)
    trainer(model, tmp_path, trainable=["classifier"], freeze_batch_norm=True).train()
    after = tensors(model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == trained(model)
    assert all("classifier." in name for name in changed) and len(changed) == 2


def statistics(model):
    return {name: value for name, value in tensors(model).items() if "running" in name or "num_batches" in name}


@pytest.mark.parametrize("kind", ["resnet", "smoothed-resnet"])
def test_frozen_batch_norm_keeps_its_statistics(kind, tmp_path):
    model = any_model(kind)
    before = statistics(model)
    assert before
    loop = trainer(model, tmp_path, freeze_batch_norm=True, eval_strategy="steps", eval_steps=1, eval_dataset=data(4))
    loop.train()
    after = statistics(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    moving = any_model(kind)
    trainer(moving, tmp_path).train()
    assert not any(torch.equal(before[name], value) for name, value in statistics(moving).items())


def test_frozen_batch_norm_still_trains_its_weights(tmp_path):
    model = plain()
    before = tensors(model)
    trainer(model, tmp_path, freeze_batch_norm=True).train()
    name = next(name for name in before if "normalization.weight" in name)
    assert not torch.equal(before[name], model.state_dict()[name])


def test_channels_last_trains_to_the_same_weights(tmp_path):
    weights = []
    for channels_last in (False, True):
        model = plain()
        trainer(model, tmp_path, channels_last=channels_last, noise="0.5", optim="sgd").train()
        weights.append(tensors(model))
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-3, atol=1e-5)


def wrapped(model):
    return SmoothedClassifier.from_base_pretrained(model, sigma=0.25, size=SIZE, image_mean=MEAN, image_std=STD)


@pytest.mark.parametrize("between", [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), wrapped])
@pytest.mark.parametrize("second", [{"protocol": "whole"}, {"protocol": "light", "learning_rate": 0.1}, {}])
@pytest.mark.parametrize("first", [{"protocol": "linear-probe"}, {"trainable": ["classifier"]}, {"train_last": 1}])
def test_the_next_training_trains_what_the_last_one_froze(first, second, between, tmp_path):
    model = plain("vit", num_hidden_layers=2)
    trainer(model, tmp_path, **first)
    assert trained(model) < names(model, "")
    model = between(model)
    trainer(model, tmp_path, **second)
    assert trained(model) == names(model, "")


def test_whole_finetuning_after_a_linear_probe_changes_the_backbone(tmp_path):
    model = plain("vit")
    trainer(model, tmp_path, protocol="linear-probe").train()
    before = tensors(model)
    trainer(model, tmp_path, protocol="whole").train()
    assert all(
        not torch.equal(value, before[name]) for name, value in tensors(model).items() if "key.bias" not in name
    )


def test_a_denoised_classifier_is_trained_whole_after_its_denoiser(tmp_path):
    pixels_of = {"size": SIZE, "image_mean": MEAN, "image_std": STD}
    denoiser = {"kind": "residual", "width": 4, "depth": 3}
    model = denoised_classifier(plain(), sigma=0.25, pixels=pixels_of, denoiser=denoiser)
    trainer(model, tmp_path, objective="denoising", noise="0.25", trainable=["denoiser"])
    trainer(model, tmp_path, noise="0.25")
    assert trained(model) == names(model, "")


@pytest.mark.parametrize("protocol", [None, *PROTOCOLS])
def test_what_the_user_froze_stays_frozen(protocol, tmp_path):
    model = plain("vit", num_hidden_layers=2)
    mine = names(model, "vit.embeddings")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in mine)
    for one in (protocol, "whole", "linear-probe", None):
        trainer(model, tmp_path, protocol=one, learning_rate=0.1)
        assert not trained(model) & mine
    assert trained(model) == names(model, "") - mine


def test_adapters_keep_their_base_frozen(tmp_path):
    pytest.importorskip("peft")
    model = smoothed("vit")
    trainer(model, tmp_path, protocol="linear-probe")
    add_lora(model, rank=2)
    expected = trained(model)
    for protocol in (None, "whole"):
        trainer(model, tmp_path, protocol=protocol)
        assert trained(model) == expected < names(model, "")


REFUSED = [
    {"data_on_device": True, "train_dataset": [{"pixel_values": pixels(1)[0], "labels": 0}]},
    {"compute_loss_func": lambda *_: None},
    {"layer_decay": 0.5, "optimizers": (torch.optim.SGD([torch.zeros(1)]), None)},
    {"eval_strategy": "steps", "eval_steps": 1},
]


@pytest.mark.parametrize("asked", REFUSED, ids=lambda asked: next(iter(asked)))
def test_a_refused_trainer_leaves_the_model_as_it_was(asked, tmp_path):
    model = smoothed("vit")
    model.config.noise_owner = "processor"
    with pytest.raises(ValueError, match="needs|not `compute|optimizer|eval_dataset"):
        trainer(model, tmp_path, train_last=0, **asked)
    assert trained(model) == names(model, "")
    assert model.config.noise_owner == "processor"
