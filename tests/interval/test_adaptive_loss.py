"""The adaptive loss: equal to a slow twin, image by image, and doing what it is for."""

import gc
import itertools
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import weight_norm as old_weight_norm
from torch.nn.utils.parametrizations import weight_norm

from hf_smoothing import NoiseMixture, RobustTrainer
from hf_smoothing.interval import Box, box_around, linf_certificates, margin_bounds
from hf_smoothing.interval.objectives import (
    adaptive_interval,
    cap_schedule,
    cc_ibp,
    exp_ibp,
    mtl_ibp,
    sabr,
    warm_up_regularisers,
)
from hf_smoothing.training import Batch, ObjectiveState
from tests.support.bounded_networks import images, network
from tests.support.tiny import arguments, data, smoothed


LARGEST = 0.02


def state(progress, **kwargs):
    return ObjectiveState(kwargs.pop("noise", None), torch.Generator().manual_seed(0), progress=progress, **kwargs)


def bisected(model, x, y, cap):
    """The certified radius of one image, by plain bisection on float64 bounds."""

    def worst(epsilon):
        return float(margin_bounds(model, box_around(x[None], epsilon), y[None]).worst.detach())

    if worst(0.0) <= 0.0:
        return 0.0
    if worst(cap) >= 0.0:
        return cap
    low, high = 0.0, cap
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if worst(middle) >= 0.0 else (low, middle)
    return low


def slow_loss(model, x, labels, cap, kappa, adaptive):
    """Written image by image from the formula, without warm-up terms."""
    total = 0.0
    for image, y in zip(x, labels, strict=True):
        radius = bisected(model, image, y, cap) if adaptive else cap
        lower = margin_bounds(model, box_around(image[None], radius), y[None]).lower[0]
        robust = math.log(1.0 + sum(math.exp(-float(m.detach())) for t, m in enumerate(lower) if t != int(y)))
        total += (1 - kappa) * robust + kappa * float(F.cross_entropy(model(image[None]), y[None]).detach())
    return total / len(x)


@pytest.mark.parametrize("name", ["mlp", "max pool", "residual"])
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000), kappa=st.floats(0.0, 1.0), adaptive=st.booleans())
def test_the_loss_equals_its_slow_twin(name, seed, kappa, adaptive):
    model, x = network(name, seed), images(5, seed=seed)
    labels = model(x).argmax(1)
    labels[0] = (labels[0] + 1) % 4  # one that is misclassified
    found, logs = adaptive_interval(
        model, Batch(x, labels), state(1.0), largest=LARGEST, kappa=kappa, adaptive=adaptive
    )
    expected = slow_loss(model, x, labels, LARGEST, kappa, adaptive)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert float(logs["cap"]) == pytest.approx(LARGEST)


def test_a_misclassified_image_gets_plain_cross_entropy():
    model, x = network("max pool"), images(4)
    labels = model(x).argmin(1)
    loss, logs = adaptive_interval(model, Batch(x, labels), state(1.0), largest=LARGEST, kappa=0.0)
    assert float(logs["radius"]) == 0.0
    assert float(loss.detach()) == pytest.approx(float(F.cross_entropy(model(x), labels).detach()), rel=1e-5)


def test_kappa_one_is_ordinary_training():
    model, x, labels = network("mlp"), images(4), torch.arange(4)
    loss, _ = adaptive_interval(model, Batch(x, labels), state(1.0), largest=LARGEST, kappa=1.0)
    assert float(loss.detach()) == pytest.approx(float(F.cross_entropy(model(x), labels).detach()), rel=1e-6)


def test_the_cap_grows_smoothly_from_nothing_to_the_largest():
    caps = [cap_schedule(p / 1000, 0.4, 0.1, 0.5) for p in range(1001)]
    assert caps[:101] == [0.0] * 101
    assert caps[600] == pytest.approx(0.4)
    assert set(caps[601:]) == {0.4}
    steps = [b - a for a, b in itertools.pairwise(caps[:601])]
    assert all(step >= 0.0 for step in steps)
    # Slopes match where the quartic quarter ends: at a share of 0.1 + 0.5 / 4.
    assert steps[224] == pytest.approx(steps[226], rel=0.02)
    assert cap_schedule(0.0, 0.4, 0.0, 0.0) == 0.4


def test_regularisers_are_zero_for_tight_balanced_layers_and_positive_for_exploding_ones():
    x = images(16)
    first = box_around(x, 0.01)
    balanced = Box(torch.cat([x, -x]) - 1e-4, torch.cat([x, -x]) + 1e-4)
    tight, balance = warm_up_regularisers(first, [balanced])
    assert float(tight) == 0.0
    assert float(balance) == pytest.approx(0.0, abs=1e-6)
    wide = Box(x + 0.1, x + 2.1)
    tight, balance = warm_up_regularisers(first, [wide])
    assert 0.9 < float(tight) <= 1.0  # (0.5 - 0.01 / 1) / 0.5
    assert float(balance) == pytest.approx(2.0)  # all units on, none off


