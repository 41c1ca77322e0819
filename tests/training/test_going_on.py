"""Which checkpoint a training goes on from, from which place of its data, and with noise that was not drawn before."""

import pytest
import torch
from torch.nn import functional as F

from hf_smoothing import PixelStream
from hf_smoothing.training.resuming import noise_seed
from tests.support.tiny import (
    SIZE,
    any_model,
    arguments,
    assert_same_tensors,
    data,
    image_dataset,
    plain,
    smoothed,
    tensors,
    trainer,
)


def stream(shuffled=True, count=12):
    """Three batches of four images each epoch."""
    source = image_dataset(count).to_iterable_dataset(num_shards=2)
    return PixelStream(source.shuffle(seed=1, buffer_size=count) if shuffled else source, SIZE)


class Watching:
    """Notes which images a training sees, by the sum of their pixels."""

    def __init__(self, model):
        self.seen = []
        model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module, args, kwargs):
        if module.training:
            self.seen.append(kwargs["pixel_values"].flatten(1).sum(1).sort().values)


def test_a_stream_is_shuffled_anew_in_every_epoch(tmp_path):
    model = plain()
    watching = Watching(model)
    trainer(model, tmp_path, train_dataset=stream(), max_steps=9).train()
    epochs = [torch.cat(watching.seen[start : start + 3]) for start in (0, 3, 6)]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(epochs[first], epochs[second])
        torch.testing.assert_close(epochs[first].sort().values, epochs[second].sort().values)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_order_of_a_stream_follows_from_the_epoch(workers):
    def order(epoch):
        rows = stream()
        rows.set_epoch(epoch)
        loader = torch.utils.data.DataLoader(rows, batch_size=None, num_workers=workers)
        return [float(row["pixel_values"].float().mean()) for row in loader]

    assert order(1) == order(1)
    assert order(0) != order(1) and sorted(order(0)) == sorted(order(1))
    PixelStream([{"image": row["image"]} for row in image_dataset(2)], SIZE).set_epoch(1)  # no order to change


MORE = {
    "plain": {},
    "accumulation": {"gradient_accumulation_steps": 3, "per_device_train_batch_size": 2, "max_steps": 7},
    "workers": {"dataloader_num_workers": 2},
}


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("more", MORE)
@pytest.mark.parametrize("step", [2, 3, 5])  # in the first epoch, at its end, in the second
def test_a_training_on_a_stream_goes_on_at_its_place(step, more, shuffled, tmp_path):
    def go(folder, seed, resume=None):
        model = any_model("vit", seed)
        watching = Watching(model)
        values = {"max_steps": 8, "save_strategy": "steps", "save_steps": 1, "noise": "0.25", **MORE[more]}
        loop = trainer(model, tmp_path / folder, train_dataset=stream(shuffled), **values)
        loop.train(resume_from_checkpoint=resume)
        return tensors(model), len(watching.seen), loop.state.epoch

    whole, resumed = go("whole", 0), go("part", 1, str(tmp_path / "whole" / f"checkpoint-{step}"))
    assert_same_tensors(whole[0], resumed[0])
    assert resumed[1] == whole[1] - step * MORE[more].get("gradient_accumulation_steps", 1)
    assert resumed[2] == whole[2]


def test_a_longer_training_on_a_stream_goes_on_at_its_place_too(tmp_path):
    values = {"save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "constant"}
    results = []
    for folder, steps, resume in (("whole", 8, None), ("less", 5, None), ("part", 8, "less/checkpoint-5")):
        model = any_model("vit")
        loop = trainer(model, tmp_path / folder, train_dataset=stream(), max_steps=steps, **values)
        loop.train(resume_from_checkpoint=None if resume is None else str(tmp_path / resume))
        results.append(tensors(model))
    assert_same_tensors(results[0], results[2])


def test_saving_changes_no_dropout_and_a_resumed_run_has_the_same(tmp_path):
    def go(folder, resume=None, **more):
        model = smoothed("vit", base={"hidden_dropout_prob": 0.3}, seed=0 if resume is None else 1)
        loop = trainer(model, tmp_path / folder, noise="0.25", max_steps=6, **more)
        loop.train(resume_from_checkpoint=resume)
        return tensors(model)

    saves = {"save_strategy": "steps", "save_steps": 1}
    without, often = go("without"), go("often", **saves)
    assert_same_tensors(without, often)
    for step in (2, 4, 5):
        assert_same_tensors(without, go("part", str(tmp_path / "often" / f"checkpoint-{step}"), **saves))


def test_noise_is_not_drawn_again_with_another_accumulation(tmp_path):
    seeds = []

    def objective(model, batch, state):
        seeds.append(state.generator.initial_seed())
        return F.cross_entropy(model(batch.pixels), batch.labels), {}

    def go(folder, accumulate, resume=None, steps=6):
        values = {"gradient_accumulation_steps": accumulate, "per_device_train_batch_size": 4 // accumulate}
        loop = trainer(
            plain(), tmp_path / folder, objective=objective, save_strategy="steps", save_steps=1, max_steps=steps, **values
        )  # fmt: skip
        loop.train(resume_from_checkpoint=resume)
        found, seeds[:] = list(seeds), []
        return found

    for before in (1, 2, 4):
        first = go(f"from-{before}", before, steps=3)
        assert len(set(first)) == len(first) == 3 * before
        for after in (1, 2, 4):
            then = go(f"to-{after}", after, str(tmp_path / f"from-{before}" / "checkpoint-3"))
            assert len(set(first + then)) == 3 * before + 3 * after
    assert noise_seed(arguments(tmp_path, seed=5)) == 5


@pytest.mark.parametrize(
    ("asked", "found"), [("true", True), ("True", True), ("false", None), ("False", None), (None, None), ("a", "a")]
)
def test_words_of_a_command_line_are_understood(asked, found, tmp_path):
    assert arguments(tmp_path, resume_from_checkpoint=asked).resume_from_checkpoint == found


def test_a_checkpoint_that_is_not_there_is_named(tmp_path):
    loop = trainer(plain(), tmp_path / "empty", save_strategy="steps", save_steps=1)
    for asked, what in ((True, "no checkpoint in .*empty"), (str(tmp_path / "none"), "no folder .*none")):
        with pytest.raises(ValueError, match=f"needs a checkpoint to go on from, and there is {what}"):
            loop.train(resume_from_checkpoint=asked)
    loop.train(resume_from_checkpoint=False)
    again = trainer(plain(), tmp_path / "empty", train_dataset=data(), max_steps=3)
    assert again.train(resume_from_checkpoint=True).global_step == 3


def test_true_and_false_may_be_text(tmp_path):
    loop = trainer(plain(), tmp_path, train_dataset=data(), save_strategy="steps", save_steps=1, max_steps=2)
    for asked in ("false", "False"):
        loop.train(resume_from_checkpoint=asked)
    again = trainer(plain(), tmp_path, train_dataset=data(), max_steps=3)
    assert again.train(resume_from_checkpoint="True").global_step == 3
