"""Certificates of runs in floating point: they hold for the network as it is run, and a network that notices rounding gets none."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hf_smoothing.interval import (
    Box,
    Trace,
    UnsupportedOperationError,
    box_around,
    certify_dataset_linf,
    linf_certificates,
)
from hf_smoothing.interval.rounding import FLUSHED
from hf_smoothing.interval.search import trace_for
from hf_smoothing.records import RunError
from tests.support.bounded_networks import BUILDERS, Hidden, broken, images, network, pixels
from tests.support.tiny import data, smoothed


class Absorbed(nn.Module):
    """Logits (q - 1/4, 0) with q = (x + 2^24) - 2^24: x in real arithmetic, 0 in a float32 run."""

    def forward(self, x):
        q = (x.flatten(1)[:, :1] + 2.0**24) - 2.0**24
        return torch.cat([q - 0.25, torch.zeros(len(x), 1)], 1)


class Ordered(nn.Module):
    """2^25 + x - 2^25 as one linear layer: what a run makes of it depends on the order of its summation."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[2.0**25, 1.0, -(2.0**25)], [0.0, 0.0, 0.0]]))
        self.bias = nn.Parameter(torch.tensor([-0.25, 0.0]))

    def forward(self, x):
        one = torch.ones(len(x), 1)
        return nn.functional.linear(torch.cat([one, x.flatten(1)[:, :1], one], 1), self.weight, self.bias)


class Pooled(nn.Module):
    """The same in a mean."""

    def forward(self, x):
        h = x.flatten(1)[:, :1]
        q = torch.cat([h, h * 0 + 2.0**26, h * 0 - 2.0**26], 1).mean(1, keepdim=True)
        return torch.cat([q - 1 / 12, torch.zeros(len(x), 1)], 1)


@pytest.mark.parametrize("backward", ["none", "optimised"])
@pytest.mark.parametrize("build", [Absorbed, Ordered, Pooled])
def test_a_network_that_notices_rounding_is_certified_in_real_arithmetic_only(build, backward):
    model, x = build().eval(), torch.tensor([0.75, 0.5, 0.875]).view(3, 1, 1, 1)
    classes, radii = linf_certificates(model, x, largest=0.5, backward=backward, cover_run=False)
    assert radii.tolist() == pytest.approx([0.5, 0.25, 0.5], abs=1e-6)
    if build is not Pooled:
        assert (model(x).argmax(1) != classes).all()  # at the images themselves
    assert not linf_certificates(model, x, largest=0.5, backward=backward)[1].any()


def test_covering_a_run_costs_little():
    model, x = network("max pool").float(), images(8).float()
    covered = linf_certificates(model, x, largest=0.4)
    exact = linf_certificates(model, x, largest=0.4, cover_run=False)
    assert torch.equal(covered[0], exact[0])
    assert (covered[1] <= exact[1] + 1e-8).all()
    assert (covered[1] < exact[1] - 1e-9).any()
    assert torch.allclose(covered[1], exact[1], atol=1e-3)


@pytest.mark.parametrize("name", BUILDERS)
def test_bounds_contain_runs_in_float32_and_whatever_order(name):
    """At the image itself, where nothing but rounding is in the box; the order changes with the batch and the layout."""
    model, x = network(name).float(), images(5).float()
    bounds = model(box_around(x.double(), 0.0, Trace(outward=True, cover_run=True), dtype=torch.float32))
    for y in (x, x.flip(0).contiguous().flip(0), x.contiguous(memory_format=torch.channels_last)):
        out = model(y).double()
        assert (out >= bounds.lower).all()
        assert (out <= bounds.upper).all()
    alone = torch.cat([model(x[k : k + 1]) for k in range(5)]).double()
    assert ((alone >= bounds.lower) & (alone <= bounds.upper)).all()
    exact = model(box_around(x.double(), 0.0, Trace(outward=True), dtype=torch.float32))
    assert not ((out >= exact.lower) & (out <= exact.upper)).all()  # so the coverage is needed


def test_8_bit_images_are_covered_where_float32_rounds_them():
    class Exact(nn.Module):
        """Logits (x - 1/255, 0) of the largest pixel."""

        def forward(self, x):
            return torch.cat([x.flatten(1)[:, :1] - float(np.float32(1 / 255)), torch.zeros(len(x), 1)], 1)

    x = torch.tensor([[[[1]]], [[[3]]]], dtype=torch.uint8)
    classes, radii = linf_certificates(Exact().eval(), x, largest=0.1)
    assert radii[0] == 0.0  # 1/255 and its neighbour in float32 differ
    assert 0.0 < float(radii[1]) <= 2 / 255
    assert classes[1] == 0


