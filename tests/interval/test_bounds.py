"""No point of the box leaves its bounds."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import ViTForImageClassification

from hf_smoothing.interval import Box, Trace, UnsupportedOperationError, box_around, classify_function, margin_bounds
from hf_smoothing.interval.objectives.statistics import NotedStatistics
from tests.support.bounded_networks import BUILDERS, images, network
from tests.support.tiny import plain, vit_config


def logits(model, x):
    output = model(x)
    return getattr(output, "logits", output)


def points(x, epsilon, count, generator):
    """Of the ball within [0, 1]: anywhere, and corners, where the extremes of a linear network are."""
    shape = (count, *x.shape)
    noise = 2 * torch.rand(shape, generator=generator, dtype=x.dtype) - 1
    noise[: count // 2] = noise[: count // 2].sign()
    return (x + epsilon * noise).clamp(0.0, 1.0)


def check_soundness(name, seed, epsilon, outward, count=8):
    model, x = network(name, seed), images(3, seed=seed)
    labels = torch.arange(3) % 4
    trace = Trace(outward=outward)
    box = model(box_around(x, epsilon, trace))
    margins = margin_bounds(model, box_around(x, epsilon, trace), labels).lower
    slack = 0.0 if outward else 1e-9 * (1 + box.upper.abs().max())
    for y in points(x, epsilon, count, torch.Generator().manual_seed(seed)):
        out = logits(model, y)
        assert (out >= box.lower - slack).all()
        assert (out <= box.upper + slack).all()
        gaps = out.gather(1, labels[:, None]) - out
        assert (gaps >= margins - slack).masked_fill(margins.isinf(), True).all()


@pytest.mark.parametrize("name", BUILDERS)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), epsilon=st.floats(0.0, 0.5), outward=st.booleans())
def test_no_point_of_the_box_leaves_the_bounds(name, seed, epsilon, outward):
    check_soundness(name, seed, epsilon, outward)


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILDERS)
@settings(max_examples=800, deadline=None)
@given(seed=st.integers(0, 10**9), epsilon=st.floats(0.0, 0.5), outward=st.booleans())
def test_no_point_of_the_box_leaves_the_bounds_in_ten_thousand_cases(name, seed, epsilon, outward):
    check_soundness(name, seed, epsilon, outward)


@pytest.mark.parametrize("name", ["resnet", "plain resnet"])
def test_a_resnet_of_transformers_is_bounded_unchanged(name):
    model, x = network(name), images(3, 16)
    classify = classify_function(model)
    labels = torch.arange(3)
    found = margin_bounds(classify, box_around(x, 0.001), labels)
    for y in points(x, 0.001, 20, torch.Generator().manual_seed(0)):
        out = logits(classify, y)
        gaps = out.gather(1, labels[:, None]) - out
        assert (gaps >= found.lower - 1e-9).masked_fill(found.lower.isinf(), True).all()


@pytest.mark.parametrize("name", BUILDERS)
def test_bounds_grow_with_the_box_and_outward_ones_contain_the_others(name):
    model, x, labels = network(name), images(4), torch.zeros(4, dtype=torch.int64)
    before = None
    for epsilon in (0.0, 0.001, 0.01, 0.1, 1.0):
        inner = model(box_around(x, epsilon))
        outer = model(box_around(x, epsilon, Trace(outward=True)))
        assert (outer.lower < inner.lower).all()
        assert (outer.upper > inner.upper).all()
        assert torch.allclose(outer.lower, inner.lower, rtol=1e-9, atol=1e-9)
        worst = margin_bounds(model, box_around(x, epsilon), labels).worst
        assert before is None or (worst <= before + 1e-12).all()
        before = worst


def test_without_a_box_the_bounds_are_the_logits():
    for name in BUILDERS:
        model, x = network(name), images(4)
        box = model(box_around(x, 0.0))
        assert torch.allclose(box.lower, logits(model, x), atol=1e-9)
        assert torch.allclose(box.upper, logits(model, x), atol=1e-9)


def test_margins_of_a_linear_network_are_exact():
    model, x, labels = network("linear"), images(5), torch.tensor([0, 1, 2, 3, 0])
    weight, epsilon = model[1].weight.detach(), 0.07
    low, high = (x - epsilon).clamp(min=0).flatten(1), (x + epsilon).clamp(max=1).flatten(1)
    found = margin_bounds(model, box_around(x, epsilon), labels).lower.detach()
    for i, y in enumerate(labels):
        for t in range(4):
            difference = weight[y] - weight[t]
            corner = torch.where(difference > 0, low[i], high[i])
            exact = difference @ corner + (model[1].bias[y] - model[1].bias[t]).detach()
            assert t == y or float(found[i, t]) == pytest.approx(float(exact), abs=1e-12)
    assert found[torch.arange(5), labels].isinf().all()


def test_merged_margins_are_at_least_as_tight_as_separate_bounds():
    for name in ("mlp", "max pool", "residual"):
        model, x, labels = network(name), images(6), torch.arange(6) % 4
        box = model(box_around(x, 0.02))
        separate = box.lower.gather(1, labels[:, None]) - box.upper
        merged = margin_bounds(model, box_around(x, 0.02), labels).lower
        assert (merged >= separate - 1e-12).all()
        assert (merged > separate + 1e-6).any()


def test_each_image_has_its_own_epsilon():
    model, x, labels = network("max pool"), images(3), torch.arange(3)
    together = margin_bounds(model, box_around(x, torch.tensor([0.0, 0.01, 0.1])), labels).lower
    for k, epsilon in enumerate((0.0, 0.01, 0.1)):
        alone = margin_bounds(model, box_around(x[k : k + 1], epsilon), labels[k : k + 1]).lower
        assert torch.allclose(together[k], alone[0], atol=1e-12)


def test_bounds_have_gradients():
    model, x = network("max pool"), images(3)
    margin_bounds(model, box_around(x, 0.01), torch.arange(3)).worst.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model[0].parameters())


def test_in_train_mode_the_statistics_of_the_clean_batch_serve_the_bounds():
    model, x, labels = network("max pool").train(), images(6), torch.arange(6) % 4
    clean = NotedStatistics()
    with clean:
        wanted = logits(model, x)
    kept = model[1].running_mean.clone()

    def bounds(which, epsilon):
        trace = Trace(statistics=clean.statistics)
        return margin_bounds(model, box_around(x[which], epsilon, trace), labels[which]).lower

    everyone = torch.arange(6)
    gaps = (wanted.gather(1, labels[:, None]) - wanted).scatter(1, labels[:, None], torch.inf)
    assert torch.allclose(bounds(everyone, 0.0), gaps, atol=1e-12)
    # A pass over part of the batch takes the same statistics, and no pass with bounds moves the running ones.
    assert torch.allclose(bounds(everyone[2:4], 0.01), bounds(everyone, 0.01)[2:4], atol=1e-12)
    assert torch.equal(model[1].running_mean, kept)
    with pytest.raises(ValueError, match=r"batch norm is in train mode.*Call model\.eval\(\)"):
        margin_bounds(model, box_around(x, 0.01), labels)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: ViTForImageClassification(vit_config()).eval(), "layer_norm"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.Softmax(dim=1)), "softmax"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)), "group_norm"),
        (lambda: torch.lgamma, "lgamma"),
    ],
)
def test_an_operation_without_a_bound_is_named(build, named):
    model = build()
    x = torch.rand(1, 3, 16, 16) if "ViT" in type(model).__name__ else torch.rand(1, 3, 8, 8)
    with pytest.raises(UnsupportedOperationError, match=f"There is no sound bound for '{named}'"):
        model(Box(x, x))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nn.LeakyReLU(-0.1), "'leaky_relu'. With a negative slope it is not monotone: -0.1"),
        (lambda: nn.Threshold(0.0, 1.0), "'threshold'. With a value above the threshold it is not monotone"),
        (lambda: nn.GELU(approximate="tanh"), "'gelu'. The approximation 'tanh' has another minimum"),
        (lambda: nn.Upsample(scale_factor=2, mode="bicubic"), "'interpolate'. .*bilinear.*got 'bicubic'"),
        (
            lambda: nn.MaxPool2d(2, return_indices=True),
            "'max_pool2d_with_indices'. The place of a maximum depends on the pixels",
        ),
    ],
)
def test_variants_without_a_bound_say_why(build, message):
    with pytest.raises(UnsupportedOperationError, match=message):
        build()(box_around(torch.rand(1, 3, 8, 8), 0.1))


def test_dropout_in_train_mode_is_refused():
    with pytest.raises(ValueError, match="Dropout is random"):
        nn.Dropout(0.5).train()(box_around(torch.rand(1, 3, 8, 8), 0.1))


@pytest.mark.parametrize("name", BUILDERS)
def test_rounding_in_float32_stays_within_the_outward_bounds(name):
    """Bounds computed in float32 and rounded outward contain those computed in float64, which are exact by comparison."""
    model, x = network(name), images(4).float()
    for parameter in model.parameters():
        parameter.data = parameter.data.float().double()
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.copy_(buffer.float().double())
    exact = model(box_around(x.double(), 0.0078125))
    rounded = copy.deepcopy(model).float()(box_around(x, 0.0078125, Trace(outward=True)))
    assert (rounded.lower.double() <= exact.lower).all()
    assert (rounded.upper.double() >= exact.upper).all()


def test_a_plain_model_that_does_not_say_how_it_normalises_is_refused():
    model = plain("resnet")
    with pytest.raises(
        ValueError, match="How ResNetForImageClassification normalises its pixels is not known. Wrap it"
    ):
        classify_function(model)
