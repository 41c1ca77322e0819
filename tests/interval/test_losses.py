"""SABR, MTL-IBP, CC-IBP and Exp-IBP: equal to slow twins, image by image, and to simpler losses at their ends."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hf_smoothing import RobustTrainer
from hf_smoothing.interval import linf_certificates
from hf_smoothing.interval.objectives import adaptive_interval, cc_ibp, exp_ibp, mtl_ibp, sabr
from hf_smoothing.training import Batch, ObjectiveState
from tests.support.bounded_networks import images, network
from tests.support.tiny import arguments, data, smoothed


LARGEST = 0.02
MIXED = {"mtl-ibp": mtl_ibp, "cc-ibp": cc_ibp, "exp-ibp": exp_ibp}
LOSSES = {"sabr": sabr, **MIXED}


def state(progress=1.0, **kwargs):
    return ObjectiveState(None, torch.Generator().manual_seed(0), progress=progress, **kwargs)


def cross_entropy(margins):
    """Of a list of f_y - f_t for t != y."""
    return torch.log(1.0 + sum(torch.exp(-margin) for margin in margins))


def slow_bounds(model, lower, upper, y):
    """The bounds of one image's margins by plain interval arithmetic, the last layer merged with the differences."""
    *layers, last = model
    for layer in layers:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            centre, half = layer((lower + upper) / 2), (upper - lower) / 2
            if isinstance(layer, nn.Linear):
                half = F.linear(half, layer.weight.abs())
            else:
                half = F.conv2d(half, layer.weight.abs(), None, layer.stride, layer.padding)
            lower, upper = centre - half, centre + half
        elif isinstance(layer, nn.BatchNorm2d):
            ends = layer(lower), layer(upper)
            lower, upper = torch.minimum(*ends), torch.maximum(*ends)
        else:
            lower, upper = layer(lower), layer(upper)
    margins = []
    for t in range(len(last.weight)):
        if t != y:
            weight = last.weight[y] - last.weight[t]
            least = torch.where(weight > 0, lower[0], upper[0])
            margins.append(weight @ least + last.bias[y] - last.bias[t])
    return margins


def slow_margins(model, point, y):
    logits = model(point)[0]
    return [logits[y] - logits[t] for t in range(len(logits)) if t != y]


def slow_attack(model, x, y, radius, start, steps, step_size):
    """Sign ascent from `start` in [-1, 1], in the ball and in [0, 1]."""
    point = (x + radius * start).clamp(0, 1)
    for _ in range(steps):
        point = point.detach().requires_grad_()
        loss = F.cross_entropy(model(point), torch.tensor([y]))
        (gradient,) = torch.autograd.grad(loss, point)
        point = point.detach() + step_size * radius * gradient.sign()
        point = torch.minimum(torch.maximum(point, x - radius), x + radius).clamp(0, 1)
    return point


def slow_radius(model, x, y, cap):
    """The certified radius of one image by bisection."""

    def wins(radius):
        return bool(min(slow_bounds(model, (x - radius).clamp(min=0), (x + radius).clamp(max=1), y)) >= 0.0)

    if not wins(0.0):
        return 0.0
    if wins(cap):
        return cap
    low, high = 0.0, cap
    for _ in range(50):
        low, high = ((low + high) / 2, high) if wins((low + high) / 2) else (low, (low + high) / 2)
    return low


def slow_loss(name, model, x, labels, weight, adaptive, steps, step_size, scale):
    """Written image by image from the formulas of the papers."""
    starts = 2.0 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1.0
    losses = []
    for image, y, start in zip(x[:, None], labels.tolist(), starts[:, None], strict=True):
        radius = slow_radius(model, image, y, LARGEST) if adaptive else LARGEST
        attacked = slow_attack(model, image, y, scale * radius, start, steps, step_size)
        if name == "sabr":
            room, half = (1 - weight) * radius, weight * radius
            centre = torch.minimum(torch.maximum(attacked, image - room), image + room)
            losses.append(
                cross_entropy(slow_bounds(model, (centre - half).clamp(min=0), (centre + half).clamp(max=1), y))
            )
            continue
        upper = slow_bounds(model, (image - radius).clamp(min=0), (image + radius).clamp(max=1), y)
        lower = slow_margins(model, attacked, y)
        if name == "mtl-ibp":
            losses.append((1 - weight) * cross_entropy(lower) + weight * cross_entropy(upper))
        elif name == "cc-ibp":
            losses.append(cross_entropy([(1 - weight) * a + weight * b for a, b in zip(lower, upper, strict=True)]))
        else:
            losses.append(cross_entropy(lower) ** (1 - weight) * cross_entropy(upper) ** weight)
    return sum(losses) / len(losses)


