"""A run goes on only from a checkpoint that holds the state of its training: a fresh optimizer or schedule is another run."""

import re
import shutil

import pytest

from hf_smoothing.training.checkpoints import STATE
from tests.support.tiny import plain, trainer


RUN = {"save_strategy": "steps", "save_steps": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    trainer(plain(), folder, **RUN).train()
    return folder


def resumed(checkpoint, tmp_path, **more):
    return trainer(plain(), tmp_path, **more).train(resume_from_checkpoint=checkpoint)


@pytest.mark.parametrize("name", STATE)
def test_a_file_of_the_state_that_is_missing_is_named(name, run, tmp_path):
    checkpoint = shutil.copytree(run / "checkpoint-1", tmp_path / "copy")
    for file in checkpoint.glob(name):
        file.unlink()
    with pytest.raises(
        ValueError, match=rf"has no {re.escape(name)} \({STATE[name]}\)\. Bring the files back, or"
    ) as refused:
        resumed(checkpoint, tmp_path / "next")
    assert sum(other in str(refused.value) for other in STATE) == 1


@pytest.mark.parametrize("last", [True, "checkpoint-1"])
def test_a_checkpoint_of_the_weights_alone_is_refused(last, tmp_path):
    trainer(plain(), tmp_path, save_only_model=True, **RUN).train()
    with pytest.raises(
        ValueError, match=r"no optimizer.pt \(the optimizer\), no .*save_only_model=False keeps the state"
    ):
        resumed(last if last is True else tmp_path / last, tmp_path)


def test_folders_that_are_no_checkpoints_are_refused(run, tmp_path):
    (tmp_path / "empty").mkdir()
    plain().save_pretrained(tmp_path / "weights")
    for folder in ("empty", "weights"):
        with pytest.raises(
            ValueError, match=rf"{folder} has no trainer_state.json \(the steps made\), no optimizer.pt"
        ):
            resumed(tmp_path / folder, tmp_path)
    with pytest.raises(ValueError, match=r"Pass one of the checkpoints in it, such as .*checkpoint-2"):
        resumed(run, tmp_path)


def test_a_whole_one_is_gone_on_from(run, tmp_path):
    assert resumed(run / "checkpoint-1", tmp_path).global_step == 2
