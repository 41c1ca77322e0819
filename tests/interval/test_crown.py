"""Backward linear bounds: sound, and used only where they tighten."""

import copy
import itertools
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_smoothing.interval import Trace, box_around, classify_function, linf_certificates, margin_bounds
from hf_smoothing.interval.crown import backward_margins
from hf_smoothing.interval.search import BACKWARD, trace_for
from tests.support.bounded_networks import BUILDERS, images, network


def logits(classify, x):
    output = classify(x)
    return getattr(output, "logits", output)


def both(classify, x, epsilon, labels, outward=True):
    """Margins by intervals alone, and with backward bounds."""
    found = [
        margin_bounds(classify, box_around(x, epsilon, Trace(outward=outward, origins=origins)), labels).lower.detach()
        for origins in (False, True)
    ]
    return found[0], found[1]


def check_soundness(name, seed, epsilon, count=8):
    size = 16 if "resnet" in name else 8
    classify, x = classify_function(network(name, seed)), images(2, size, seed)
    labels = torch.tensor([0, 2])
    lower = both(classify, x, epsilon, labels)[1]
    generator = torch.Generator().manual_seed(seed)
    for k in range(count):
        noise = 2 * torch.rand(x.shape, generator=generator, dtype=x.dtype) - 1
        y = (x + epsilon * (noise.sign() if k % 2 else noise)).clamp(0, 1)
        out = logits(classify, y).detach()
        gaps = out.gather(1, labels[:, None]) - out
        assert (gaps >= lower).masked_fill(lower.isinf(), True).all()


@pytest.mark.parametrize("name", [*BUILDERS, "resnet", "plain resnet"])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000), epsilon=st.floats(0.0, 0.3))
def test_no_point_of_the_box_has_a_smaller_margin(name, seed, epsilon):
    check_soundness(name, seed, epsilon)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*BUILDERS, "resnet", "plain resnet"])
@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 10**9), epsilon=st.floats(0.0, 0.3))
def test_no_point_of_the_box_has_a_smaller_margin_in_thousands_of_cases(name, seed, epsilon):
    check_soundness(name, seed, epsilon)


@pytest.mark.parametrize("name", [*BUILDERS, "resnet", "plain resnet"])
def test_they_are_used_only_where_they_tighten(name):
    size = 16 if "resnet" in name else 8
    classify, x = classify_function(network(name)), images(4, size)
    labels = torch.arange(4) % 3
    for epsilon in (0.0, 0.001, 0.02):
        intervals, backward = both(classify, x, epsilon, labels)
        assert (backward >= intervals).all()


@pytest.mark.parametrize("name", ["mlp", "average pool", "resnet", "plain resnet", "no head"])
def test_they_do_tighten(name):
    size, epsilon = (16, 0.002) if "resnet" in name else (8, 0.02)
    classify, x = classify_function(network(name)), images(4, size)
    intervals, backward = both(classify, x, epsilon, torch.arange(4) % 3)
    assert (backward > intervals + 1e-3).any()


def test_an_affine_network_is_bounded_exactly():
    """Without an activation the backward bound is the exact minimum, which intervals of a residual network are not."""
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.AvgPool2d(2), torch.nn.Flatten(),
        torch.nn.Linear(64, 8), torch.nn.Linear(8, 3),
    ).double().eval()  # fmt: skip
    x, epsilon, labels = images(3), 0.03, torch.tensor([0, 1, 2])
    intervals, backward = both(model, x, epsilon, labels)
    low, high = (x - epsilon).clamp(min=0), (x + epsilon).clamp(max=1)
    for i, y in enumerate(labels.tolist()):
        for t in range(3):
            if t != y:
                pixels = x[i : i + 1].clone().requires_grad_()
                out = model(pixels)[0]
                (slope,) = torch.autograd.grad(out[y] - out[t], pixels)
                corner = torch.where(slope > 0, low[i : i + 1], high[i : i + 1])
                exact = float((model(corner)[0, y] - model(corner)[0, t]).detach())
                assert float(backward[i, t]) == pytest.approx(exact, abs=1e-9)
                assert float(backward[i, t]) <= exact
    assert (backward > intervals + 1e-3).any()


@pytest.mark.parametrize("seed", range(20))
def test_rounding_is_bounded_where_constants_cancel(seed):
    """A batch norm whose shift is the difference of two huge numbers, and two branches that nearly cancel, against exact arithmetic."""
    generator = torch.Generator().manual_seed(seed)
    norm = torch.nn.BatchNorm1d(6, eps=0.0).double().eval()
    norm.running_var.fill_(1.0)  # so that the scale is the weight, exactly
    norm.weight.data.uniform_(0.1, 1.0, generator=generator)
    norm.running_mean.uniform_(1e15, 2e15, generator=generator)
    norm.bias.data.copy_(norm.running_mean * norm.weight.data)
    head = torch.randn(2, 6, generator=generator, dtype=torch.float64)

    def classify(x):
        y = norm(x)
        return torch.nn.functional.linear(y + 3.0 * y - 4.0 * y + y, head)

    x = torch.rand(1, 6, generator=generator, dtype=torch.float64)
    columns = (norm.weight, norm.running_mean, norm.bias, x[0])
    values = [[Fraction(v) for v in column.tolist()] for column in columns]
    exact_head = [Fraction(a) - Fraction(b) for a, b in zip(*head.tolist(), strict=True)]
    outputs = [w * (v - m) + b for w, m, b, v in zip(*values, strict=True)]
    exact = sum(h * y for h, y in zip(exact_head, outputs, strict=True))
    trace = Trace(outward=True, origins=True)
    logits = classify(box_around(x, 0.0, trace))
    lower = backward_margins(logits, torch.tensor([0]))[0, 1].detach()
    assert Fraction(float(lower)) <= exact