CONSTANTS = {
    "float": lambda x: (x - 0.485) / 0.229,
    "numpy": lambda x: (x - np.float64(0.485)) / np.float32(0.229),
    "tensors": lambda x: (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1),
    "scalar tensors": lambda x: (x - torch.tensor(0.485, dtype=torch.float64)) / torch.tensor(0.229),
    "integers": lambda x: (x * 255 - torch.tensor(124)) / torch.tensor([58, 57, 57], dtype=torch.uint8).view(3, 1, 1),
    "of its dtype": lambda x: (x - torch.tensor([0.485], dtype=x.dtype)) / torch.tensor([0.229], dtype=x.dtype, device=x.device),
    "options": lambda x: nn.functional.leaky_relu(x - 0.5, 0.1).clamp(-0.05, 0.3).add(x, alpha=0.1),
    "threshold": lambda x: nn.functional.hardtanh(nn.functional.threshold(x, 0.3, 0.1), 0.0, 0.7),
    "reverse": lambda x: 0.7 - 1.1 * x,
}  # fmt: skip


@pytest.mark.parametrize("backward", ["none", "optimised"])
@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_are_those_of_the_network_exactly(name, backward):
    """In float32 as the network has them: what float64 makes of exactly these numbers is within bounds that are rounded outward only."""
    x = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    trace = trace_for(backward, 3, cover_run=False)
    bounds = CONSTANTS[name](box_around(x.double(), 0.0, trace, dtype=torch.float32))
    # Each step of a float32 run is off by half a unit in the last place of its result at most, the steps before kept exact.
    run = CONSTANTS[name](x).double()
    assert torch.allclose(run, bounds.lower, rtol=1e-6, atol=1e-6)
    single = [float(torch.tensor(v)) for v in (0.485, 0.229, 0.456, 0.224, 0.406, 0.225)]
    if name in ("float", "numpy", "scalar tensors", "of its dtype"):
        exact = (x.double() - single[0]) / single[1]
    elif name == "tensors":
        mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (single[::2], single[1::2]))
        exact = (x.double() - mean) / std
    else:
        return
    assert ((exact >= bounds.lower) & (exact <= bounds.upper)).all()
    assert (bounds.upper - bounds.lower).max() < 1e-14 * 10


def test_a_normalised_linear_network_has_its_exact_radius():
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

    class Normalised(nn.Module):
        def forward(self, x):
            h = (x / std).flatten(1)
            return torch.stack([h[:, 0], h[:, 0] * 0 + 2.0], 1)

    x = torch.full((1, 3, 2, 2), 0.5)
    _, radii = linf_certificates(Normalised().eval(), x, largest=0.3, tolerance=1e-14, cover_run=False)
    exact = 0.5 - 2.0 * float(std[0])
    assert 0.0 <= exact - float(radii) < 1e-9


def test_what_no_certificate_covers_is_refused():
    x = pixels()
    model = Hidden(lambda self, h: h.relu()).eval()
    with torch.autocast("cpu"), pytest.raises(ValueError, match="do not cover runs under autocast"):
        linf_certificates(model, x, largest=0.1)
    half = Hidden(lambda self, h: h.relu()).eval().to(torch.bfloat16)
    with pytest.raises(ValueError, match=r"float32 or float64, got weights in torch.bfloat16. Call float\(\) first"):
        linf_certificates(half, x, largest=0.1)
    _, radii = linf_certificates(half, x, largest=0.1, cover_run=False)
    assert (radii > 0).any()
    inside = Hidden(lambda self, h: h.to(torch.bfloat16).relu().float()).eval()
    with pytest.raises(UnsupportedOperationError, match="'to'. A run in torch.bfloat16 is not covered"):
        linf_certificates(inside, x, largest=0.1)


def test_numbers_that_overflow_certify_nothing():
    model, x = Hidden(lambda self, h: (h * 1e30 * 1e20).tanh()).eval(), pixels()
    assert (linf_certificates(model, x, largest=0.1, cover_run=False)[1] > 0).any()
    with pytest.warns(UserWarning, match="No image of the batch has finite bounds"):
        assert not linf_certificates(model, x, largest=0.1)[1].any()
    assert (linf_certificates(model.double(), x, largest=0.1)[1] > 0).any()


