"""A training in a log file says how far it is by lines, and leaves bars to terminals."""

import pytest
from transformers.trainer_callback import ProgressCallback

from hf_smoothing import RobustTrainer, RobustTrainingArguments
from hf_smoothing.training.log_progress import LogProgressCallback
from tests.support.tiny import smoothed
from tests.training.test_pacing import images


def trained(folder, **options):
    args = RobustTrainingArguments(
        str(folder), noise="clean", max_steps=3, per_device_train_batch_size=4, use_cpu=True, report_to="none", save_strategy="no",
        logging_steps=1, dataloader_pin_memory=False, **options,
    )  # fmt: skip
    trainer = RobustTrainer(smoothed("resnet", size=8), args, train_dataset=images())
    trainer.train()
    return {type(callback) for callback in trainer.callback_handler.callbacks}


def test_lines_in_a_log(tmp_path, capsys, monkeypatch):
    callbacks = trained(tmp_path)
    out, error = capsys.readouterr()
    assert LogProgressCallback in callbacks and ProgressCallback not in callbacks
    assert "Training: 3 of 3 steps in " in error and "it/s" not in error and "\r" not in error
    assert out.count("'loss'") == 3


def test_a_bar_in_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hf_smoothing.training.log_progress.bars_are_seen", lambda: True)
    callbacks = trained(tmp_path)
    assert ProgressCallback in callbacks and LogProgressCallback not in callbacks
    assert "3/3" in capsys.readouterr().err


@pytest.mark.parametrize("seen", [True, False])
def test_no_progress_where_it_is_not_wanted(tmp_path, capsys, monkeypatch, seen):
    monkeypatch.setattr("hf_smoothing.training.log_progress.bars_are_seen", lambda: seen)
    callbacks = trained(tmp_path, disable_tqdm=True)
    assert not {ProgressCallback, LogProgressCallback} & callbacks
    assert "Training" not in capsys.readouterr().err
