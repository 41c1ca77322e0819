"""Training that diverges stops, and leaves nothing behind but good checkpoints."""

import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from hf_smoothing.training.finite import DivergedError, FiniteWatch
from tests.support.tiny import any_model, data, plain, tensors, trainer


EVERY_TWO = {"max_steps": 8, "save_strategy": "steps", "save_steps": 2}


def cross_entropy(model, batch, state):
    return torch.nn.functional.cross_entropy(model(batch.pixels), batch.labels), {}


class Breaks:
    """Cross-entropy, but from forward pass number `start` on times or plus something that is not finite."""

    def __init__(self, start, value=float("nan"), factor=True):
        self.start, self.value, self.factor, self.calls = start, value, factor, 0

    def __call__(self, model, batch, state):
        loss, logs = cross_entropy(model, batch, state)
        self.calls += 1
        if self.calls < self.start:
            return loss, logs
        return (loss * self.value if self.factor else loss + self.value), logs


class BreaksWeights:
    """A finite loss whose gradient is NaN at forward pass number `start`: the slope of a root at 0 is infinite."""

    def __init__(self, start):
        self.start, self.calls = start, 0

    def __call__(self, model, batch, state):
        logits = model(batch.pixels)
        loss = torch.nn.functional.cross_entropy(logits, batch.labels)
        self.calls += 1
        return (loss + (0.0 * logits.sum()).abs().sqrt() if self.calls == self.start else loss), {}


def all_finite(tensors_by_name):
    return all(bool(torch.isfinite(value).all()) for value in tensors_by_name.values())


def assert_only_good_checkpoints(folder, steps):
    assert {path.name for path in folder.glob("checkpoint-*")} == {f"checkpoint-{step}" for step in steps}
    for step in steps:
        files = list((folder / f"checkpoint-{step}").glob("*.safetensors"))
        assert files and all(all_finite(load_file(file)) for file in files)


@pytest.mark.parametrize("settings", [{}, {"ema_decay": 0.9}, {"logging_strategy": "steps", "logging_steps": 1}])
@pytest.mark.parametrize("kind", ["resnet", "smoothed-vit"])
def test_a_loss_that_is_nan_stops_training(kind, settings, tmp_path):
    model, objective = any_model(kind), Breaks(6)
    loop = trainer(model, tmp_path, **EVERY_TWO, **settings, objective=objective)
    with pytest.raises(
        DivergedError, match="by step 6 the loss was no longer finite.*last checkpoint, all finite, is .*checkpoint-4"
    ):
        loop.train()
    assert objective.calls == 6
    assert_only_good_checkpoints(tmp_path, [2, 4])


@pytest.mark.parametrize("kind", ["resnet", "smoothed-vit"])
def test_the_last_good_checkpoint_can_be_resumed(kind, tmp_path):
    with pytest.raises(DivergedError):
        trainer(any_model(kind), tmp_path, **EVERY_TWO, objective=Breaks(6)).train()
    model = any_model(kind, seed=1)
    loop = trainer(model, tmp_path, **EVERY_TWO, objective=cross_entropy)
    with pytest.warns(UserWarning, match="objective {'name': 'Breaks'} there and {'name': 'cross_entropy'} here"):
        loop.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    whole = any_model(kind)
    trainer(whole, tmp_path / "whole", **EVERY_TWO, objective=cross_entropy).train()
    assert all(torch.equal(value, tensors(whole)[name]) for name, value in tensors(model).items())


@pytest.mark.parametrize("settings", [{}, {"ema_decay": 0.9}])
def test_the_same_trainer_can_go_on_from_the_last_good_checkpoint(settings, tmp_path):
    model = plain("vit")
    loop = trainer(model, tmp_path, **EVERY_TWO, **settings, objective=Breaks(6))
    with pytest.raises(DivergedError):
        loop.train()
    loop.objective = cross_entropy
    loop.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert loop.state.global_step == 8
    assert all_finite(tensors(model))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_whatever_is_not_finite_counts(value, tmp_path):
    loop = trainer(plain("vit"), tmp_path, objective=Breaks(2, value, factor=False), max_steps=4)
    with pytest.raises(DivergedError, match="the loss was no longer finite"):
        loop.train()


def test_one_bad_loss_is_not_forgotten(tmp_path):
    """The weights stay finite, since adding NaN changes no gradient; but the step was none."""

    class Once(Breaks):
        def __call__(self, model, batch, state):
            loss, logs = cross_entropy(model, batch, state)
            self.calls += 1
            return (loss + self.value if self.calls == self.start else loss), logs

    objective = Once(3)
    model = plain("vit")
    with pytest.raises(DivergedError, match="by step 4 the loss"):
        trainer(model, tmp_path, **EVERY_TWO, objective=objective).train()
    assert all_finite(tensors(model))
    assert_only_good_checkpoints(tmp_path, [2])