@pytest.mark.parametrize(
    "name", sorted({"prelu", "threshold", "hardsigmoid", "logsigmoid", "softsign", "gelu", "relu", "none"})
)
def test_every_activation_counts_in_the_warm_up_and_none_is_nothing(name):
    layers = {
        "prelu": nn.PReLU(), "threshold": nn.Threshold(0.0, 0.0), "hardsigmoid": nn.Hardsigmoid(), "logsigmoid": nn.LogSigmoid(),
        "softsign": nn.Softsign(), "gelu": nn.GELU(), "relu": nn.ReLU(), "none": nn.Identity(),
    }  # fmt: skip
    first = box_around(images(2), 0.05)
    nn.Sequential(nn.Flatten(), layers[name].double())(first)
    noted = first.trace.before_activations
    assert len(noted) == (name != "none")
    tight, balance = warm_up_regularisers(first, noted)
    assert (float(tight), float(balance)) == (0.0, 0.0) if name == "none" else bool(torch.isfinite(tight + balance))


def test_warm_up_adds_regularisers_that_fade_and_l1_adds_weights():
    model, x, labels = network("mlp"), images(6), torch.arange(6) % 4
    early, logs = adaptive_interval(model, Batch(x, labels), state(0.2), largest=LARGEST, regularisation=0.5)
    without, _ = adaptive_interval(model, Batch(x, labels), state(0.2), largest=LARGEST, regularisation=0.0)
    cap = float(logs["cap"])
    assert 0.0 < cap < LARGEST
    extra = (1 - cap / LARGEST) * 0.5 * float((logs["tight"] + logs["balance"]).detach())
    assert float((early - without).detach()) == pytest.approx(extra, rel=1e-4)
    late = adaptive_interval(model, Batch(x, labels), state(1.0), largest=LARGEST)[1]
    assert "tight" not in late
    plain, _ = adaptive_interval(model, Batch(x, labels), state(1.0), largest=LARGEST)
    heavy, _ = adaptive_interval(model, Batch(x, labels), state(1.0), largest=LARGEST, l1=0.01)
    weights = sum(float(m.weight.detach().abs().sum()) for m in model.modules() if isinstance(m, nn.Linear))
    assert float((heavy - plain).detach()) == pytest.approx(0.01 * weights, rel=1e-4)


class Twice(nn.Module):
    """Calls one layer three times, transposed as well, beside a frozen layer and constants."""

    def __init__(self, wrap):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.again, self.last = nn.Linear(192, 8), wrap(nn.Linear(8, 8)), nn.Linear(8, 4)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.register_buffer("mixing", torch.randn(8, 8))

    def forward(self, x):
        h = torch.relu(self.first(x.flatten(1)))
        for _ in range(2):
            h = torch.relu(self.again(h))
        h = h @ self.again.weight + self.frozen(h) @ self.mixing
        return self.last(h)

    def weights(self):
        return [self.first.weight, self.again.weight, self.last.weight]


