"""How many epochs fit into some minutes."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from transformers import EarlyStoppingCallback

from hf_smoothing import RobustTrainer, RobustTrainingArguments
from hf_smoothing.data import DecodedPixels
from hf_smoothing.training.pacing import FIRST_STEPS, Pace, epochs_within
from tests.support.tiny import smoothed


def arguments(tmp_path, **more):
    return RobustTrainingArguments(
        str(tmp_path / "out"), per_device_train_batch_size=8, noise='{"sigmas": [0.5]}', use_cpu=True, report_to="none", seed=3,
        disable_tqdm=True, save_strategy="no", **more,
    )  # fmt: skip


def images(count=64):
    pixels = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return DecodedPixels(pixels, torch.arange(count) % 2)


def test_the_number_follows_from_the_pace_and_is_kept(tmp_path, monkeypatch, capsys):
    model = smoothed("resnet", size=8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    made = []

    def make_trainer(model, args):
        made.append((model, args))
        return RobustTrainer(model, args, train_dataset=images())

    monkeypatch.setattr(Pace, "steps_per_second", property(lambda pace: 4.0 if pace.steps > 0 else 0.0))
    args = arguments(tmp_path)
    # An epoch has 8 steps, so at this pace it takes 2 seconds.
    assert epochs_within(0.5, model, args, make_trainer, seconds=0.2) == 15.0
    assert torch.initial_seed() == args.seed
    assert json.loads((tmp_path / "out" / "pace.json").read_text()) == {
        "epochs": 15.0, "minutes": 0.5, "steps_per_second": 4.0,
    }  # fmt: skip
    assert "15 epochs fit into 0.5 minutes" in capsys.readouterr().out
    # The trials trained copies, elsewhere, and a run that goes on keeps the number.
    assert len(made) == 2
    assert all(trained is not model and trial.output_dir != args.output_dir for trained, trial in made)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    args.resume_from_checkpoint = "true"
    assert epochs_within(99.0, model, args, make_trainer) == 15.0


def test_a_note_is_kept_for_the_same_minutes_or_a_checkpoint_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(Pace, "steps_per_second", property(lambda pace: 4.0))
    model, args = smoothed("resnet", size=8), arguments(tmp_path)
    make = lambda model, args: RobustTrainer(model, args, train_dataset=images())  # noqa: E731
    note = tmp_path / "out" / "pace.json"
    note.parent.mkdir()
    note.write_text('{"epochs": 3.0, "minutes": 0.5}')
    assert epochs_within(0.5, model, args, make, seconds=0.1) == 3.0
    assert epochs_within(1.0, model, args, make, seconds=0.1) == 30.0  # it starts over, with other minutes
    assert json.loads(note.read_text())["minutes"] == 1.0


@pytest.mark.parametrize("text", ["", '{"epochs": 3', "[]", '{"epochs": 3.0}', '{"epochs": null, "minutes": 0.5}'])
def test_a_note_that_cannot_be_read_is_made_anew(tmp_path, monkeypatch, text):
    monkeypatch.setattr(Pace, "steps_per_second", property(lambda pace: 4.0))
    make = lambda model, args: RobustTrainer(model, args, train_dataset=images())  # noqa: E731
    note = tmp_path / "out" / "pace.json"
    note.parent.mkdir()
    note.write_text(text)
    assert epochs_within(0.5, smoothed("resnet", size=8), arguments(tmp_path), make, seconds=0.1) == 15.0
    assert [file.name for file in note.parent.iterdir()] == ["pace.json"]
    assert json.loads(note.read_text())["epochs"] == 15.0


def test_accumulated_steps_are_counted_as_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(Pace, "steps_per_second", property(lambda pace: 4.0))
    args = arguments(tmp_path, gradient_accumulation_steps=2)
    make = lambda model, args: RobustTrainer(model, args, train_dataset=images())  # noqa: E731
    assert epochs_within(0.5, smoothed("resnet", size=8), args, make, seconds=0.1) == 30.0


def test_the_first_steps_are_not_timed(tmp_path):
    pace = Pace(seconds=0.3)
    trainer = RobustTrainer(smoothed("resnet", size=8), arguments(tmp_path, max_steps=10_000), train_dataset=images())
    trainer.add_callback(pace)
    trainer.train()
    assert pace.steps == trainer.state.global_step - FIRST_STEPS > 0
    assert pace.steps_per_second == pytest.approx(pace.steps / 0.3, rel=0.5)


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan")])
def test_minutes_must_be_positive(tmp_path, minutes):
    with pytest.raises(ValueError, match=f"`minutes` must be a positive number, got {minutes}"):
        epochs_within(minutes, smoothed("resnet", size=8), arguments(tmp_path), None)


def test_steps_of_an_epoch_are_counted_as_the_trainer_does(tmp_path, monkeypatch):
    monkeypatch.setattr(Pace, "steps_per_second", property(lambda pace: 4.0))
    args = arguments(tmp_path, gradient_accumulation_steps=5)  # 8 batches: two updates, the second of three
    make = lambda model, args: RobustTrainer(model, args, train_dataset=images())  # noqa: E731
    assert epochs_within(0.5, smoothed("resnet", size=8), args, make, seconds=0.1) == 60.0


def test_the_pace_is_that_of_the_whole_training(tmp_path):
    seen = []

    def objective(model, batch, state):
        seen.append(state.progress)
        return torch.nn.functional.cross_entropy(model(batch.pixels), batch.labels), {}

    make = lambda model, args: RobustTrainer(model, args, objective=objective, train_dataset=images())  # noqa: E731
    epochs_within(0.01, smoothed("resnet", size=8), arguments(tmp_path), make, seconds=0.3)
    second = seen[len(seen) - seen[::-1].index(0.0) - 1 :]
    assert second == sorted(second) and len(second) > FIRST_STEPS
    assert second[-1] == pytest.approx(1.0, abs=1.5 / len(second))


def test_a_trial_evaluates_saves_reports_and_uploads_nothing(tmp_path, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("called in a trial")

    for name in ("init_hf_repo", "push_to_hub", "evaluate", "_save_checkpoint"):
        monkeypatch.setattr(RobustTrainer, name, never)
    made = []

    def make(model, args):
        made.append(args)
        return RobustTrainer(model, args, train_dataset=images(), eval_dataset=images())

    asked = {
        "push_to_hub": True, "eval_on_start": True, "load_best_model_at_end": True, "metric_for_best_model": "accuracy", "logging_steps": 1,
        "eval_strategy": "steps", "eval_steps": 1, "save_steps": 1,
    }  # fmt: skip
    args = dataclasses.replace(arguments(tmp_path, logging_first_step=True), save_strategy="steps", **asked)
    args.report_to = ["tensorboard"]  # whose folder would be made
    given = args.to_dict()
    assert epochs_within(0.01, smoothed("resnet", size=8), args, make, seconds=0.1) >= 1.0
    assert [trial.report_to for trial in made] == [[], []]
    assert args.to_dict() == given
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["pace.json"]


def test_a_trial_does_not_ask_for_what_stops_early(tmp_path):
    def make_trainer(model, args):
        return RobustTrainer(
            model, args, train_dataset=images(), eval_dataset=images(8), callbacks=[EarlyStoppingCallback(2)]
        )

    args = arguments(tmp_path, eval_strategy="epoch", metric_for_best_model="loss")
    assert epochs_within(0.01, smoothed("resnet", size=8), args, make_trainer, seconds=0.1) >= 1.0
    assert args.eval_strategy == "epoch"