def test_subnormal_numbers_may_be_flushed():
    class Tiny(nn.Module):
        def forward(self, x):
            h = x.flatten(1)[:, :1] * 1e-39
            return torch.cat([h * 1e39 - 0.25, torch.zeros(len(x), 1)], 1)

    x = torch.full((1, 1, 1, 1), 0.75)
    with pytest.warns(UserWarning, match="No image of the batch has finite bounds"):
        assert not linf_certificates(Tiny().eval(), x, largest=0.1)[1].any()


@contextlib.contextmanager
def _flushing():
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor keeps subnormal numbers")
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


TINY = {torch.float32: 1e-39, torch.float64: 1e-310}
JUMPS = {
    "an entry at 0, a threshold below": lambda tiny: (nn.ReLU(), nn.Threshold(-tiny, -5.0)),
    "an entry above, a threshold at 0": lambda tiny: (nn.Hardtanh(tiny, 1.0), nn.Threshold(0.0, -5.0)),
    "both below": lambda tiny: (nn.Hardtanh(-tiny, 1.0), nn.Threshold(-2.0 * tiny, -5.0)),
    "both above": lambda tiny: (nn.Hardtanh(2.0 * tiny, 1.0), nn.Threshold(tiny, -5.0)),
    "an entry just below the threshold": lambda tiny: (nn.Hardtanh(-2.0 * tiny, 1.0), nn.Threshold(-tiny, -5.0)),
}


@pytest.mark.parametrize("backward", ["none", "optimised"])
@pytest.mark.parametrize("dtype", TINY)
@pytest.mark.parametrize("name", JUMPS)
def test_a_jump_at_a_subnormal_number_certifies_no_side_of_it(name, dtype, backward):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2), *JUMPS[name](TINY[dtype]), nn.Linear(2, 2)).eval()
    with torch.no_grad():
        model[1].weight.fill_(0.1), model[1].bias.fill_(-1.0)
        (
            model[-1].weight.copy_(torch.tensor([[1.0, 1.0], [-1.0, -1.0]])),
            model[-1].bias.copy_(torch.tensor([1.0, -1.0])),
        )
    model, x = model.to(dtype), torch.full((1, 3, 1, 1), 0.5, dtype=dtype)
    assert not linf_certificates(model, x, largest=0.3, backward=backward)[1].any()
    model[-2] = nn.Threshold(-0.1, -5.0).eval()  # another jump is far away
    assert linf_certificates(model, x, largest=0.3, backward=backward)[1].all()


ELEMENTWISE = {
    **{name: getattr(F, name) for name in ("relu", "relu6", "hardtanh", "leaky_relu", "hardsigmoid", "logsigmoid", "softsign", "elu", "celu", "selu")},
    **{name: getattr(F, name) for name in ("gelu", "silu", "softplus")},
    **{name: getattr(torch, name) for name in ("sigmoid", "tanh", "exp", "abs", "square", "neg")},
    "sqrt": lambda x: x.abs().sqrt(),
    "threshold": lambda x: F.threshold(x, 1e-39, -5.0),
    "threshold 0": lambda x: F.threshold(x, 0.0, 0.0),
    "threshold -": lambda x: F.threshold(x, -1e-39, -1e-39),
    "steep leaky_relu": lambda x: F.leaky_relu(x, 1e30),
    "steep prelu": lambda x: F.prelu(x, x.new_tensor([-1e30]) if type(x) is torch.Tensor else torch.tensor([-1e30], dtype=x.dtype)),
    "steep elu": lambda x: F.elu(x, 1e30),
    "softplus at its jump": lambda x: F.softplus(x, 1.0, 0.0),
    "clamp": lambda x: x.clamp(1e-39, 2e-39),
    "maximum": lambda x: torch.maximum(x, torch.tensor(1e-39, dtype=x.dtype)),
    "product": lambda x: x * 1e38,
    "quotient": lambda x: x / 1e-37,
    "power": lambda x: x**3,
}  # fmt: skip


@pytest.mark.parametrize("dtype", TINY)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_a_run_that_flushes_is_within_the_bounds_of_its_entries(name, dtype):
    function, unit = ELEMENTWISE[name], TINY[dtype]
    points = unit * torch.tensor([-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0], dtype=torch.float64)[:, None]
    points = points.to(dtype).double()
    box = function(Box(points, points, Trace(outward=True, cover_run=True, tolerant=True), dtype=dtype, batch=0))
    with _flushing():
        runs = [function(points.to(dtype))]
    runs.append(function(points.to(dtype)))
    for run in runs:
        assert ((run >= box.lower - FLUSHED) & (run <= box.upper + FLUSHED)).all()


