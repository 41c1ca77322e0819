"""A resumed run is bit-exact, noise included."""

import functools
import random

import numpy as np
import pytest
import torch
from torch import nn
from transformers import TrainerCallback, ViTForImageClassification

from hf_smoothing.data import DecodedPixels
from hf_smoothing.models.restoring import load_as
from hf_smoothing.noise import process_generator
from tests.support.tiny import (
    KINDS,
    SIZE,
    any_model,
    assert_same_tensors,
    data,
    plain,
    smoothed,
    tensors,
    trained,
    trainer,
    vit_config,
)


ALL = {"noise": "[0.25, 0.5]", "crop_padding": 2, "horizontal_flip": True}
STEPS = {"max_steps": 8, "save_strategy": "steps", "save_steps": 4, "lr_scheduler_type": "linear"}

train = functools.partial(trained, train_dataset=data(12), **ALL, **STEPS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_is_bit_exact(kind, tmp_path):
    whole = train(kind, tmp_path / "whole")
    # The new model has other weights, so that a tensor that is not restored cannot agree by chance.
    resumed = train(kind, tmp_path / "part", seed=1, resume=str(tmp_path / "whole" / "checkpoint-4"))
    assert_same_tensors(whole, resumed)


@pytest.mark.parametrize("decay", [None, 0.9])
@pytest.mark.parametrize("kind", ["resnet", "smoothed-vit"])
def test_a_complete_run_that_is_resumed_trains_nothing_more(kind, decay, tmp_path):
    """In the middle of an epoch of 4 steps as well, and beyond a smaller number of steps."""
    few = {
        "train_dataset": data(16),
        "max_steps": 6,
        "save_steps": 2,
        "save_strategy": "steps",
        "ema_decay": decay,
        **ALL,
    }
    whole = trained(kind, tmp_path / "whole", **few)
    again = trained(kind, tmp_path / "part", seed=1, resume=str(tmp_path / "whole" / "checkpoint-6"), **few)
    assert_same_tensors(whole, again)
    less = trainer(any_model(kind, 1), tmp_path / "less", **(few | {"max_steps": 5}))
    less.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-6"))
    assert less.state.global_step == 6
    assert_same_tensors(whole, tensors(less.model))


def test_other_noise_or_another_seed_gives_other_weights(tmp_path):
    # Otherwise the test above would say little.
    whole = train("vit", tmp_path / "a")
    for number, change in enumerate([{"noise": "0.25"}, {"seed": 5}, {"crop_padding": 1}, {"horizontal_flip": False}]):
        model = any_model("vit")
        trainer(model, tmp_path / str(number), **(ALL | STEPS | change), train_dataset=data(12)).train()
        assert not torch.equal(tensors(model)["classifier.weight"], whole["classifier.weight"])


def test_a_run_can_be_repeated(tmp_path):
    assert_same_tensors(train("vit", tmp_path / "a"), train("vit", tmp_path / "b"))


def test_a_resumed_run_with_accumulation_is_bit_exact(tmp_path):
    accumulate = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}
    whole = train("resnet", tmp_path / "whole", **accumulate)
    resumed = train("resnet", tmp_path / "part", seed=1, resume=str(tmp_path / "whole" / "checkpoint-4"), **accumulate)
    assert_same_tensors(whole, resumed)


def test_a_resumed_run_with_workers_is_bit_exact(tmp_path):
    workers = {"dataloader_num_workers": 1, "max_steps": 4, "save_steps": 2}
    results = []
    for folder, seed, resume in (("whole", 0, None), ("part", 1, str(tmp_path / "whole" / "checkpoint-2"))):
        model = any_model("vit", seed)
        loop = trainer(model, tmp_path / folder, **(ALL | STEPS | workers), train_dataset=data(12))
        loop.train(resume_from_checkpoint=resume)
        results.append(tensors(model))
    assert_same_tensors(*results)


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_checkpoint_is_restored_whole(kind, tmp_path):
    model = any_model(kind)
    snapshots = {}

    def score(_):
        step = loop.state.global_step
        snapshots[step] = tensors(model)
        return {"score": {2: 0.2, 4: 0.9, 6: 0.1}[step]}

    loop = trainer(
        model, tmp_path, max_steps=6, save_strategy="steps", save_steps=2, eval_strategy="steps", eval_steps=2,
        load_best_model_at_end=True, metric_for_best_model="score", compute_metrics=score, eval_dataset=data(4),
        noise="0.5",
    )  # fmt: skip
    loop.train()
    assert loop.state.best_model_checkpoint.endswith("checkpoint-4")
    assert_same_tensors(tensors(model), snapshots[4])
    different = [name for name in snapshots[4] if not torch.equal(snapshots[4][name], snapshots[6][name])]
    assert len(different) > len(snapshots[4]) / 2  # else restoring nothing would pass


