"""Adversarial training, TRADES, discrepancy mitigation and distillation beside slow twins written from their formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hf_smoothing import NoiseMixture
from hf_smoothing.training import Batch, ObjectiveState
from hf_smoothing.training.objectives import (
    Network,
    adversarial_training,
    discrepancy_mitigation,
    feature_distillation,
    trades,
)
from tests.support.tiny import data, note, plain, small_network, smoothed, trainer


@pytest.fixture
def network():
    return small_network()


BATCH = Batch(torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0, 1]))


def state(seed=0, noise=None, **more):
    return ObjectiveState(noise, torch.Generator().manual_seed(seed), **more)


def start(deviation):
    """The Gaussian start of an attack, as the state's generator draws it."""
    generator = torch.Generator().manual_seed(0)
    return deviation * torch.randn(BATCH.pixels.shape, generator=generator, dtype=torch.float64).float()


def ascend(module, loss_of, point, epsilon, step, steps, order="linf"):
    """Plain projected ascent in eval mode."""
    module.eval()
    clean = BATCH.pixels
    for _ in range(steps):
        x = point.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss_of(x), x)
        point = (point + step * gradient.sign()).clamp(clean - epsilon, clean + epsilon).clamp(0, 1)
    module.train()
    return point.detach()


def same(module, ours, expected, tolerance=1e-5):
    """Values and gradients."""
    parameters = list(module.parameters())
    gradients = [
        torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True) for loss in (ours, expected)
    ]
    torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance)
    for a, b in zip(*gradients, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-3, atol=tolerance)


def test_discrepancy_mitigation(network):
    epsilon, steps, beta = 0.02, 4, 500.0
    loss, logs = discrepancy_mitigation(
        Network(network, network), BATCH, state(), epsilon=epsilon, steps=steps, beta=beta
    )
    assert network.training
    network.eval()
    target = network.phi(BATCH.pixels).detach()
    moved = ascend(
        network, lambda x: ((network.phi(x) - target) ** 2).mean(), (BATCH.pixels + start(0.0005)), epsilon, 1.25 * epsilon / steps, steps,
    )  # fmt: skip
    clean = network.phi(BATCH.pixels)
    apart = ((network.phi(moved) - clean) ** 2).mean()
    same(network, loss, F.cross_entropy(network.head(clean), BATCH.labels) + beta / 5 * apart)
    assert float(logs["discrepancy"].detach()) == pytest.approx(float(apart.detach()), rel=1e-4) != 0


def test_adversarial_training(network):
    epsilon, steps = 0.05, 3
    loss, _ = adversarial_training(Network(network, network), BATCH, state(), epsilon=epsilon, steps=steps)
    cube = torch.rand(BATCH.pixels.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    begin = (BATCH.pixels + (epsilon * (2 * cube - 1)).float()).clamp(0, 1)
    moved = ascend(
        network, lambda x: F.cross_entropy(network(x), BATCH.labels), begin, epsilon, 2.5 * epsilon / steps, steps
    )
    same(network, loss, F.cross_entropy(network(moved), BATCH.labels))


def test_trades(network):
    epsilon, steps, weight = 0.05, 3, 6.0
    loss, _ = trades(Network(network, network), BATCH, state(), epsilon=epsilon, steps=steps, weight=weight)
    network.eval()
    target = network(BATCH.pixels).softmax(1).detach()
    moved = ascend(
        network, lambda x: F.kl_div(network(x).log_softmax(1), target, reduction="sum"), BATCH.pixels + start(0.001), epsilon,
        2.5 * epsilon / steps, steps,
    )  # fmt: skip
    logits = network(BATCH.pixels)
    between = F.kl_div(network(moved).log_softmax(1), logits.softmax(1), reduction="batchmean")
    same(network, loss, F.cross_entropy(logits, BATCH.labels) + weight * between, 1e-4)


def test_attacks_run_in_eval_mode_and_losses_in_train_mode(network):
    for objective in (adversarial_training, trades, discrepancy_mitigation):
        network.modes.clear()
        objective(Network(network, network), BATCH, state())
        count = {adversarial_training: 1, trades: 2, discrepancy_mitigation: 2}[objective]
        assert network.modes[-count:] == [True] * count
        assert not any(network.modes[:-count])
        network.norm.eval()  # a frozen batch norm stays frozen
        objective(Network(network, network), BATCH, state())
        assert network.training and not network.norm.training
        network.norm.train()


def test_features_stay_near_the_teacher_s():
    student, teacher = smoothed("resnet", 0).train(), smoothed("resnet", 1)
    batch = Batch(torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0]))
    network = Network(student, lambda x: student(pixel_values=x).logits)
    loss, _ = feature_distillation(network, batch, state(), teacher=teacher, weight=0.3)
    student.zero_grad()
    pooled = [
        m.base_network.resnet(m.config.preprocessing()(batch.pixels)).pooler_output.flatten(1)
        for m in (student, teacher)
    ]
    logits = student.base_network.classifier(pooled[0])
    expected = F.cross_entropy(logits, batch.labels) + 0.3 * (pooled[0] - pooled[1].detach()).norm(dim=1).mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    wide = smoothed("resnet", 1, base={"hidden_sizes": [8, 24]})
    with pytest.raises(ValueError, match="features as wide as the network's 16, got 24"):
        feature_distillation(network, batch, state(), teacher=wide)