def test_a_bad_micro_step_counts(tmp_path):
    loop = trainer(
        plain("vit"), tmp_path, objective=Breaks(6, factor=False), gradient_accumulation_steps=4, max_steps=4,
        per_device_train_batch_size=2, logging_strategy="steps", logging_steps=1,
    )  # fmt: skip
    with pytest.raises(DivergedError, match="by step 2 the loss"):
        loop.train()


def test_a_diverged_loss_is_not_logged(tmp_path):
    loop = trainer(plain("vit"), tmp_path, objective=Breaks(3), max_steps=6, logging_strategy="steps", logging_steps=1)
    with pytest.raises(DivergedError, match="by step 3 "):
        loop.train()
    logged = [entry for entry in loop.state.log_history if "loss" in entry]
    assert [entry["step"] for entry in logged] == [1, 2]
    assert all(math.isfinite(entry["loss"]) for entry in logged)


@pytest.mark.parametrize("settings", [{}, {"ema_decay": 0.5}])
@pytest.mark.parametrize("kind", ["resnet", "smoothed-vit"])
def test_weights_that_are_nan_are_not_saved(kind, settings, tmp_path):
    model = any_model(kind)
    loop = trainer(model, tmp_path, **EVERY_TWO, **settings, objective=BreaksWeights(4))
    with pytest.raises(
        DivergedError, match="by step 4 a weight was no longer finite.*last checkpoint, all finite, is .*checkpoint-2"
    ):
        loop.train()
    assert not all_finite(tensors(model))  # else the test above would be of something else
    assert_only_good_checkpoints(tmp_path, [2])


@pytest.mark.parametrize("settings", [{}, {"ema_decay": 0.5}])
def test_weights_that_are_nan_are_noticed_at_the_end(settings, tmp_path):
    loop = trainer(plain("vit"), tmp_path, max_steps=3, **settings, objective=BreaksWeights(3))
    with pytest.raises(DivergedError, match="by step 3 a weight was no longer finite"):
        loop.train()


class Poison(TrainerCallback):
    """Makes batch-norm statistics infinite, which training does not read: the loss stays finite."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == self.step:
            for name, buffer in model.named_buffers():
                if "running_var" in name:
                    buffer.fill_(float("inf"))


@pytest.mark.parametrize("settings", [{}, {"ema_decay": 0.5}])
def test_batch_norm_statistics_that_are_not_finite_are_not_saved(settings, tmp_path):
    loop = trainer(plain(), tmp_path, **EVERY_TWO, **settings, callbacks=[Poison(4)])
    with pytest.raises(DivergedError, match="last checkpoint, all finite, is .*checkpoint-2"):
        loop.train()
    assert_only_good_checkpoints(tmp_path, [2])


@pytest.mark.parametrize("objective", [Breaks(1), BreaksWeights(2)])
def test_it_says_so_if_there_is_no_checkpoint(objective, tmp_path):
    with pytest.raises(DivergedError, match="No checkpoint had been saved.*smaller learning_rate"):
        trainer(plain("vit"), tmp_path / "new", max_steps=2, objective=objective).train()
    assert not list(tmp_path.glob("**/checkpoint-*"))


def test_a_checkpoint_of_an_earlier_run_is_not_called_the_last_good_one(tmp_path):
    trainer(plain("vit"), tmp_path, **EVERY_TWO).train()  # leaves checkpoint-8 in the folder
    with pytest.raises(DivergedError, match="by step 4 .*last checkpoint, all finite, is .*checkpoint-2"):
        trainer(plain("vit"), tmp_path, **EVERY_TWO, objective=Breaks(4)).train()


def test_a_learning_rate_that_is_far_too_large(tmp_path):
    loop = trainer(
        plain("vit"), tmp_path, learning_rate=1e30, optim="sgd", max_grad_norm=0.0, max_steps=10, save_strategy="steps",
        save_steps=1,
    )  # fmt: skip
    with pytest.raises(DivergedError, match="Start again with a smaller learning_rate"):
        loop.train()
    assert_only_good_checkpoints(tmp_path, [int(p.name.split("-")[1]) for p in tmp_path.glob("checkpoint-*")])


def test_a_healthy_run_is_left_alone(tmp_path):
    trainer(plain("vit"), tmp_path, **EVERY_TWO, eval_dataset=data(4), logging_steps=1).train()
    assert_only_good_checkpoints(tmp_path, [2, 4, 6, 8])


def test_the_watch_on_its_own():
    watch = FiniteWatch()
    watch.check(0, None)  # nothing seen
    for value in (1.0, 1e38, -3.0):
        watch.see(torch.tensor(value, requires_grad=True))
    watch.check(3, None, torch.nn.Linear(2, 2))
    broken = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(broken.bias, float("inf"))
    with pytest.raises(
        DivergedError, match="by step 3 a weight .*The last checkpoint, all finite, is here/checkpoint-1"
    ):
        watch.check(3, "here/checkpoint-1", broken)
    watch.see(torch.tensor(float("nan")))
    watch.see(torch.tensor(1.0))
    with pytest.raises(DivergedError, match="by step 5 the loss"):
        watch.check(5, None)