class Halves(nn.Module):
    """Two layers out of one parameter."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.both, self.first = nn.Parameter(torch.randn(8, 8)), nn.Linear(192, 4)

    def forward(self, x):
        upper, lower = self.both.chunk(2)
        return F.linear(F.linear(self.first(x.flatten(1)), upper[:, :4]), lower[:, 4:])

    def weights(self):
        return [self.first.weight, self.both[:4, :4], self.both[4:, 4:]]


@pytest.mark.parametrize("objective", [adaptive_interval, sabr, mtl_ibp, cc_ibp, exp_ibp])
@pytest.mark.parametrize("model", [
    lambda: Twice(lambda layer: layer), lambda: Twice(weight_norm), lambda: Twice(old_weight_norm), Halves,
], ids=["shared", "weight norm", "older weight norm", "halves"])  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
def test_l1_counts_each_trained_weight_once(model, objective):
    model, batch = model().double(), Batch(images(4), torch.arange(4) % 4)
    without, _ = objective(model, batch, state(1.0), largest=LARGEST)
    heavy, _ = objective(model, batch, state(1.0), largest=LARGEST, l1=0.01)
    wanted = 0.01 * sum(float(weight.detach().abs().sum()) for weight in model.weights())
    assert float((heavy - without).detach()) == pytest.approx(wanted, rel=1e-4)
    heavy.backward()


def test_l1_without_a_trained_weight():
    model = Twice(lambda layer: layer).double().requires_grad_(False)
    batch = Batch(images(4), torch.arange(4) % 4)
    losses = [adaptive_interval(model, batch, state(1.0), largest=LARGEST, l1=l1)[0] for l1 in (0.0, 1.0)]
    assert losses[0] == losses[1]


def test_gradients_reach_every_parameter_and_running_statistics_move_once():
    model, x, labels = network("max pool").train(), images(8), torch.arange(8) % 4
    norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    before, mean = norm.running_mean.clone(), model[0](x).mean((0, 2, 3)).detach()
    adaptive_interval(model, Batch(x, labels), state(1.0), largest=LARGEST, kappa=0.0)[0].backward()
    assert torch.allclose(norm.running_mean, 0.9 * before + 0.1 * mean)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"largest": 0.0}, "`largest` must be above 0 and at most 1"),
        ({"largest": 8.0}, "Divide steps of 0..255 by 255"),
        ({"largest": 0.1, "kappa": 1.5}, "`kappa` must be a share in"),
        ({"largest": 0.1, "ramp_share": 1.2}, "`ramp_share` must be a share in"),
        ({"largest": 0.1, "clean_share": -0.1}, "`clean_share` must be a share in"),
        (
            {"largest": 0.1, "clean_share": 0.6, "ramp_share": 0.6},
            "their sum must be at most 1.* the ramp can take 0.4",
        ),
        ({"largest": 0.1, "l1": -1e-6}, "`l1` must be a weight of a penalty, finite and >= 0, got -1e-06"),
        ({"largest": 0.1, "l1": float("nan")}, "`l1` must be a weight"),
        ({"largest": 0.1, "regularisation": -1}, "`regularisation` must be a weight"),
        ({"largest": 0.1, "regularisation": float("inf")}, "`regularisation` must be a weight"),
    ],
)
def test_settings_out_of_range_are_refused(settings_, message):
    model, x = network("mlp"), images(2)
    with pytest.raises(ValueError, match=message):
        adaptive_interval(model, Batch(x, torch.arange(2)), state(0.5), **settings_)


def test_noise_is_refused():
    model, x = network("mlp"), images(2)
    with pytest.raises(ValueError, match="trained on clean images, but there is training noise"):
        adaptive_interval(model, Batch(x, torch.arange(2)), state(0.5, noise=NoiseMixture((0.5,))), largest=0.1)
    with pytest.raises(ValueError, match="trained on clean images, but the model owns the noise and may add it"):
        adaptive_interval(model, Batch(x, torch.arange(2)), state(0.5, noise_owner="model"), largest=0.1)


@pytest.mark.parametrize("adaptive", [True, False])
def test_it_trains_certified_radii_through_the_trainer(adaptive, tmp_path):
    torch.manual_seed(0)
    model = smoothed("resnet")
    before = linf_certificates(model, data(24).pixels, largest=0.01)[1].mean()
    objective = partial(adaptive_interval, largest=0.01, kappa=0.0, adaptive=adaptive, clean_share=0.0, ramp_share=0.5)
    args = arguments(tmp_path, max_steps=60, learning_rate=0.05, logging_strategy="steps", logging_steps=10)
    trainer = RobustTrainer(model, args, objective=objective, train_dataset=data(24))
    trainer.train()
    after = linf_certificates(trainer.model.eval(), data(24).pixels, largest=0.01)[1].mean()
    assert after > 20 * before
    assert {"standard", "robust", "radius", "cap"} <= trainer.state.log_history[0].keys()


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("cap", [1e-12, 1e-9, 1e-7, 2e-6, 1e-4])
def test_gradients_are_finite_where_the_cap_begins_to_grow(cap, adaptive):
    """Boxes narrower than the resolution of float32 have no width of which a ratio could be taken."""
    model, x = network("max pool").float().train(), images(6).float()
    slope = 0.25**3 * (0.25 + 4 * 0.75)
    progress = (cap * slope / LARGEST) ** 0.25  # where the quartic beginning of the ramp has this cap
    assert cap_schedule(progress, LARGEST, 0.0, 1.0) == pytest.approx(cap)
    with torch.no_grad():
        labels = model(x).argmax(1)
    loss, logs = adaptive_interval(
        model, Batch(x, labels), state(progress), largest=LARGEST, adaptive=adaptive, clean_share=0.0, ramp_share=1.0
    )
    loss.backward()
    assert torch.isfinite(loss)
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)
    assert ("tight" in logs) == (cap >= 1e-6)


def test_no_box_waits_for_the_garbage_collector():
    """Or the activations of several steps are in memory at once."""
    model, x = network("max pool").train(), images(6)
    gc.collect()
    gc.disable()
    try:
        loss, logs = adaptive_interval(model, Batch(x, torch.arange(6) % 4), state(0.2), largest=LARGEST)
        loss.backward()
        linf_certificates(model.eval(), x, largest=LARGEST)
        linf_certificates(model, x, largest=LARGEST, backward="optimised")
        left = sum(type(one) is Box for one in gc.get_objects())
    finally:
        gc.enable()
    assert left == 0
    assert "tight" in logs