def test_radii_grow_from_each_bound_to_the_next():
    model, x = network("mlp"), images(12, 8)
    found = [linf_certificates(model, x, largest=0.2, backward=backward) for backward in BACKWARD]
    for (classes, radii), (same, larger) in itertools.pairwise(found):
        assert torch.equal(classes, same)
        assert (larger >= radii).all()
        assert larger.mean() > 1.02 * radii.mean()


BENT = {
    "relu": lambda x: x.relu(),
    "relu6": lambda x: F.relu6(3 * x),
    "hardtanh": F.hardtanh,
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "clamp above": lambda x: x.clamp(max=0.25),
    "clamp to infinity": lambda x: x.clamp(0.0, float("inf")),
    "hardtanh from afar": lambda x: F.hardtanh(x, -1e308, 0.5),
    "leaky": lambda x: F.leaky_relu(x, 0.1),
    "steep": lambda x: F.leaky_relu(x, 1.5),
    "prelu": lambda x: F.prelu(x, torch.tensor([-0.5, 0.25]).repeat(8).to(x.dtype)),
    "abs": lambda x: x.abs(),
    "maximum": lambda x: torch.maximum(x, x.flip(1)),
    "minimum": lambda x: torch.minimum(x, x.flip(1)),
    "half": lambda x: torch.maximum(x, torch.full((16,), 0.125)),
}


def bent_network(name, seed=0):
    """Two hidden layers, 2 labels and an image."""
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(*shape, generator=generator).double() for shape in ((16, 2), (16, 16), (2, 16))]
    function = BENT[name]

    def classify(x):
        return F.linear(function(F.linear(function(F.linear(x, weights[0])), weights[1])), weights[2])

    return classify, torch.rand(3, 2, generator=generator).double()


@pytest.mark.parametrize("name", BENT)
def test_piecewise_linear_functions_have_lines_too(name):
    """On a fine grid of two pixels: each bound holds, and is no looser than the one before; from intervals to lines it is tighter."""
    tighter = 0
    for seed in range(6):
        classify, x = bent_network(name, seed)
        epsilon, labels = 0.15, torch.zeros(3, dtype=torch.int64)
        low, high = (x - epsilon).clamp(min=0), (x + epsilon).clamp(max=1)
        steps = torch.cartesian_prod(torch.linspace(0, 1, 101), torch.linspace(0, 1, 101)).double()
        logits = classify((low[:, None] + steps * (high - low)[:, None]).flatten(0, 1)).unflatten(0, (3, -1))
        least = (logits[..., 0] - logits[..., 1]).amin(1)
        lower = []
        for backward in BACKWARD:
            box = box_around(x, epsilon, trace_for(backward, 20, cover_run=False))
            lower.append(margin_bounds(classify, box, labels).lower[:, 1].detach())
        for cheap, tight in itertools.pairwise(lower):
            assert (tight >= cheap - 1e-12).all()
        assert (lower[-1] <= least).all()
        tighter += int((lower[1] > lower[0] + 1e-3).sum())
        if seed == 0:
            assert (lower[-1] > lower[1]).any()
    assert tighter


def test_optimised_slopes_find_the_best_lines():
    """relu(t) - t / 2 + 1/10 = |t| / 2 + 1/10 is at least 1/10, which only the line of slope 1/2 shows."""

    def classify(x):
        t = x - 0.5
        return torch.cat([t.relu() - 0.5 * t + 0.1, 0 * t], 1)

    x, labels = torch.tensor([[0.6]]).double(), torch.zeros(1, dtype=torch.int64)
    margins = [
        float(margin_bounds(classify, box_around(x, 0.5, trace_for(b, 100, cover_run=False)), labels).lower[0, 1])
        for b in BACKWARD
    ]
    assert margins[:3] == pytest.approx([-0.15, -0.1, -0.1])
    assert 0.0 < margins[3] <= 0.1  # and no more steps once it is certified


def test_the_bounds_of_a_float32_network_are_added_up_in_float64():
    model, x = network("mlp").float(), images(3)
    margins = [
        margin_bounds(net, box_around(x, 0.02, Trace(outward=True, origins=True), dtype=dtype), torch.arange(3)).lower
        for net, dtype in ((model, torch.float32), (copy.deepcopy(model).double(), torch.float64))
    ]
    assert torch.allclose(margins[0], margins[1], rtol=1e-12, atol=1e-12)
