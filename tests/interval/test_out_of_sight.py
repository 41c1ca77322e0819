"""Networks that are right at the image and wrong elsewhere in the ball: overflow on the way, ties, neighbours that rounding chooses, copies, other functions."""

from __future__ import annotations

import copy
import functools
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hf_smoothing.interval import UnsupportedOperationError, certify_dataset_linf, linf_certificates
from hf_smoothing.interval.inside import points_inside
from hf_smoothing.interval.search import BACKWARD


IMAGE = torch.full((1, 3, 4, 4), 0.5)  # its own negative, so that no other image is looked at


class Function(nn.Module):
    """A function of one's own, of float32 or float64 pixels."""

    def __init__(self, function, dtype=torch.float32):
        super().__init__()
        self.function, self.unused = function, nn.Parameter(torch.zeros(1, dtype=dtype))

    def forward(self, x):
        return self.function(x)


def mean(x):
    return x.mean((1, 2, 3)).unsqueeze(1)


def against(logits, constant):
    return torch.cat([logits, logits * 0.0 + constant], 1)


def moved_all_the_way(model, radius):
    return [
        model((IMAGE.to(model.unused.dtype) + part * radius).clamp(0, 1)) for part in np.linspace(-0.999, 0.999, 41)
    ]


def check(function, largest, backward, dtype=torch.float32):
    model = Function(function, dtype).eval()
    classes, radii = linf_certificates(model, IMAGE.to(dtype), largest=largest, backward=backward, steps=2)
    with torch.no_grad():
        found = [int(logits.argmax(1)) for logits in moved_all_the_way(model, float(radii)) if float(radii)]
    assert set(found) <= {int(classes)}
    return float(radii)


OVERFLOWING = {  # each certified for class 1 as far as real numbers go, and inf in float32
    "softplus": (lambda x: against(F.softplus(160 * mean(x), threshold=1000), 150.0), 0.25),
    "mean": (lambda x: against(mean(x * 1.3e37), 9e36), 0.15),
    "avg_pool2d": (lambda x: against(F.avg_pool2d(x * 4e37, 4)[:, :1, 0, 0], 2.9e37), 0.2),
    "adaptive_avg_pool2d": (lambda x: against(F.adaptive_avg_pool2d(x * 4e37, 1)[:, :1, 0, 0], 2.9e37), 0.2),
    "area": (lambda x: against(F.interpolate(x * 4e37, size=1, mode="area")[:, :1, 0, 0], 2.9e37), 0.2),
}


@pytest.mark.filterwarnings("ignore:No image of the batch has finite bounds")
@pytest.mark.parametrize("backward", ["none", "optimised"])
@pytest.mark.parametrize("name", OVERFLOWING)
def test_numbers_on_the_way_overflow(name, backward):
    function, largest = OVERFLOWING[name]
    assert check(function, largest, backward) < largest
    assert check(function, largest, backward, torch.float64) == largest


@pytest.mark.parametrize("backward", ["none", "optimised"])
def test_softplus_with_a_very_negative_threshold(backward):
    check(lambda x: against(F.softplus(2000 * mean(x) - 2001, threshold=-900.0), -750.0), 0.4, backward)


TINY, HUGE = torch.tensor(2e-39), 4e37  # the one subnormal, the product 0.08


def huge(x):
    return mean(x) * HUGE


def least(x):
    """TINY, which an exact operation puts out."""
    return torch.maximum(mean(x) * 0.0, TINY)


FLUSHING = {  # positive, or 0 where a run takes subnormal numbers for 0
    "linear": lambda x: F.linear(huge(x), TINY.view(1, 1)),
    "linear of many": lambda x: F.linear(x.flatten(1) * HUGE, TINY.expand(1, 48)),
    "matmul": lambda x: huge(x) @ TINY.view(1, 1),
    "matrix first": lambda x: (TINY.view(1, 1) @ huge(x)[:, :, None])[:, :, 0],
    "conv1d": lambda x: F.conv1d(huge(x)[:, :, None], TINY.view(1, 1, 1))[:, :, 0],
    "conv2d": lambda x: F.conv2d(huge(x)[:, :, None, None], TINY.view(1, 1, 1, 1))[:, :, 0, 0],
    "conv_transpose2d": lambda x: F.conv_transpose2d(huge(x)[:, :, None, None], TINY.view(1, 1, 1, 1))[:, :, 0, 0],
    "mul": lambda x: huge(x) * TINY.view(1, 1),
    "number": lambda x: float(TINY) * huge(x),
    "two boxes": lambda x: huge(x) * least(x),
    "add": lambda x: torch.add(mean(x) * 0.0, huge(x), alpha=float(TINY)),
    "sub": lambda x: (
        torch.sub(TINY.view(1, 1), -mean(x), alpha=2.0) * 0.0 - torch.sub(mean(x) * 0.0, huge(x), alpha=float(TINY))
    ),
    "prelu": lambda x: -F.prelu(-huge(x), TINY.view(1)),
    "leaky_relu": lambda x: -F.leaky_relu(-huge(x), float(TINY)),
    "batch_norm": lambda x: F.batch_norm(huge(x), torch.zeros(1), torch.ones(1), TINY.view(1), torch.zeros(1)),
    "pixels of linear": lambda x: F.linear(least(x), torch.full((1, 1), 1e38)),
    "pixels of mul": lambda x: least(x) * 1e38,
    "pixels of div": lambda x: least(x) / 1.2e-38,
    "pixels of sqrt": lambda x: torch.sqrt(least(x)) * 1e19,
    "pixels of prelu": lambda x: -F.prelu(-least(x), torch.full((1,), 1e38)),
    "pixels of leaky_relu": lambda x: -F.leaky_relu(-least(x), 1e38),
    "pixels of batch_norm": lambda x: F.batch_norm(
        least(x), torch.zeros(1), torch.ones(1), torch.full((1,), 1e38), torch.zeros(1)
    ),
}