@pytest.mark.parametrize("cover_run", [True, False])
def test_images_that_get_no_certificate_keep_the_class_that_the_network_gives_them(cover_run):
    class Divided(nn.Module):
        """Logits (1/4, 2 - 1 / (1 + 1/x)): class 1, also where x is 0."""

        def forward(self, x):
            inner = 1.0 / (1.0 + 1.0 / x.flatten(1)[:, :1])
            return torch.cat([inner * 0.0 + 0.25, 2.0 - inner], 1)

    class Deep(nn.Module):
        """The first pixel decides, beside layers in which bounds of any width explode."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.ModuleList(nn.Linear(100, 100) for _ in range(40))

        def forward(self, x):
            h = x.flatten(1)
            for layer in self.layers:
                h = 3.0 * layer(h).tanh()
            return torch.cat([h[:, :1], x.flatten(1)[:, :1] - 0.5 + h[:, :1]], 1)

    zero = torch.tensor([0.0, 0.5]).view(2, 1, 1, 1)
    classes, radii = linf_certificates(Divided().eval(), zero, largest=0.1, cover_run=cover_run)
    assert classes.tolist() == [1, 1]
    assert radii.tolist() == [0.0, 0.1]
    model, x = Deep().eval(), torch.rand(8, 1, 10, 10, generator=torch.Generator().manual_seed(1))
    classes, radii = linf_certificates(model, x, largest=0.1, cover_run=cover_run)
    assert torch.equal(classes, model(x).argmax(1))
    assert len(classes.unique()) == 2
    assert not radii.any()


@pytest.mark.parametrize("backward", ["none", "optimised"])
def test_no_certificate_of_a_run_breaks(backward):
    model, x = Hidden(lambda self, h: self.second(h.relu()).sigmoid()).eval(), pixels()
    classes, radii = linf_certificates(model, x, largest=0.9, backward=backward)
    assert (radii > 0).any()
    assert broken(model, x, classes, radii) == 0


def test_the_record_says_what_is_covered(tmp_path):
    model, some = smoothed("resnet"), data(4)
    covered = certify_dataset_linf(model, some, tmp_path / "covered", largest=0.05, progress=False)
    assert covered.settings["rule"]["covers_run"] is True
    assert covered.settings["rule"]["name"] == "interval bounds, for float32 runs"
    exact = certify_dataset_linf(model, some, tmp_path / "exact", largest=0.05, cover_run=False, progress=False)
    assert exact.settings["rule"]["covers_run"] is False
    with pytest.raises(RunError, match="other settings"):
        certify_dataset_linf(model, some, tmp_path / "exact", largest=0.05, progress=False)


MASK = [0.0, 0.0, float("-inf"), 0.0]


class Masked(nn.Module):
    def __init__(self, mask, add=torch.add):
        super().__init__()
        torch.manual_seed(0)
        self.last, self.add = nn.Linear(12, 4), add
        self.register_buffer("mask", torch.tensor(mask))

    def forward(self, x):
        return self.add(self.last(x.flatten(1)), self.mask)


def test_classes_masked_by_infinity_get_the_cure_and_by_a_finite_number_certificates():
    x, cure = torch.rand(2, 3, 2, 2), "a large finite number in its place, such as -1e9"
    with pytest.raises(ValueError, match=f"the buffer mask holds -inf. To mask classes add {cure}"):
        linf_certificates(Masked(MASK).eval(), x, largest=0.05)
    for add in (
        lambda h, _: h + torch.tensor(MASK),
        lambda h, _: torch.tensor(MASK) + h,
        lambda h, _: h - torch.tensor([-number for number in MASK]),
        lambda h, _: torch.cat([h[:, :2], h[:, 2:3] + float("-inf"), h[:, 3:]], 1),
    ):
        with pytest.raises(UnsupportedOperationError, match=f"adds an infinite number.* {cure}"):
            linf_certificates(Masked([0.0], add).eval(), x, largest=0.05)
    assert (linf_certificates(Masked([0.0, 0.0, -1e9, 0.0]).eval(), x, largest=0.05)[1] > 0).all()
    broken_weight = Masked([0.0])
    broken_weight.last.bias.data[0] = -torch.inf
    with pytest.raises(ValueError, match="last.bias holds nan or inf. Did training diverge"):
        linf_certificates(broken_weight.eval(), x, largest=0.05)


def test_a_batch_without_any_finite_bounds_says_why():
    model = Masked([0.0], lambda h, _: (h * 1e30 * 1e20).tanh()).eval()
    with pytest.warns(
        UserWarning, match="No image of the batch has finite bounds.*'mul' has none. Numbers of this size"
    ):
        _, radii = linf_certificates(model, torch.rand(2, 3, 2, 2), largest=0.05)
    assert not radii.any()
