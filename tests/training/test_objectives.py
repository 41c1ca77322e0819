import json

import pytest
import torch
from tiny import KINDS, any_model, data, plain, trainer

from hf_smoothing import NoiseMixture
from hf_smoothing.training import Batch, ObjectiveState
from hf_smoothing.training.objectives import OBJECTIVES, find_objective, mixture_cross_entropy


def slow_cross_entropy(logits, labels, smoothing):
    """-sum_k q_k log p_k with q = (1 - smoothing) * one-hot + smoothing / K, image by image."""
    total = 0.0
    for row, label in zip(logits.double(), labels.tolist(), strict=True):
        log_p = row - row.exp().sum().log()
        q = torch.full_like(log_p, smoothing / len(row))
        q[label] += 1 - smoothing
        total += float(-(q * log_p).sum())
    return total / len(labels)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("noise", [None, NoiseMixture((0.25, 1.0), clean=0.3)])
def test_mixture_cross_entropy_equals_its_slow_twin(noise, smoothing):
    pixels = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels, weight = torch.arange(8) % 5, torch.randn(48, 5, generator=torch.Generator().manual_seed(1))
    state = ObjectiveState(noise, torch.Generator().manual_seed(2), label_smoothing=smoothing)
    loss, logs = mixture_cross_entropy(lambda x: x.flatten(1) @ weight, Batch(pixels, labels), state)
    noisy = pixels if noise is None else noise.add(pixels, torch.Generator().manual_seed(2))[0]
    expected = slow_cross_entropy(noisy.flatten(1) @ weight, labels, smoothing)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert logs == {}


def test_the_clean_pixels_are_not_changed_in_place():
    pixels = torch.rand(4, 3, 4, 4)
    before = pixels.clone()
    state = ObjectiveState(NoiseMixture((1.0,)), torch.Generator().manual_seed(0))
    mixture_cross_entropy(lambda x: x.flatten(1), Batch(pixels, torch.arange(4)), state)
    assert torch.equal(pixels, before)


def test_find_objective():
    assert find_objective("mixture", OBJECTIVES) is mixture_cross_entropy
    assert find_objective(mixture_cross_entropy, {}) is mixture_cross_entropy
    with pytest.raises(ValueError, match="`objective` must be one of mixture, or a callable, got 'macer'"):
        find_objective("macer", OBJECTIVES)


class Recorder:
    """An objective of one's own that remembers what it was given."""

    def __init__(self):
        self.calls = []

    def __call__(self, model, batch, state):
        self.calls.append((batch, state))
        noisy, sigma = state.noise.add(batch.pixels, state.generator)
        loss = torch.nn.functional.cross_entropy(model(noisy), batch.labels)
        return loss, {"mean_sigma": sigma.mean(), "call": torch.tensor(float(len(self.calls)))}


@pytest.mark.parametrize("kind", KINDS)
def test_an_objective_of_ones_own(kind, tmp_path):
    objective = Recorder()
    loop = trainer(
        any_model(kind), tmp_path, objective=objective, noise="0.5", max_steps=4, logging_strategy="steps", logging_steps=2,
        label_smoothing_factor=0.1, horizontal_flip=True,
    )  # fmt: skip
    loop.train()
    assert len(objective.calls) == 4
    for number, (batch, state) in enumerate(objective.calls):
        assert batch.pixels.dtype == torch.float32 and batch.pixels.shape == (4, 3, 16, 16)
        assert batch.pixels.min() >= 0.0 and batch.pixels.max() <= 1.0
        assert batch.labels.dtype == torch.int64
        assert state.noise == NoiseMixture((0.5,))
        assert state.progress == pytest.approx(number / 4)
        assert state.label_smoothing == 0.1
    logged = [entry for entry in loop.state.log_history if "loss" in entry]
    assert [entry["mean_sigma"] for entry in logged] == [0.5, 0.5]
    assert [entry["call"] for entry in logged] == [1.5, 3.5]  # means since the last time
    json.dumps(loop.state.log_history)


def test_figures_of_an_objective_average_over_micro_steps(tmp_path):
    objective = Recorder()
    loop = trainer(
        plain("vit"), tmp_path, objective=objective, noise="0.5", max_steps=1, logging_strategy="steps", logging_steps=1,
        gradient_accumulation_steps=4, per_device_train_batch_size=2,
    )  # fmt: skip
    loop.train()
    assert len(objective.calls) == 4
    assert loop.state.log_history[0]["call"] == 2.5


def test_an_objective_is_not_used_in_evaluation(tmp_path):
    objective = Recorder()
    loop = trainer(plain("vit"), tmp_path, objective=objective, eval_dataset=data(4))
    metrics = loop.evaluate()
    assert objective.calls == []
    assert metrics["eval_loss"] > 0