@pytest.mark.filterwarnings("ignore:The gradient of the loss is exactly 0")  # a random network may be dead
@pytest.mark.parametrize("kind", ["mlp", "max pool"])
@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 1000), weight=st.floats(0.05, 0.95), adaptive=st.booleans(), steps=st.integers(1, 3),
    step_size=st.sampled_from([0.5, 10.0]), scale=st.sampled_from([1.0, 2.1]),
)  # fmt: skip
def test_a_loss_and_its_gradients_equal_the_slow_twin(name, kind, seed, weight, adaptive, steps, step_size, scale):
    model, x = network(kind, seed), images(5, seed=seed)
    labels = model(x).argmax(1)
    labels[0] = (labels[0] + 1) % 4  # one that is misclassified
    given_ = {"share": weight} if name == "sabr" else {"alpha": weight, "attack_scale": scale}
    found, _ = LOSSES[name](
        model,
        Batch(x, labels),
        state(),
        largest=LARGEST,
        adaptive=adaptive,
        steps=steps,
        step_size=step_size,
        **given_,
    )
    scale = 1.0 if name == "sabr" else scale
    expected = slow_loss(name, model, x, labels, weight, adaptive, steps, step_size, scale)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    for one, two in zip(*(torch.autograd.grad(loss, list(model.parameters())) for loss in (found, expected)), strict=True):  # fmt: skip
        assert torch.allclose(one, two, rtol=1e-3, atol=1e-4 * float(two.abs().max()) + 1e-9)


def value_and_gradients(loss, model):
    return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


def same(first, second, model, rtol=1e-6):
    pairs = zip(value_and_gradients(first, model), value_and_gradients(second, model), strict=True)
    return all(torch.allclose(a, b, rtol=rtol, atol=1e-9) for a, b in pairs)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_the_upper_end_is_training_on_interval_bounds(name, adaptive, training):
    model, x = network("max pool").train(training), images(6)
    batch = Batch(x, torch.arange(6) % 4)
    end = {"share": 1.0} if name == "sabr" else {"alpha": 1.0}
    found, logs = LOSSES[name](model, batch, state(), largest=LARGEST, adaptive=adaptive, **end)
    plain, others = adaptive_interval(model, batch, state(), largest=LARGEST, adaptive=adaptive, kappa=0.0)
    assert same(found, plain, model)
    assert float(logs["radius"]) == float(others["radius"])


@pytest.mark.parametrize("name", LOSSES)
def test_the_lower_end_is_adversarial_training(name):
    model, x = network("max pool"), images(6)
    labels = torch.arange(6) % 4
    end = {"share": 0.0} if name == "sabr" else {"alpha": 0.0}
    found, _ = LOSSES[name](model, Batch(x, labels), state(), largest=LARGEST, steps=2, step_size=1.0, **end)
    starts = 2.0 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1.0
    attacked = [
        slow_attack(model, image, int(y), LARGEST, start, 2, 1.0)
        for image, y, start in zip(x[:, None], labels, starts[:, None], strict=True)
    ]
    assert same(found, F.cross_entropy(model(torch.cat(attacked)), labels), model, rtol=1e-4)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_without_a_radius_it_is_plain_cross_entropy(name, training):
    model, x = network("max pool").train(training), images(6)
    labels = torch.arange(6) % 4
    found, logs = LOSSES[name](model, Batch(x, labels), state(0.0), largest=LARGEST, clean_share=0.5)
    assert float(logs["cap"]) == 0.0
    assert same(found, F.cross_entropy(model(x), labels), model)


@pytest.mark.parametrize("name", LOSSES)
def test_the_clean_batch_gives_the_statistics_and_is_counted_once(name):
    """In train mode a step does what a network in eval mode does that has the statistics of the clean batch."""
    model, x = network("max pool").train(), images(8)
    labels = torch.arange(8) % 4
    norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    before = norm.running_mean.clone()
    frozen = copy.deepcopy(model).eval()
    inner = model[0](x).detach()
    mean, variance = inner.mean((0, 2, 3)), inner.var((0, 2, 3), correction=0)
    twin = next(module for module in frozen.modules() if isinstance(module, nn.BatchNorm2d))
    twin.running_mean.copy_(mean)
    twin.running_var.copy_(variance)
    settings_ = {"largest": LARGEST, "steps": 3, "step_size": 0.5, "adaptive": True}
    network_ = type("Network", (), {"module": model, "__call__": lambda self, given: model(given)})()
    found, _ = LOSSES[name](network_, Batch(x, labels), state(), **settings_)
    expected, _ = LOSSES[name](frozen, Batch(x, labels), state(), **settings_)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    assert torch.allclose(norm.running_mean, 0.9 * before + 0.1 * mean)
    assert int(norm.num_batches_tracked) == 1
    found.backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())


