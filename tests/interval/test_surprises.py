"""What networks do that a box could follow wrongly: it is bounded soundly, or refused by name."""

from __future__ import annotations

import math

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
    margin_bounds,
)
from hf_smoothing.interval.radii import certified_radii
from hf_smoothing.interval.rounding import widened
from tests.support.bounded_networks import images


class Steps(nn.Module):
    """A linear layer after a function of one's own."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.function, self.last = function, nn.Linear(3 * 8 * 8, 4)

    def forward(self, x):
        return self.last(self.function(x).flatten(1))


@pytest.mark.parametrize(("change", "message"), [
    (lambda x: (x - 0.5) / 0.25, "already normalised"),
    (lambda x: x * 255, "0..255 as floats"),
    (lambda x: x * torch.nan, "nan or infinite"),
])  # fmt: skip
def test_pixels_outside_the_range_are_no_certificate(change, message):
    model = Steps(torch.relu).eval()
    with pytest.raises(ValueError, match=message):
        linf_certificates(model, change(images(2)).float(), largest=0.1)
    with pytest.raises(ValueError, match="an image in \\[0, 1\\]"):
        margin_bounds(model, box_around(change(images(2)).float(), 0.1), torch.zeros(2).long())


@pytest.mark.parametrize("label", [-1, 4])
def test_labels_out_of_range(label):
    model = Steps(torch.relu).eval().double()
    with pytest.raises(ValueError, match="classes from 0 to 3, got"):
        margin_bounds(model, box_around(images(2), 0.1), torch.tensor([0, label]))


def test_negative_radii_are_refused():
    with pytest.raises(ValueError, match="radius must be >= 0"):
        box_around(images(2), -0.1)


@pytest.mark.parametrize("function", [
    lambda x: F.elu(x, alpha=-1.0), lambda x: F.elu(x, -1.0), lambda x: F.leaky_relu(x, -0.1), lambda x: F.threshold(x, 0.1, 20.0),
    lambda x: F.threshold(x, threshold=0.1, value=20.0), lambda x: F.avg_pool2d(x, 2, divisor_override=-1),
    lambda x: F.avg_pool2d(x, 2, 2, 0, False, True, -1), lambda x: F.interpolate(x, 4, mode="bicubic"),
])  # fmt: skip
def test_what_is_not_monotone_is_refused(function):
    with pytest.raises(UnsupportedOperationError, match="monotone|negative|decrease"):
        function(box_around(images(2), 0.1))


@pytest.mark.parametrize(("beta", "threshold"), [(1.0, 20.0), (1.0, 1.0), (2.0, 0.5), (1.0, 0.0)])
def test_softplus_jumps_down_at_its_threshold(beta, threshold):
    edge = threshold / beta
    x = torch.linspace(edge - 1e-3, edge + 1e-3, 2001, dtype=torch.float64)
    box = F.softplus(Box(x[:1], x[-1:]), beta=beta, threshold=threshold)
    values = F.softplus(x, beta=beta, threshold=threshold)
    assert box.lower <= values.min()
    assert box.upper >= values.max()
    assert float(box.upper - box.lower) < 3 * (math.log1p(math.exp(-threshold)) / beta + 2e-3)


def test_a_bound_that_is_nan_certifies_nothing():
    def violation(which, radii):
        return torch.where((radii > 0.1) & (radii < 0.9), torch.nan, radii - 0.3)

    radii = certified_radii(violation, 3, 1.0, dtype=torch.float64)
    assert (radii <= 0.1).all()


def test_sums_too_long_for_their_dtype_are_refused():
    box = Box(-torch.ones(1, 4000).half(), torch.ones(1, 4000).half(), trace=Trace(outward=True))
    with pytest.raises(ValueError, match="no useful bound on their rounding in torch.float16"):
        widened(box, terms=4000, name="sum")


@pytest.mark.parametrize("function", [
    lambda x: x + F.adaptive_avg_pool2d(x, 1), lambda x: F.adaptive_avg_pool2d(x, 1) + torch.ones(1, 3, 8, 8).double(),
    lambda x: torch.sub(x, F.adaptive_avg_pool2d(x, 1), alpha=2),
])  # fmt: skip
def test_backward_bounds_through_broadcast_sums(function):
    model, x = Steps(lambda x: torch.relu(function(x) + torch.zeros(1, 3, 8, 8).double())).double().eval(), images(3)
    labels = model(x).argmax(1)
    margins = margin_bounds(model, box_around(x, 0.02, Trace(outward=True, origins=True)), labels).lower
    plain = margin_bounds(model, box_around(x, 0.02, Trace(outward=True)), labels).lower
    assert (margins >= plain).all()
    for seed in range(20):
        noise = 0.02 * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype).sign()
        out = model((x + noise).clamp(0, 1))
        gaps = out.gather(1, labels[:, None]) - out
        assert (gaps >= margins).masked_fill(margins.isinf(), True).all()


def test_properties_of_tensors_are_not_taken_for_answers():
    box = box_around(images(2), 0.1)
    for name in ("is_leaf", "grad_fn", "data"):
        assert not hasattr(box, name)
        with pytest.raises(UnsupportedOperationError, match=f"has no attribute '{name}'"):
            getattr(box, name)


def test_other_bad_input(tmp_path):
    from tests.support.tiny import data, smoothed

    with pytest.raises(ValueError, match="`batch_size` must be at least 1"):
        certify_dataset_linf(smoothed("resnet"), data(4), tmp_path, largest=0.1, batch_size=-1)
    with pytest.raises(ValueError, match="`tolerance` must be > 0"):
        linf_certificates(Steps(torch.relu).eval(), images(2).float(), largest=0.1, tolerance=float("nan"))
    with pytest.raises(TypeError, match="must return logits"):
        linf_certificates(Pair().eval(), images(2).float(), largest=0.1)


class Pair(nn.Module):
    def forward(self, x):
        return x.flatten(1), x