@pytest.mark.parametrize("objective", [adversarial_training, trades, discrepancy_mitigation, feature_distillation])
def test_bad_input(objective, network):
    more = {"teacher": smoothed()} if objective is feature_distillation else {}
    with pytest.raises(ValueError, match=r"clean images, but there is training noise\. Set noise='clean'"):
        objective(Network(network, network), BATCH, state(noise=NoiseMixture((0.5,))), **more)
    for owner in ("model", "processor"):
        with pytest.raises(ValueError, match=rf"clean images, but the {owner} owns the noise and may add it"):
            objective(Network(network, network), BATCH, state(noise_owner=owner), **more)
    with pytest.raises(TypeError, match=r"needs a Network\(module, classify\)"):
        objective(lambda x: x.flatten(1), BATCH, state(), **more)
    if not more:
        with pytest.raises(ValueError, match=r"got 8, which looks like steps of 0..255. Divide it by 255"):
            objective(Network(network, network), BATCH, state(), epsilon=8)


def test_the_teacher_is_not_changed():
    teacher = smoothed("resnet", 1).train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student = smoothed("resnet", 0).train()
    batch = Batch(torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0]))
    feature_distillation(Network(student, lambda x: student(pixel_values=x).logits), batch, state(), teacher=teacher)
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


@pytest.mark.parametrize("name", ["adversarial", "trades", "discrepancy-mitigation"])
@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_they_train_through_the_trainer(name, kind, tmp_path):
    made = trainer(plain(kind), tmp_path, objective=name, objective_args={"steps": 2, "epsilon": 0.01}, noise="clean")
    made.train()
    assert made.state.global_step > 0


def test_distillation_takes_the_teacher_by_its_path(tmp_path):
    backbone = plain()
    backbone.config.hf_smoothing = note()
    backbone.save_pretrained(tmp_path / "teacher")
    made = trainer(
        smoothed(), tmp_path, objective="feature-distillation", objective_args={"teacher": str(tmp_path / "teacher")}, noise="clean",
    )  # fmt: skip
    made.train()
    with pytest.raises(ValueError, match="This objective needs 'teacher'"):
        trainer(smoothed(), tmp_path, objective="feature-distillation", train_dataset=data())


@pytest.mark.parametrize(
    "objective", ["adversarial", "trades", "discrepancy-mitigation", "adaptive-interval", "smoothadv", "mixture"]
)
def test_pixels_within_the_tolerance_are_trained_on(objective, tmp_path):
    """Resizing leaves [0, 1] by a hair, which attacks and bounds refuse, in whatever batch it comes first."""
    values = torch.rand((8, 3, 16, 16), generator=torch.Generator().manual_seed(3))
    values[4:, 0, 0, :2] = torch.tensor([-0.0005, 1.0005])
    items = [{"pixel_values": image, "labels": number % 3} for number, image in enumerate(values)]
    settings = {"adaptive-interval": {"largest": 0.01}, "smoothadv": {"epsilon": 0.1, "steps": 1}}.get(objective, {})
    noise = "0.25" if objective in ("smoothadv", "mixture") else "clean"
    loop = trainer(
        smoothed(), tmp_path, train_dataset=items, objective=objective, objective_args=settings, noise=noise
    )
    loop.train()
    assert loop.state.global_step == 2