@pytest.fixture(params=[False, True], ids=["subnormal", "flushed"])
def flushing(request):
    if not torch.set_flush_denormal(request.param):
        pytest.skip("this processor flushes nothing")
    yield request.param
    torch.set_flush_denormal(False)


@pytest.mark.parametrize("cover_run", [True, False])
@pytest.mark.parametrize("backward", ["none", "optimised"])
@pytest.mark.parametrize("name", FLUSHING)
def test_subnormal_numbers_may_be_taken_for_0(name, backward, cover_run, flushing):
    model = Function(lambda x: against(FLUSHING[name](x), 0.005)).eval()
    classes, radii = linf_certificates(model, IMAGE, largest=0.3, backward=backward, steps=2, cover_run=cover_run)
    found = set()
    for flush in (False, True):  # to real arithmetic the subnormal numbers are what they are
        torch.set_flush_denormal(flush)
        with torch.no_grad():
            answers = {int(logits.argmax(1)) for logits in moved_all_the_way(model, float(radii))}
        assert not float(radii) or answers == {int(classes)} or (flush and not cover_run)
        found |= answers
    assert found == {0, 1}  # else this shows nothing


@pytest.mark.parametrize("function", [
    lambda x: x.flatten(1) / 1e-39, lambda x: F.celu(x.flatten(1), alpha=1e-39), lambda x: F.softplus(x.flatten(1), beta=1e-39),
    lambda x: F.batch_norm(x, torch.zeros(3), torch.full((3,), 1e-39), eps=0.0).flatten(1),
], ids=["div", "celu", "softplus", "batch_norm"])  # fmt: skip
def test_what_may_be_a_division_by_0_is_refused(function, flushing):
    with pytest.raises(UnsupportedOperationError, match="subnormal|take it for 0|take for 0"):
        check(function, 0.1, "none")


@pytest.mark.parametrize("backward", ["none", "optimised"])
def test_subnormal_weights_cost_nothing_elsewhere(backward):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.PReLU(), nn.Linear(8, 3)).eval()
    image = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    _, plain = linf_certificates(model, image, largest=0.3, backward=backward, steps=2)
    with torch.no_grad():
        model[1].weight[:, ::2] = 0.0
        _, zeros = linf_certificates(model, image, largest=0.3, backward=backward, steps=2)
        model[1].weight[:, ::2] = 1e-40
    _, radii = linf_certificates(model, image, largest=0.3, backward=backward, steps=2)
    assert 0.0 < float(plain) < 0.3
    assert float(radii) == pytest.approx(float(zeros), abs=1e-7)


def test_the_scale_of_a_batch_norm_may_be_subnormal():
    def function(x):
        ones, zeros = torch.ones(3), torch.zeros(3)
        y = F.batch_norm((x - 0.5) * 8e37, zeros, ones * 1e20, ones * 1.35e-34, zeros, False, 0.1, 0.0)
        return against(y[:, :1, 0, 0] * 1e7 + 1.08, 0.0)  # in real arithmetic 10.8 (x - 0.5) + 1.08

    assert check(function, 0.3, "none") < 0.1


@pytest.mark.parametrize("backward", ["none", "optimised"])
@pytest.mark.parametrize("ramp", [
    lambda x: torch.maximum(x, torch.tensor(0.0)), lambda x: x.clamp(min=0.0), F.relu6, F.relu,
])  # fmt: skip
def test_equal_logits_are_no_margin(ramp, backward):
    """Beyond 0.25 both logits are 0, and argmax takes class 0."""
    radius = check(lambda x: F.pad(ramp(0.75 - mean(x)), (1, 0)), 0.4, backward)
    assert 0.2499 < radius < 0.25 + 1e-6


