"""The exponential moving average of the weights: what it is, and where it is used."""

import functools
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import TrainerCallback

from hf_smoothing.training import training_weights
from hf_smoothing.training.averaging import WeightAverage
from tests.support.tiny import (
    KINDS,
    MEAN,
    STD,
    any_model,
    arguments,
    assert_same_tensors,
    data,
    plain,
    tensors,
    trained,
    trainer,
)


EVERY_TWO = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "noise": "[0.25, 0.5]"}


def net(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(5, 2))


def randomise(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.randn(value.shape, generator=generator))
            else:
                value.fill_(seed)


def slow_average(snapshots, decay):
    """The recurrence in float64, tensor by tensor; the decay is at most (1 + step) / (10 + step). Counters are those of today."""
    first, *later = snapshots
    averages = {name: value.double().numpy() for name, value in first.items()}
    for step, snapshot in enumerate(later, start=1):
        share = min(decay, (1 + step) / (10 + step))
        for name, value in snapshot.items():
            if "num_batches" in name:
                averages[name] = value.double().numpy()
            else:
                averages[name] = share * averages[name] + (1 - share) * value.double().numpy()
    return averages


def assert_average(found, snapshots, decay):
    expected = slow_average(snapshots, decay)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        np.testing.assert_allclose(value.numpy(), expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


class Weights(TrainerCallback):
    """The weights before training and after each of its steps, and those with which each step starts."""

    def __init__(self):
        self.after, self.before = [], []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.after.append(tensors(model))

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self.before.append(tensors(model))

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.after.append(tensors(model))


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 0.999])
def test_it_equals_its_slow_twin(decay):
    model = net()
    average, snapshots = WeightAverage(model, decay), [tensors(model)]
    for step in range(1, 16):
        randomise(model, step)
        snapshots.append(tensors(model))
        average.update(model, step)
        assert_average(average.values, snapshots, decay)
        assert_same_tensors(tensors(model), snapshots[-1])  # looking changes nothing
    average.copy_to(model)
    assert_same_tensors(tensors(model), average.values)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_an_average_moves_by_less_than_the_weights_can_say(dtype):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(dtype)
    average, snapshots = WeightAverage(model, 0.999), [tensors(model)]
    for step in range(1, 400):
        with torch.no_grad():
            model[0].weight.add_(2.0**-6)
            model[1].running_mean.add_(2.0**-6)
        snapshots.append(tensors(model))
        average.update(model, step)
    assert_average(average.values, snapshots, 0.999)
    average.copy_to(model)
    assert_same_tensors(
        tensors(model),
        {name: value.to(dtype) if "num" not in name else value for name, value in average.values.items()},
    )


def test_the_warm_up_matters_and_ends():
    snapshots = [{"weight": torch.zeros(1)}, *[{"weight": torch.ones(1)}] * 100]
    slow = slow_average(snapshots, 0.999)["weight"].item()
    assert slow > 0.99 > 1 - 0.999**100 + 0.5  # 0.095 without a warm-up
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage(model, 0.5)
    nn.init.ones_(model.weight)
    average.update(model, step=1000)
    assert float(average.values["weight"]) == 0.5


def test_the_average_shares_no_memory_with_the_model():
    model = net()
    average, before = WeightAverage(model, 0.9), tensors(model)
    randomise(model, 1)
    assert_same_tensors(average.values, before)
    average.copy_to(model)
    randomise(model, 2)
    assert_same_tensors(average.values, before)


def test_applied_for_a_while():
    model = net()
    average, averaged = WeightAverage(model, 0.9), tensors(model)
    randomise(model, 1)
    own = tensors(model)
    with average.applied(model) as yielded:
        assert_same_tensors(tensors(model), averaged)
        assert_same_tensors(yielded, own)
    assert_same_tensors(tensors(model), own)


def test_applied_restores_after_an_exception():
    model = net()
    average = WeightAverage(model, 0.9)
    randomise(model, 1)
    own = tensors(model)
    with pytest.raises(KeyError, match="in between"), average.applied(model):
        raise KeyError("in between")
    assert_same_tensors(tensors(model), own)