def test_a_sure_network_has_finite_gradients():
    """Cross-entropies that underflow to 0 have no logarithm."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    nn.init.zeros_(model[1].weight)
    model[1].weight.data[0, 0] = 1e-3
    model[1].bias.data = torch.tensor([300.0, 0.0])
    loss, _ = exp_ibp(model, Batch(torch.rand(3, 3, 2, 2), torch.zeros(3).long()), state(), largest=LARGEST)
    loss.backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "given_", "message"),
    [
        ("sabr", {"share": 1.5}, r"`share` must be a share in \[0, 1\], got 1.5"),
        *((name, {"alpha": -0.1}, r"`alpha` must be a share in \[0, 1\], got -0.1") for name in MIXED),
        ("sabr", {"steps": 0}, "steps, at least 1"),
        ("mtl-ibp", {"step_size": 0.0}, "a `step_size` > 0"),
        ("mtl-ibp", {"attack_scale": 0.0}, "`attack_scale` > 0"),
        ("mtl-ibp", {"attack_scale": 100.0}, "attack_scale"),
        ("mtl-ibp", {"kappa": 2.0}, "`kappa` must be a share in"),
        *((name, {"l1": -1.0}, "`l1` must be a weight of a penalty") for name in LOSSES),
        *((name, {"regularisation": -1.0}, "`regularisation` must be a weight of a penalty") for name in LOSSES),
    ],
)
def test_settings_out_of_range_are_refused(name, given_, message):
    batch = Batch(images(2), torch.arange(2))
    with pytest.raises(ValueError, match=message):
        LOSSES[name](network("mlp"), batch, state(), **{"largest": LARGEST} | given_)


@pytest.mark.parametrize("name", LOSSES)
def test_it_trains_certified_radii_through_the_trainer(name, tmp_path):
    torch.manual_seed(0)
    model = smoothed("resnet")
    before = linf_certificates(model, data(24).pixels, largest=0.01)[1].mean()
    args = arguments(
        tmp_path, max_steps=60, learning_rate=0.05, logging_strategy="steps", logging_steps=10, objective=name,
        objective_args={"largest": 0.01, "clean_share": 0.0, "ramp_share": 0.5},
    )  # fmt: skip
    trainer = RobustTrainer(model, args, train_dataset=data(24))
    trainer.train()
    after = linf_certificates(trainer.model.eval(), data(24).pixels, largest=0.01)[1].mean()
    assert after > 5 * before
    assert {"standard", "robust", "radius", "cap"} <= trainer.state.log_history[0].keys()
    assert trainer.model.config.hf_smoothing["objective"]["name"] == name
    assert trainer.model.config.hf_smoothing["objective"]["steps"] == (8 if name == "sabr" else 1)


def test_the_warm_up_of_a_small_box_looks_at_that_box():
    model, batch = network("mlp"), Batch(images(6), torch.arange(6) % 4)
    run = partial(sabr, model, batch, largest=LARGEST, share=0.3, clean_share=0.0)
    loss, logs = run(state(0.2), regularisation=0.5)
    without, _ = run(state(0.2), regularisation=0.0)
    extra = (1 - float(logs["cap"]) / LARGEST) * 0.5 * float((logs["tight"] + logs["balance"]).detach())
    assert extra > 0.0
    assert float((loss - without).detach()) == pytest.approx(extra, rel=1e-4)


class InPlace(nn.Module):
    """Changes the pixels that it is given."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        x -= 0.5
        return self.network(x)


@pytest.mark.parametrize("name", LOSSES)
def test_a_network_may_change_its_pixels_in_place(name):
    model, x, labels = network("mlp"), images(4), torch.arange(4)
    before = x.clone()
    found, _ = LOSSES[name](InPlace(model), Batch(x, labels), state(), largest=LARGEST)
    assert torch.equal(x, before)
    shifted = nn.Sequential(nn.Identity(), *model)
    shifted[2] = copy.deepcopy(model[1])
    shifted[2].bias.data = model[1].bias - 0.5 * model[1].weight.sum(1)
    expected, _ = LOSSES[name](shifted, Batch(x, labels), state(), largest=LARGEST)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