@pytest.mark.parametrize("backward", ["none", "optimised"])
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_the_nearest_entry_depends_on_the_dtype(mode, backward):
    size = {"nearest": 82, "nearest-exact": 61}[mode]
    single, double = (
        F.interpolate(torch.arange(4, dtype=dtype)[None, None], size, mode=mode).long()
        for dtype in (torch.float32, torch.float64)
    )
    place = int((single != double).nonzero()[0, -1])  # else this test shows nothing
    steep = torch.full((4,), 0.1)
    steep[single[0, 0, place]] = 10.0

    def function(x):
        return against(F.interpolate((x[:, 0, :1] - 0.5) * steep, size, mode=mode)[:, :, place], 0.7)

    assert 0.069 < check(function, 0.3, backward) < 0.071


@pytest.mark.parametrize("backward", ["none", "optimised"])
def test_weights_that_change_after_their_use(backward):
    def function(x):
        weight = torch.tensor([[1.0], [-1.0]], dtype=x.dtype).repeat(1, 48)
        bias = torch.tensor([1.0, 0.0], dtype=x.dtype)
        logits = F.linear(x.flatten(1) - 0.5, weight, bias)
        weight.mul_(1e-4)
        return logits

    assert check(function, 0.25, backward, torch.float64) < 1 / 96


@pytest.mark.parametrize("backward", ["none", "optimised"])
def test_a_deep_copy_is_on_the_same_journey(backward):
    def quotient(x):
        return torch.cat([x[:, :1, 0, 0] * 0.0 + 10.0, 1.0 / (mean(copy.deepcopy(x)) - 0.6)], 1)

    assert check(quotient, 0.4, backward) < 0.1

    def stale(x):
        y = x - 0.5
        y.flatten(1).relu_()
        return copy.deepcopy(y).flatten(1)

    with pytest.raises(UnsupportedOperationError, match="'deepcopy' uses a tensor again"):
        check(stale, 0.4, backward)


@pytest.mark.parametrize("backward", ["none", "optimised"])
def test_one_number_an_image(backward):
    """Boxes of one dimension, with and without bounds."""

    def function(x):
        number = x.mean((1, 2, 3))
        return torch.stack([number.relu(), 1.0 / (number - 0.6)], 1)

    assert 0.0 < check(function, 0.3, backward) < 0.1


@pytest.mark.parametrize(("function", "message"), [
    (lambda x: (x * 10**30).flatten(1), "'mul' with these arguments: "),
    (lambda x: x.clamp(max=10**400).flatten(1), "'clamp' with these arguments: "),
    (lambda x: F.batch_norm(x, None, None).flatten(1), "'batch_norm'. In eval mode it needs running statistics"),
])  # fmt: skip
def test_what_is_no_network_is_refused_by_name(function, message):
    with pytest.raises(UnsupportedOperationError, match=message):
        check(function, 0.1, "none")