def test_gradients_and_frozen_parameters_survive():
    model = net()
    model[0].weight.requires_grad_(False)
    average = WeightAverage(model, 0.9)
    model[2](torch.ones(1, 5)).sum().backward()
    gradient = model[2].weight.grad.clone()
    with average.applied(model):
        pass
    assert torch.equal(model[2].weight.grad, gradient)
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True, True, True]
    assert not any(value.requires_grad for value in average.values.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_ends_with_the_averaged_weights(kind, tmp_path):
    model, record = any_model(kind), Weights()
    trainer(model, tmp_path, ema_decay=0.6, max_steps=8, noise="0.25", callbacks=[record]).train()
    assert len(record.after) == 9
    assert_average(tensors(model), record.after, 0.6)
    different = [name for name, value in tensors(model).items() if not torch.equal(value, record.after[-1][name])]
    if "resnet" in kind:
        assert any("running_var" in name for name in different)
    assert len(different) > len(record.after[0]) / 2


@pytest.mark.parametrize("kind", ["resnet", "smoothed-vit"])
def test_training_itself_is_as_without_it(kind, tmp_path):
    runs = []
    for settings in ({}, {"ema_decay": 0.9, "eval_strategy": "steps", "eval_steps": 1, "eval_dataset": data(4)}):
        record = Weights()
        trainer(any_model(kind), tmp_path, **EVERY_TWO, **settings, callbacks=[record]).train()
        runs.append(record)
    for first, second in zip(runs[0].after, runs[1].after, strict=True):
        assert_same_tensors(first, second)
    for after, before in zip(runs[1].after[:-1], runs[1].before, strict=True):
        assert_same_tensors(after, before)  # evaluating and saving gave the weights back


def test_gradient_accumulation_averages_steps_and_not_micro_steps(tmp_path):
    model, record = plain(), Weights()
    trainer(
        model, tmp_path, ema_decay=0.5, max_steps=3, gradient_accumulation_steps=2, per_device_train_batch_size=2,
        callbacks=[record],
    ).train()  # fmt: skip
    assert len(record.after) == 4
    assert_average(tensors(model), record.after, 0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_hold_the_average_and_the_weights_of_training(kind, tmp_path):
    record = Weights()
    trainer(any_model(kind), tmp_path, **EVERY_TWO, ema_decay=0.8, callbacks=[record]).train()
    for step in (2, 4, 6):
        folder = tmp_path / f"checkpoint-{step}"
        saved = type(any_model(kind)).from_pretrained(folder)  # from model.safetensors
        assert_average(tensors(saved), record.after[: step + 1], 0.8)
        assert_same_tensors(load_file(folder / "training_weights.safetensors"), record.after[step])
        assert training_weights.read(folder)[1] == {}  # the model file holds the average as it is


def test_the_saved_model_is_the_final_average_alone(tmp_path):
    model = plain()
    loop = trainer(model, tmp_path, ema_decay=0.8, max_steps=3)
    loop.train()
    loop.save_model()
    assert_same_tensors(tensors(type(model).from_pretrained(tmp_path)), tensors(model))
    assert not (tmp_path / "training_weights.safetensors").exists()


def test_without_it_there_is_no_second_file(tmp_path):
    trainer(plain("vit"), tmp_path, **EVERY_TWO).train()
    assert list(tmp_path.glob("**/model.safetensors"))
    assert not list(tmp_path.glob("**/training_weights.safetensors"))


train = functools.partial(trained, train_dataset=data(12), ema_decay=0.9, **EVERY_TWO)


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_is_bit_exact(kind, tmp_path):
    whole = train(kind, tmp_path / "whole")
    resumed = train(kind, tmp_path / "part", seed=1, resume=str(tmp_path / "whole" / "checkpoint-2"))
    assert_same_tensors(whole, resumed)
    for name in ("model", "training_weights"):
        files = [tmp_path / run / "checkpoint-6" / f"{name}.safetensors" for run in ("whole", "part")]
        assert_same_tensors(*map(load_file, files))


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_of_bfloat16_weights_is_bit_exact(kind, tmp_path):
    """The model file holds the average rounded, so that it alone would not do."""

    def go(folder, seed=0, resume=None):
        model, record = any_model(kind, seed).to(torch.bfloat16), Weights()
        every = EVERY_TWO | {"max_steps": 12, "save_steps": 6}
        loop = trainer(model, tmp_path / folder, **every, ema_decay=0.99, train_dataset=data(12), callbacks=[record])
        loop.train(resume_from_checkpoint=resume)
        return model, record

    (model, record), (resumed, _) = go("whole"), go("part", 1, str(tmp_path / "whole" / "checkpoint-6"))
    assert_same_tensors(tensors(model), tensors(resumed))
    averages = [training_weights.read(tmp_path / run / "checkpoint-12")[1] for run in ("whole", "part")]
    assert_same_tensors(*averages)
    counters = {name: value for name, value in tensors(model).items() if not value.is_floating_point()}
    assert_average(averages[0] | counters, record.after, 0.99)
    assert {value.dtype for value in tensors(model).values()} <= {torch.bfloat16, torch.int64}


def test_a_run_that_is_complete_can_be_resumed(tmp_path):
    whole = train("resnet", tmp_path / "whole")
    again = train("resnet", tmp_path / "part", seed=1, resume=str(tmp_path / "whole" / "checkpoint-6"))
    assert_same_tensors(whole, again)


@pytest.mark.parametrize("kind", ["resnet", "smoothed-resnet"])
def test_evaluation_uses_the_average(kind, tmp_path):
    model, record, seen = any_model(kind), Weights(), []

    def remember(_):
        seen.append(tensors(model))
        return {}

    loop = trainer(
        model, tmp_path, ema_decay=0.7, max_steps=3, eval_strategy="steps", eval_steps=1, eval_dataset=data(4),
        compute_metrics=remember, callbacks=[record],
    )  # fmt: skip
    loop.train()
    assert len(seen) == 3
    for step, weights in enumerate(seen, start=1):
        assert_average(weights, record.after[: step + 1], 0.7)
    assert_same_tensors(seen[-1], tensors(model))
    loop.evaluate()
    assert_same_tensors(seen[-1], seen[-2])  # and after training too


@pytest.mark.parametrize("kind", ["resnet", "smoothed-vit"])
def test_whatever_measures_in_the_middle_of_a_training_uses_the_average(kind, tmp_path):
    class Measured(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            before = tensors(model)
            evaluated, predicted = loop.evaluate(), loop.predict(data(4))
            figures.append((evaluated["eval_loss"], predicted.metrics["test_loss"]))
            assert_same_tensors(tensors(model), before)

    def remember(_):
        seen.append(tensors(model))
        return {}

    model, record, figures, seen = any_model(kind), Weights(), [], []
    loop = trainer(
        model, tmp_path, ema_decay=0.7, max_steps=3, eval_dataset=data(4), compute_metrics=remember, callbacks=[record, Measured()],
    )  # fmt: skip
    loop.train()
    assert len(seen) == 6 and all(first == second for first, second in figures)
    for step in (1, 2, 3):
        for weights in seen[2 * step - 2 : 2 * step]:
            assert_average(weights, record.after[: step + 1], 0.7)


def test_callbacks_of_evaluation_see_the_average(tmp_path):
    """`CertifiedAccuracyCallback` certifies what would be saved."""

    class Seen(TrainerCallback):
        def on_evaluate(self, args, state, control, model=None, **kwargs):
            self.weights = tensors(model)

    seen, record, model = Seen(), Weights(), plain()
    trainer(
        model, tmp_path, ema_decay=0.9, max_steps=2, eval_strategy="steps", eval_steps=2, eval_dataset=data(4),
        callbacks=[seen, record],
    ).train()  # fmt: skip
    assert_average(seen.weights, record.after, 0.9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_average_of_the_best_checkpoint_is_restored(kind, tmp_path):
    model, record = any_model(kind), Weights()
    loop = trainer(
        model, tmp_path, **EVERY_TWO, ema_decay=0.8, eval_strategy="steps", eval_steps=2, load_best_model_at_end=True,
        metric_for_best_model="score", eval_dataset=data(4), callbacks=[record],
        compute_metrics=lambda _: {"score": {2: 0.2, 4: 0.9, 6: 0.1}[loop.state.global_step]},
    )  # fmt: skip
    loop.train()
    assert loop.state.best_model_checkpoint.endswith("checkpoint-4")
    assert_average(tensors(model), record.after[:5], 0.8)
    assert_same_tensors(tensors(model), tensors(type(model).from_pretrained(tmp_path / "checkpoint-4")))


def test_a_second_training_starts_a_new_average(tmp_path):
    model, record = plain(), Weights()
    loop = trainer(model, tmp_path, ema_decay=0.8, callbacks=[record], max_steps=3)
    loop.train()
    first = tensors(model)
    loop.train()
    assert_same_tensors(record.after[4], first)
    assert_average(tensors(model), record.after[4:], 0.8)


def test_a_training_that_broke_off_leaves_no_average_behind(tmp_path):
    class BrokenError(Exception):
        pass

    class Break(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 3:
                raise BrokenError

    model, record, stop = plain(), Weights(), Break()
    loop = trainer(model, tmp_path, ema_decay=0.8, callbacks=[record, stop], max_steps=5)
    with pytest.raises(BrokenError):
        loop.train()
    loop.remove_callback(stop)
    record.after.clear()
    loop.args.max_steps = 1  # few, so that what the average started from still shows
    loop.train()
    assert len(record.after) == 2
    assert_average(tensors(model), record.after, 0.8)


def test_channels_last_weights_are_averaged_and_saved(tmp_path):
    model, record = plain(), Weights()
    trainer(model, tmp_path, **EVERY_TWO, ema_decay=0.8, channels_last=True, callbacks=[record]).train()
    assert_average(tensors(model), record.after, 0.8)
    assert_same_tensors(load_file(tmp_path / "checkpoint-2" / "training_weights.safetensors"), record.after[2])


def test_a_checkpoint_with_an_average_is_not_resumed_without(tmp_path):
    train("vit", tmp_path / "a")
    with pytest.raises(ValueError, match="checkpoint-2 was saved with ema_decay.*Pass the same ema_decay"):
        train("vit", tmp_path / "b", resume=str(tmp_path / "a" / "checkpoint-2"), ema_decay=None)


def test_a_folder_that_is_written_over_keeps_nothing_of_the_run_before(tmp_path):
    """Whatever either run trains with: each checkpoint is resumed as its own run left it."""

    def go(folder, kind="resnet", seed=0, dtype=torch.float32, decay=None, resume=None):
        model = any_model(kind, seed).to(dtype)
        every = EVERY_TWO | {"max_steps": 4}
        trainer(model, folder, **every, ema_decay=decay, train_dataset=data(12)).train(resume_from_checkpoint=resume)
        return tensors(model)

    before = [{"seed": 7, "dtype": torch.bfloat16, "decay": 0.999}, {"seed": 7, "decay": 0.9}]
    for number, (first, decay) in enumerate([(before[0], 0.9), (before[0], None), (before[1], None)]):
        folder = tmp_path / str(number)
        go(folder, **first)
        whole = go(folder, decay=decay)
        resumed = go(tmp_path / "part", seed=1, decay=decay, resume=str(folder / "checkpoint-2"))
        assert_same_tensors(whole, resumed)
        for name in (training_weights.NAME, training_weights.MARK):
            assert (folder / "checkpoint-2" / name).exists() == (decay is not None)


def test_a_model_saved_into_a_checkpoint_takes_its_training_weights_away(tmp_path):
    train("vit", tmp_path)
    trainer(any_model("vit", 1), tmp_path / "other").save_model(tmp_path / "checkpoint-2")
    assert not (tmp_path / "checkpoint-2" / training_weights.NAME).exists()


def test_training_weights_of_another_model_file_are_not_resumed(tmp_path):
    train("vit", tmp_path / "a")
    train("vit", tmp_path / "b", ema_decay=None)
    for step, source in ((2, "a"), (4, "b")):
        stranger = tmp_path / "a" / "checkpoint-6" / training_weights.NAME
        folder = tmp_path / source / f"checkpoint-{step}"
        (folder / training_weights.NAME).write_bytes(stranger.read_bytes())
        for decay in (0.9, None):
            with pytest.raises(ValueError, match=r"was written beside another model file.*or remove training_weights"):
                train("vit", tmp_path / "c", resume=str(folder), ema_decay=decay)
    (folder / training_weights.NAME).unlink()
    resumed = train("vit", tmp_path / "c", seed=1, resume=str(folder), ema_decay=None)
    assert_same_tensors(resumed, train("vit", tmp_path / "d", ema_decay=None))


@pytest.mark.parametrize("shards", [False, True], ids=["whole", "shards"])
def test_copies_beside_the_model_file_count_for_nothing(shards, tmp_path, monkeypatch):
    if shards:
        save = type(any_model("resnet")).save_pretrained
        monkeypatch.setattr(
            type(any_model("resnet")),
            "save_pretrained",
            lambda *args, **more: save(*args, **more, max_shard_size="3KB"),
        )
    whole = train("resnet", tmp_path / "a")
    folder = tmp_path / "a" / "checkpoint-4"
    files = sorted(folder.glob("model*.safetensors"))
    assert (len(files) > 1) is shards
    shutil.copy(files[0], folder / "model_backup.safetensors")
    shutil.copy(files[0], folder / "model-00001-of-00009.safetensors")
    assert_same_tensors(whole, train("resnet", tmp_path / "b", seed=1, resume=str(folder)))
    stranger = sorted((tmp_path / "a" / "checkpoint-2").glob("model*.safetensors"))[-1]
    shutil.copy(stranger, files[-1])
    with pytest.raises(ValueError, match="was written beside another model file"):
        train("resnet", tmp_path / "c", resume=str(folder))


@pytest.mark.parametrize("decay", [0.9, None])
def test_training_weights_that_are_lost_are_missed(decay, tmp_path):
    train("vit", tmp_path / "a")
    folder = tmp_path / "a" / "checkpoint-4"
    (folder / training_weights.NAME).unlink()
    with pytest.warns(
        UserWarning, match=r"its training_weights\.safetensors is missing.*or remove training_weights\.json"
    ):
        train("vit", tmp_path / "b", resume=str(folder), ema_decay=decay)
    (folder / training_weights.MARK).unlink()
    train("vit", tmp_path / "b", resume=str(folder), ema_decay=decay)  # a warning would be an error


def test_an_average_can_start_at_a_checkpoint_without_one(tmp_path):
    train("vit", tmp_path / "a", ema_decay=None)
    weights = train("vit", tmp_path / "b", resume=str(tmp_path / "a" / "checkpoint-4"), ema_decay=0.9)
    plain_weights = train("vit", tmp_path / "c", ema_decay=None)
    assert not torch.equal(weights["classifier.weight"], plain_weights["classifier.weight"])
    raw = load_file(tmp_path / "b" / "checkpoint-6" / "training_weights.safetensors")
    assert_same_tensors(raw, plain_weights)


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
def test_a_decay_outside_its_range_is_refused(decay, tmp_path):
    with pytest.raises(ValueError, match=r"`ema_decay` must be in \[0, 1\), e.g. 0.999, got"):
        arguments(tmp_path, ema_decay=decay, image_mean=MEAN, image_std=STD)


def test_a_decay_of_zero_keeps_the_last_weights(tmp_path):
    assert_same_tensors(
        train("resnet", tmp_path / "a", ema_decay=0.0), train("resnet", tmp_path / "b", ema_decay=None)
    )
