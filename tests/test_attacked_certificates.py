"""An attack inside every certified radius of a real finetuned model: `make test-attack`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import load_dataset
from transformers import set_seed

from hf_smoothing import PixelDataset, RobustTrainer, RobustTrainingArguments, SmoothedClassifier, certify_dataset
from hf_smoothing.attack_run import attack_run, summary


ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_no_more_certificates_break_than_chance_allows(tmp_path):
    data = load_dataset(str(ROOT / "examples" / "data"))
    names = data["train"].features["label"].names
    set_seed(0)
    model = SmoothedClassifier.from_base_pretrained(
        str(ROOT / "model_cards" / "resnet-mixture-small"), sigma=0.25, id2label=dict(enumerate(names)), ignore_mismatched_sizes=True,
        dtype=torch.float32,
    )  # fmt: skip
    args = RobustTrainingArguments(
        str(tmp_path / "trainer"), trainable=["stages.3", "classifier"], freeze_batch_norm=True, num_train_epochs=4,
        per_device_train_batch_size=64, learning_rate=0.02, optim="sgd", optim_args="momentum=0.9", save_strategy="no",
        use_cpu=not torch.cuda.is_available(), report_to="none",
    )  # fmt: skip
    RobustTrainer(model, args, train_dataset=PixelDataset(data["train"], 32).decode(progress=False)).train()
    test = PixelDataset(data["test"], 32, id2label=model.config.id2label)
    run = certify_dataset(
        model.eval(),
        test,
        tmp_path / "run",
        sigma=0.25,
        n=1_000,
        indices=range(0, 500, 2),
        dtype="bfloat16",
        channels_last=True,
    )
    how = {"steps": 20, "copies": 16, "n": 10_000, "alpha": 0.001}
    found = attack_run(model, test, run, **how, max_images=200, seed=0)
    figures = summary(found, run, **how)
    print({key: value for key, value in figures.items() if key != "rows"})
    assert figures["certificates"] >= 200
    assert figures["broken"] <= figures["allowed_by_chance"]
    assert figures["mean_distance_over_radius"] > 0.5, "an attack that goes nowhere would prove nothing"
