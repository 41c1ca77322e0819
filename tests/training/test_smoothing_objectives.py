"""SmoothAdv, SmoothMix, MACER, stability training and CAT-RS beside slow twins written from their formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm as normal

from hf_smoothing import NoiseMixture
from hf_smoothing.attacks import ddn, distance
from hf_smoothing.models.network import Network
from hf_smoothing.training import Batch, ObjectiveState
from hf_smoothing.training.objectives import (
    cat_rs,
    consistency,
    denoising,
    macer,
    masked_denoising,
    mixture_cross_entropy,
    smoothadv,
    smoothmix,
    stability,
)
from hf_smoothing.training.objectives.base import noisy_copies
from tests.support.tiny import any_model, plain, small_network, trainer


MIXTURE = NoiseMixture((0.1, 0.3))
BATCH = Batch(torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0, 1, 2]))


@pytest.fixture
def network():
    module = small_network()
    module.head.weight.data *= 4
    return module


def state(seed=0, noise=MIXTURE, progress=1.0):
    return ObjectiveState(noise, torch.Generator().manual_seed(seed), progress=progress)


def noise_of(copies, seed=0):
    """What an objective draws first: the noise of each copy, and the generator after it."""
    later = state(seed)
    noise, sigma = noisy_copies(BATCH, later, copies, "a test")
    return list(noise), sigma, later.generator


def same(module, ours, expected, tolerance=1e-4):
    """Values and gradients."""
    parameters = list(module.parameters())
    found = [torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True) for loss in (ours, expected)]
    torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance)
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=tolerance)


def together(module, x, noise):
    """Softmax of every copy; in one pass, since batch norm sees the batch."""
    return module(torch.cat([x + d for d in noise])).chunk(len(noise))


def climb(module, x, noise, labels, steps, size, epsilon=None):
    """Normalised ascent of - log mean_i F_y(x + d_i), in eval mode."""
    clean, x = x, x.clone()
    module.eval()
    for _ in range(steps):
        x = x.detach().requires_grad_()
        mean = sum(part.softmax(1) for part in together(module, x, noise)) / len(noise)
        loss = -mean[torch.arange(len(x)), labels].log().sum()
        (gradient,) = torch.autograd.grad(loss, x)
        x = x.detach() + size * gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]
        if epsilon is not None:
            shift = x - clean
            far = shift.flatten(1).norm(dim=1)[:, None, None, None]
            x = clean + shift * (epsilon / far).clamp(max=1.0)
        x = x.clamp(0, 1)
    module.train()
    return x.detach()


@pytest.mark.parametrize("copies", [1, 3])
def test_smoothadv(network, copies):
    loss, _ = smoothadv(Network(network, network), BATCH, state(), epsilon=0.4, steps=3, copies=copies)
    noise, _, _ = noise_of(copies)
    moved = climb(network, BATCH.pixels, noise, BATCH.labels, 3, 2 * 0.4 / 3, 0.4)
    expected = sum(F.cross_entropy(part, BATCH.labels) for part in together(network, moved, noise)) / copies
    same(network, loss, expected)


def test_smoothadv_warms_up(network):
    for progress, radius in ((0.0, 0.0), (0.05, 0.2), (0.2, 0.4)):
        _, logs = smoothadv(Network(network, network), BATCH, state(progress=progress), epsilon=0.4, warm_up=0.1)
        assert float(logs["radius"]) == pytest.approx(radius)
    plainly = smoothadv(Network(network, network), BATCH, state(progress=0.0), epsilon=0.4, copies=2)[0]
    noise, _, _ = noise_of(2)
    expected = sum(F.cross_entropy(part, BATCH.labels) for part in together(network, BATCH.pixels, noise)) / 2
    same(network, plainly, expected)


def test_smoothadv_with_ddn_raises_the_loss(network):
    with torch.no_grad():
        losses = [
            float(smoothadv(Network(network, network), BATCH, state(), epsilon=e, attack="ddn", steps=5)[0])
            for e in (0.0, 1.0)
        ]
    assert losses[1] > losses[0]


@pytest.mark.parametrize("attack", ["pgd", "ddn"])
def test_smoothadv_uses_its_radius_where_nothing_fools(attack, monkeypatch):
    weight = torch.ones(48, 3)
    weight[:, 0] = 2.0  # of three classes, the first wins by far, whatever an attack does
    seen = []

    def linear(x):
        seen.append(x.detach())
        return x.flatten(1) @ weight

    module = small_network()
    batch = Batch(torch.full((2, 3, 4, 4), 0.5), torch.zeros(2, dtype=torch.int64))
    smoothadv(
        Network(module, linear),
        batch,
        state(noise=NoiseMixture((0.0,))),
        epsilon=1.5,
        steps=2,
        copies=1,
        attack=attack,
    )
    torch.testing.assert_close(
        distance(seen[-1], batch.pixels, "l2"), torch.full((2,), 1.5).double(), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize(
    "objective", [mixture_cross_entropy, smoothadv, smoothmix, cat_rs, macer, stability, consistency]
)
def test_losses_are_float32_whatever_the_weights_are(objective):
    module = small_network().to(torch.bfloat16)
    network = Network(module, lambda x: module(x.to(torch.bfloat16)))
    assert objective(network, BATCH, state())[0].dtype == torch.float32


@pytest.mark.parametrize("kind", ["resnet", "smoothed-resnet"])
def test_attacks_run_in_the_precision_of_the_training(kind, tmp_path):
    model, seen = any_model(kind), []
    first = next(module for module in model.modules() if isinstance(module, torch.nn.Conv2d))
    first.register_forward_hook(lambda *given: seen.append(given[-1].dtype))
    settings = {"steps": 2, "warm_up": 0.0}
    trainer(
        model, tmp_path, noise="0.25", objective="smoothadv", objective_args=settings, bf16=True, max_steps=1
    ).train()
    assert seen == [torch.bfloat16] * 3


@pytest.mark.parametrize("one_step", [False, True])
def test_smoothmix(network, one_step):
    weight, steps, size, copies = 3.0, 3, 0.5, 2
    loss, _ = smoothmix(
        Network(network, network),
        BATCH,
        state(),
        weight=weight,
        steps=steps,
        step_size=size,
        copies=copies,
        one_step=one_step,
    )
    noise, _, generator = noise_of(copies)
    x, y = BATCH.pixels, BATCH.labels
    far = climb(network, x, noise, y, steps, size)
    if one_step:
        x = climb(network, x, noise, y, 1, size)
    parts = together(network, x, noise)
    mean = sum(part.softmax(1) for part in parts) / copies
    share = torch.rand(len(x), generator=generator) / 2
    mixed_x = torch.stack([(1 - s) * a + s * b for s, a, b in zip(share, x, far, strict=True)])
    mixed_y = torch.stack([(1 - s) * p + s / 3 for s, p in zip(share, mean, strict=True)])
    divergence = sum(
        (mixed_y * (mixed_y.log() - part.log_softmax(1))).sum(1) for part in together(network, mixed_x, noise)
    )
    right = (mean.argmax(1) == y).float()
    assert 0 < right.sum() < len(right)
    expected = sum(F.cross_entropy(part, y) for part in parts) / copies + weight * (right * divergence / copies).mean()
    same(network, loss, expected)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), gamma=st.sampled_from([1.0, 4.0, 8.0]), beta=st.sampled_from([1.0, 4.0, 16.0]))
def test_macer(seed, gamma, beta):
    torch.manual_seed(seed)
    weight_matrix = (0.3 * torch.randn(48, 3, dtype=torch.float64)).requires_grad_()
    weight, copies = 5.0, 6

    def model(x):
        return (x.double().flatten(1) @ weight_matrix).float()

    ours, _ = macer(model, BATCH, state(seed), copies=copies, weight=weight, gamma=gamma, beta=beta)
    noise, sigma, _ = noise_of(copies, seed)
    standard, robust = 0.0, 0.0
    for i, label in enumerate(BATCH.labels.tolist()):
        scores = torch.stack([(BATCH.pixels[i] + d[i]).double().flatten() @ weight_matrix for d in noise])
        standard = standard - scores.softmax(1).mean(0)[label].log() / 6
        shares = (beta * scores).softmax(1).mean(0)
        first, second = shares.topk(2).values
        if int(shares.argmax()) == label and float(first.detach()) < 1 - 1e-9:
            gap = float(normal.ppf(float(first.detach())) - normal.ppf(float(second.detach())))
            if abs(gap) <= gamma:
                robust = robust + sigma[i] / 2 * (gamma - torch.special.ndtri(first) + torch.special.ndtri(second)) / 6
    expected = standard + weight * robust
    torch.testing.assert_close(ours.double(), expected, rtol=1e-3, atol=1e-4)
    gradients = [torch.autograd.grad(loss, weight_matrix, retain_graph=True)[0] for loss in (ours, expected)]
    assert torch.isfinite(gradients[0]).all()
    torch.testing.assert_close(*gradients, rtol=2e-2, atol=2e-3)


def test_stability(network):
    loss, _ = stability(network, BATCH, state(), weight=2.0)
    (noise,), _, _ = noise_of(1)
    clean, noisy = network(BATCH.pixels), network(BATCH.pixels + noise)
    apart = -sum((clean.softmax(1)[i] * noisy.log_softmax(1)[i]).sum() for i in range(6)) / 6
    same(network, loss, F.cross_entropy(clean, BATCH.labels) + 2.0 * apart)


def test_cat_rs(network):
    copies, weight, epsilon, steps = 3, 1.5, 0.3, 2
    loss, logs = cat_rs(
        Network(network, network), BATCH, state(), copies=copies, weight=weight, epsilon=epsilon, steps=steps
    )
    noise, _, generator = noise_of(copies)
    x, y = BATCH.pixels, BATCH.labels
    parts = together(network, x, noise)
    draws = torch.rand(copies, len(x), generator=generator)
    right = torch.stack([part.argmax(1) == y for part in parts]).float().mean(0)
    accepted = [max(1, int((draws[:, i] < right[i]).sum())) for i in range(len(x))]
    target = (sum(part.softmax(1) for part in parts) / copies).detach()
    network.eval()
    worst = []
    for d in noise:
        moved = d.clone()
        for _ in range(steps):
            moved = moved.detach().requires_grad_()
            divergence = F.kl_div(network(x + moved).log_softmax(1), target, reduction="sum")
            (gradient,) = torch.autograd.grad(divergence, moved)
            rows = []
            for i in range(len(x)):
                row = moved[i].detach() + 2 * epsilon / steps * gradient[i] / gradient[i].norm()
                shift = row - d[i]
                row = d[i] + shift * min(1.0, epsilon / float(shift.norm()))
                row = (row - row.mean()) / row.square().mean().sqrt() * d[i].square().mean().sqrt() + d[i].mean()
                rows.append(row)
            moved = torch.stack(rows)
        worst.append(moved.detach())
    network.train()
    far = [
        F.kl_div(part.log_softmax(1), target, reduction="none").sum(1)
        for part in network(torch.cat([x + d for d in worst])).chunk(copies)
    ]
    low, high = 0.0, 0.0
    for i in range(len(x)):
        losses = sorted(
            (F.cross_entropy(part[i : i + 1], y[i : i + 1]) for part in parts), key=lambda v: float(v.detach())
        )
        low = low + sum(losses[: accepted[i]]) / copies / len(x)
        if accepted[i] == copies:
            high = high + max((part[i] for part in far), key=lambda v: float(v.detach())) / len(x)
    assert 0 < sum(a == copies for a in accepted) < len(x)
    same(network, loss, low + weight * high, 1e-3)
    assert float(logs["confidence"]) == pytest.approx(float(right.mean()))


def test_attacks_run_in_eval_mode_and_losses_in_train_mode(network):
    for objective, passes in ((smoothadv, 1), (smoothmix, 2), (cat_rs, 1)):
        network.modes.clear()
        objective(Network(network, network), BATCH, state())
        assert network.modes[-passes:] == [True] * passes
        assert False in network.modes
        assert network.training


def test_ddn_finds_the_boundary_of_a_linear_classifier():
    weight = torch.randn(48, 2, generator=torch.Generator().manual_seed(0))

    def linear(x):
        return x.flatten(1) @ weight.to(x.dtype)

    pixels = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(2)) * 0.4 + 0.3
    logits = linear(pixels)
    labels = logits.argmax(1)
    reach = (logits[:, 0] - logits[:, 1]).abs() / (weight[:, 0] - weight[:, 1]).norm()
    moved = ddn(linear, pixels, labels, largest=3.0, steps=100)
    assert (linear(moved).argmax(1) != labels).all()
    found = distance(moved, pixels, "l2")
    assert (found >= reach - 1e-6).all()
    assert (found <= 1.1 * reach + 0.02).all()
    near = ddn(linear, pixels, labels, largest=0.5 * reach, steps=20)
    assert (distance(near, pixels, "l2") <= 0.5 * reach.double()).all()
    assert (linear(near).argmax(1) == labels).all()


@pytest.mark.parametrize(
    ("objective", "wrong", "message"),
    [
        (smoothadv, {"epsilon": -1.0}, "SmoothAdv needs epsilon >= 0"),
        (smoothadv, {"attack": "cw"}, "attack 'pgd' or 'ddn'"),
        (smoothmix, {"steps": 1, "one_step": True}, "at least 2 steps"),
        (macer, {"gamma": 0.0}, "MACER needs weight >= 0, gamma > 0"),
        (stability, {"weight": -1.0}, "Stability training needs weight >= 0"),
        (cat_rs, {"steps": 0}, "CAT-RS needs"),
        (cat_rs, {"copies": 1}, "at least 2 copies, got 1"),
        (macer, {"copies": 1.5}, "a whole number of noisy copies, at least 1, got copies=1.5"),
        (macer, {"copies": 0}, "a whole number of noisy copies, at least 1, got copies=0"),
        (macer, {"weight": float("nan")}, "MACER needs weight >= 0"),
        (smoothadv, {"steps": 0}, "a whole number of steps, at least 1"),
    ],
)
def test_bad_settings(objective, wrong, message, network):
    with pytest.raises(ValueError, match=message):
        objective(Network(network, network), BATCH, state(), **wrong)


@pytest.mark.parametrize("objective", [macer, cat_rs, denoising, masked_denoising])
def test_label_smoothing_is_refused_where_it_has_no_place(objective, network):
    smoothed = ObjectiveState(MIXTURE, torch.Generator(), label_smoothing=0.1)
    with pytest.raises(ValueError, match="has no label smoothing, got 0.1"):
        objective(Network(network, network), BATCH, smoothed)


@pytest.mark.parametrize("objective", [smoothadv, smoothmix, macer, stability, cat_rs])
def test_without_noise_they_refuse(objective, network):
    with pytest.raises(ValueError, match="trains on noisy copies, but there is no noise"):
        objective(Network(network, network), BATCH, state(noise=None))


@pytest.mark.parametrize("name", ["smoothadv", "smoothmix", "macer", "stability", "cat-rs"])
def test_they_train_through_the_trainer_with_clean_images_in_the_mixture(name, tmp_path):
    noise = '{"sigmas": [0.1, 0.5], "clean": 0.3}'
    made = trainer(plain(), tmp_path, objective=name, noise=noise)
    made.train()
    assert all(torch.isfinite(p).all() for p in made.model.parameters())
