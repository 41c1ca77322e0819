"""What is uploaded while a training goes on."""

import shutil
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers.trainer
from transformers import pipeline

from hf_smoothing import SmoothedClassifier
from tests.support.tiny import pil_images, smoothed, trainer


class Hub:
    """Keeps a copy of each folder that is uploaded."""

    def __init__(self, folder):
        self.folder, self.uploads = folder, []

    def create_repo(self, repo_id=None, **kwargs):
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, folder_path, **kwargs):
        kept = self.folder / str(len(self.uploads))
        shutil.copytree(folder_path, kept, ignore=shutil.ignore_patterns("checkpoint-*"))
        self.uploads.append(kept)
        done = Future()
        done.set_result(None)
        return done


@pytest.mark.parametrize("strategy", ["every_save", "checkpoint", "end"])
def test_uploads_hold_the_processor_and_no_teacher(strategy, tmp_path, monkeypatch):
    hub = Hub(tmp_path)
    monkeypatch.setattr(transformers.trainer, "hf_api", lambda *a, **k: hub)
    loop = trainer(
        smoothed(), tmp_path / "run", objective="feature-distillation", objective_args={"teacher": smoothed(seed=5)},
        push_to_hub=True, hub_token="x", hub_strategy=strategy, save_strategy="steps", save_steps=1,
    )  # fmt: skip
    loop.train()
    assert (tmp_path / "run" / "preprocessor_config.json").exists() == (strategy != "end")
    loop.push_to_hub()
    assert len(hub.uploads) == {"every_save": 3, "checkpoint": 5, "end": 1}[strategy]
    for folder in hub.uploads:
        args = torch.load(folder / "training_args.bin", weights_only=False)
        assert args.objective_args == {"teacher": "SmoothedClassifier"}
        assert pipeline("image-classification", model=str(folder))(pil_images(1))
    assert isinstance(loop.args.objective_args["teacher"], SmoothedClassifier)
    assert Path(loop.args.output_dir).name == "run"