def test_a_resumed_run_does_not_repeat_the_noise_that_the_model_drew(tmp_path):
    def noise(folder, resume=None):
        model = smoothed("vit", noise=0.5)
        seen = []
        model.base_network.register_forward_pre_hook(
            lambda _m, _a, kwargs: seen.append(kwargs["pixel_values"].detach().clone()), with_kwargs=True
        )
        grey = DecodedPixels(torch.full((4, 3, SIZE, SIZE), 128, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
        loop = trainer(
            model, folder, noise_owner="model", train_dataset=grey, max_steps=4, save_strategy="steps", save_steps=2
        )
        loop.train(resume_from_checkpoint=resume)
        return seen

    whole = noise(tmp_path / "whole")
    resumed = noise(tmp_path / "part", str(tmp_path / "whole" / "checkpoint-2"))
    assert (len(whole), len(resumed)) == (4, 2)
    before = torch.cat(whole[:2]).flatten(1)
    assert float(torch.cdist(torch.cat(resumed).flatten(1), before).min()) > 5.0


class Drawing(torch.utils.data.Dataset):
    """Items that hold random numbers: of a processor's generator, and of each global one, as transforms use them."""

    def __len__(self):
        return 16

    def __getitem__(self, index):
        drawn = [
            float(torch.rand((), generator=process_generator("cpu"))),
            float(torch.rand(())),
            np.random.rand(),
            random.random(),
        ]
        pixels = torch.zeros(3, SIZE, SIZE)
        pixels[0, 0, :5] = torch.tensor([*drawn, index])
        return {"pixel_values": pixels, "labels": index % 3}


@pytest.mark.parametrize("more", [{}, {"ignore_data_skip": True}, {"gradient_accumulation_steps": 2}])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("step", [2, 4, 6])  # in the middle of an epoch, at its end, in the middle of the second
def test_a_resumed_run_does_not_repeat_what_items_drew(step, workers, more, tmp_path):
    def go(folder, resume=None):
        model, seen = plain("resnet"), []
        model.register_forward_pre_hook(
            lambda _m, _a, kwargs: seen.append(kwargs["pixel_values"][:, 0, 0, :5].clone()), with_kwargs=True
        )
        loop = trainer(
            model, tmp_path / folder, noise_owner="processor", train_dataset=Drawing(), max_steps=8, save_strategy="steps", save_steps=2,
            per_device_train_batch_size=4 // more.get("gradient_accumulation_steps", 1), dataloader_num_workers=workers, **more,
        )  # fmt: skip
        loop.train(resume_from_checkpoint=resume)
        return torch.cat(seen)

    whole, resumed = go("whole"), go("part", str(tmp_path / "whole" / f"checkpoint-{step}"))
    before = whole[: 4 * step]
    assert (len(whole), len(resumed)) == (32, 32 - 4 * step)
    assert "ignore_data_skip" in more or torch.equal(resumed[:, 4], whole[4 * step :, 4]), (
        "the images are those that were left"
    )
    for kind in range(4):
        drawn = torch.cat([before[:, kind], resumed[:, kind]])
        assert len(drawn.unique()) == len(drawn)


def test_frozen_parameters_stay_frozen_after_a_resume(tmp_path):
    kwargs = {"trainable": ["classifier"], "max_steps": 4, "save_steps": 2, "save_strategy": "steps"}
    trainer(any_model("vit"), tmp_path, **kwargs).train()
    model = any_model("vit", seed=1)
    loop = trainer(model, tmp_path / "b", **kwargs)
    loop.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        "classifier.weight",
        "classifier.bias",
    }
    assert torch.equal(
        tensors(model)["vit.embeddings.cls_token"], tensors(any_model("vit"))["vit.embeddings.cls_token"]
    )


class WiderForImageClassification(ViTForImageClassification):
    """Made of more than a configuration."""

    def __init__(self, config, width):
        super().__init__(config)
        self.classifier = nn.Sequential(nn.Linear(config.hidden_size, width), nn.GELU(), nn.Linear(width, 3))
        self.post_init()


def with_head(model, head):
    model.classifier = head
    return model


UNUSUAL = {
    "a head of two layers": lambda: with_head(plain("vit"), nn.Sequential(nn.Dropout(0.1), nn.Linear(16, 3))),
    "a head of a resnet": lambda: with_head(plain(), nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Linear(5, 3))),
    "a class of two arguments": lambda: WiderForImageClassification(vit_config(), 5),
    "a parametrised head": lambda: with_head(plain("vit"), nn.utils.parametrizations.weight_norm(nn.Linear(16, 3))),
    "a head of spectral norm": lambda: with_head(
        plain("vit"), nn.utils.parametrizations.spectral_norm(nn.Linear(16, 3))
    ),
}