def test_autocast_is_no_error_in_real_arithmetic():
    def function(x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return F.linear(x.flatten(1), torch.eye(48)[:2], torch.tensor([0.25, 0.0])).float()

    model = Function(function).eval()
    with pytest.raises(UnsupportedOperationError, match="under autocast is not covered"):
        linf_certificates(model, IMAGE, largest=0.4)
    _, radii = linf_certificates(model, IMAGE, largest=0.4, cover_run=False)
    assert abs(float(radii) - 0.125) < 1e-6
    with torch.autocast("cpu"):
        assert float(linf_certificates(model, IMAGE, largest=0.4, cover_run=False)[1]) == float(radii)


def test_random_numbers_that_do_not_show_at_the_image_are_refused():
    def hidden(x):
        return against(mean(x) + torch.relu(mean(x) - 0.5) * torch.randn(1), 0.4)

    with pytest.raises(ValueError, match="The network draws random numbers"):
        linf_certificates(Function(hidden).eval(), IMAGE, largest=0.2)


def bent(m, steep=10.0):
    """The number itself up to 0.55, and far less beyond: nothing of it shows at the image."""
    return m - steep * torch.relu(m - 0.55)


def by_kind(x):
    return bent(mean(x)) if type(x) is torch.Tensor else mean(x)


def by_chance(draw):
    """Steep enough to come near the other logit, -1, and never below it."""
    return lambda x: bent(mean(x), 3.0 + 3.0 * draw())


OTHERWISE = {  # numbers that are another function for tensors, or at each call, and only beyond 0.55
    "kind": lambda: by_kind,
    "torch": lambda: by_chance(functools.partial(torch.rand, 1, generator=torch.Generator().manual_seed(0))),
    "numpy": lambda: by_chance(np.random.default_rng(0).random),
    "python": lambda: by_chance(random.Random(0).random),
}


@pytest.mark.parametrize("backward", BACKWARD)
@pytest.mark.parametrize(("name", "dtype"), [
    *((name, dtype) for name in OTHERWISE for dtype in (torch.float32, torch.float64)), ("kind", torch.bfloat16),
])  # fmt: skip
def test_a_network_that_is_another_one_within_the_ball(name, backward, dtype):
    own, cover_run = OTHERWISE[name](), dtype != torch.bfloat16
    model = Function(lambda x: against(own(x), -1.0), dtype).eval()
    with pytest.raises(ValueError, match=r"certified ball of image 0 .* these bounds are for another function"):
        linf_certificates(model, IMAGE.to(dtype), largest=0.35, backward=backward, steps=2, cover_run=cover_run)


@pytest.mark.parametrize("change", [
    lambda x: x.detach(), lambda x: x.data, lambda x: torch.from_numpy(x.detach().numpy()), lambda x: x.add_(0.0),
], ids=["detach", "data", "numpy", "in place"])  # fmt: skip
def test_networks_without_gradients_are_looked_at_as_well(change):
    def function(x):
        return against(bent(mean(change(x))) if type(x) is torch.Tensor else mean(x), -1.0)

    with pytest.raises(ValueError, match=r"certified ball of image 0 .* these bounds are for another function"):
        linf_certificates(Function(function).eval(), IMAGE, largest=0.35)


def test_a_data_set_with_such_a_network_gets_no_row(tmp_path):
    model = Function(lambda x: against(by_kind(x), 0.05)).eval()
    images = [{"pixel_values": IMAGE[0]}]
    with pytest.raises(ValueError, match="certified ball of image 0 "):
        certify_dataset_linf(model, images, tmp_path / "run", largest=0.3, progress=False)
    assert not (tmp_path / "run").exists()


def test_points_are_in_the_ball_and_do_not_depend_on_neighbours():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    images, radii = torch.rand(40, 3, 4, 4, dtype=torch.float64), torch.rand(40, dtype=torch.float64) * 0.2
    classes, lower = torch.arange(40) % 3, torch.rand(40, 3, dtype=torch.float64)
    lower.scatter_(1, classes[:, None], torch.inf)
    found = list(points_inside(model, images, radii, classes, lower, torch.float32))
    alone = points_inside(model, *(part[35:36] for part in (images, radii, classes, lower)), torch.float32)
    assert len(found) == 5
    for points, one in zip(found, alone, strict=True):
        assert torch.equal(points[35:36], one)
        assert ((points - images).abs() <= radii.view(-1, 1, 1, 1) + 1e-7).all()
        assert ((points >= 0) & (points <= 1)).all()
    with torch.no_grad():
        margins = [
            logits.gather(1, classes[:, None]) - logits for logits in (model(images.float()), model(found[4].float()))
        ]
    chosen = lower.argmin(1)[:, None]
    assert (margins[1].gather(1, chosen) <= margins[0].gather(1, chosen)).float().mean() > 0.9


@pytest.mark.parametrize("draw", [
    lambda: torch.randn(1), lambda: float(np.random.normal()), lambda: random.random(),
], ids=["torch", "numpy", "python"])  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_global_generator_is_watched(draw, dtype):
    def hidden(x):
        return against(mean(x), 0.4) + 0.0 * draw()

    with pytest.raises(ValueError, match="The network draws random numbers"):
        linf_certificates(
            Function(hidden, dtype).eval(), IMAGE.to(dtype), largest=0.2, cover_run=dtype == torch.float32
        )


def test_half_precision_in_real_arithmetic():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 3)
    ).eval()
    images = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    for dtype in (torch.bfloat16, torch.float16):
        _, radii = linf_certificates(model.to(dtype), images.to(dtype), largest=0.05, cover_run=False)
        assert (radii > 0).any()


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(("function", "message"), [
    (lambda y: y * len(y), "outside their own bounds"),
    (lambda y: -y if type(y) is torch.Tensor else y, "outside their own bounds"),
    (lambda y: y.squeeze(), "in a batch of any size"),
    (lambda y: y.view(2, 2) + 0.0, "2 images, but 1 images themselves fail"),
], ids=["number of images", "kind", "squeeze", "fixed batch"])  # fmt: skip
def test_half_precision_skips_no_check(function, message, autocast):
    weight, bias = torch.tensor([[1.0], [-1.0]]).repeat(1, 48), torch.tensor([1.0, 0.0])

    def network(x):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            return function(F.linear(x.flatten(1), weight.to(x.dtype), bias.to(x.dtype)))

    dtype = torch.float32 if autocast else torch.bfloat16
    with pytest.raises(ValueError, match=message):
        linf_certificates(Function(network, dtype).eval(), IMAGE.to(dtype), largest=0.01, cover_run=False)