@pytest.mark.parametrize("more", [{}, {"ema_decay": 0.9}])
@pytest.mark.parametrize("name", UNUSUAL)
def test_a_network_with_parts_that_its_configuration_does_not_know_is_restored(name, more, tmp_path):
    def go(folder, seed, resume=None):
        torch.manual_seed(seed)
        model = UNUSUAL[name]()
        loop = trainer(
            model, tmp_path / folder, noise="0.25", max_steps=4, save_strategy="steps", save_steps=2, eval_strategy="steps", eval_steps=2,
            load_best_model_at_end=True, eval_dataset=data(4), metric_for_best_model="score", callbacks=[Kept(kept)],
            compute_metrics=lambda _: {"score": float(loop.state.global_step == best)}, **more,
        )  # fmt: skip
        loop.train(resume_from_checkpoint=resume)
        return tensors(model)

    best, kept = 4, {}
    whole = go("whole", 0)
    assert_same_tensors(whole, go("part", 1, str(tmp_path / "whole" / "checkpoint-2")))
    best, kept = 2, {}
    found = go("best", 0)
    if not more:
        assert_same_tensors(found, kept[2])
    assert [key for key in found if not torch.equal(found[key], whole[key])]


class Kept(TrainerCallback):
    """The weights at each step."""

    def __init__(self, kept):
        self.kept = kept

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.kept[state.global_step] = tensors(model)


def test_weights_of_several_dtypes_are_restored_as_they_are(tmp_path):
    model = plain("resnet")
    model.resnet.embedder.to(torch.bfloat16)  # the first parameters, after which a network is said to be bfloat16
    model.save_pretrained(tmp_path)
    before = tensors(model)
    for name, value in load_as(model, str(tmp_path)).state_dict().items():
        assert torch.equal(value.to(before[name].dtype), before[name]), name
    assert_same_tensors(tensors(model), before)
    assert not any(value.is_meta for value in model.state_dict().values())


@pytest.mark.parametrize("name", UNUSUAL)
def test_every_tensor_is_as_it_was_saved_and_every_module_keeps_its_mode(name, tmp_path):
    model = UNUSUAL[name]().train()
    model.base_model.eval()
    saved = tensors(model)
    model.save_pretrained(tmp_path)
    modes = [module.training for module in model.modules()]
    assert_same_tensors(dict(load_as(model, str(tmp_path)).state_dict()), saved)
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize("change", ["other classes", "one tensor less", "one tensor more", "another shape inside"])
def test_what_does_not_fit_the_network_is_refused(change, tmp_path):
    model = UNUSUAL["a head of two layers"]()
    if change == "other classes":
        model.classifier[1] = nn.Linear(16, 4)
    if change == "one tensor less":
        model.classifier[1] = nn.Linear(16, 3, bias=False)
    if change == "one tensor more":
        model.classifier.append(nn.Linear(3, 3))
    if change == "another shape inside":
        model.vit.layernorm = nn.LayerNorm(8)
    model.save_pretrained(tmp_path)
    message = (
        "The weights of .* are not those of ViTForImageClassification.*the same class, classes and parts, replaced"
    )
    with pytest.raises(ValueError, match=message):
        load_as(UNUSUAL["a head of two layers"](), str(tmp_path))


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    trainer(any_model("vit"), tmp_path, **STEPS).train()
    with pytest.raises(Exception, match="(?i)size mismatch|unexpected|missing"):
        trainer(any_model("resnet"), tmp_path / "b", **STEPS).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-4")
        )
