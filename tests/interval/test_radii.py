"""Certified radii: the certified end of the bracket."""

import re
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hf_smoothing.interval import box_around, certified_radii, linf_certificates, margin_bounds
from tests.support.bounded_networks import images, network
from tests.support.tiny import pixels, smoothed


def curved(roots, powers):
    """Growing functions with known roots, some flat, some steep."""

    def violation(which, radii):
        x = radii / roots[which].clamp(min=1e-12)
        return torch.where(roots[which] < 0, torch.ones_like(x), x ** powers[which] - 1.0)

    return violation


@settings(max_examples=60, deadline=None)
@given(
    roots=st.lists(st.one_of(st.floats(1e-6, 0.6), st.just(-1.0)), min_size=1, max_size=12),
    powers=st.lists(st.floats(0.3, 6.0), min_size=12, max_size=12),
    largest=st.floats(0.05, 0.5),
)
def test_radii_are_the_certified_end_of_the_bracket(roots, powers, largest):
    roots = torch.tensor(roots, dtype=torch.float64)
    violation = curved(roots, torch.tensor(powers, dtype=torch.float64))
    found = certified_radii(violation, len(roots), largest, dtype=torch.float64, flatness=0.0)
    expected = roots.clamp(min=0.0, max=largest)
    assert (found <= expected + 1e-15).all()
    assert (found >= expected - 3e-8).all()
    positive = torch.nonzero(found > 0)[:, 0]
    assert (violation(positive, found[positive]) <= 0.0).all()


def test_it_is_never_more_than_was_evaluated_even_for_a_function_that_is_not_monotone():
    seen = []

    def violation(which, radii):
        value = torch.sin(40 * radii) - 0.5
        seen.append((radii, value))
        return value

    found = certified_radii(violation, 3, 0.4, dtype=torch.float64)
    assert all(any(((r == x) & (v <= 0)).any() for r, v in seen) for x in found)


def test_images_that_are_decided_are_left_out():
    calls = []
    roots = torch.tensor([-1.0, 0.9, 0.1, 0.2], dtype=torch.float64)

    def violation(which, radii):
        calls.append(len(which))
        return radii - roots[which]

    found = certified_radii(violation, 4, 0.5, dtype=torch.float64)
    assert found.tolist() == pytest.approx([0.0, 0.5, 0.1, 0.2], abs=1e-7)
    assert calls[:2] == [4, 3]
    assert max(calls[2:]) == 2
    assert len(calls) < 15


def test_few_iterations_still_give_certified_radii():
    roots = torch.linspace(0.001, 0.39, 50, dtype=torch.float64)
    for iterations in (0, 1, 3, 10):
        found = certified_radii(
            lambda w, r: (r / roots[w]) ** 3 - 1, 50, 0.4, dtype=torch.float64, iterations=iterations
        )
        assert (found <= roots).all()
    assert (roots - found).max() < 1e-3


@pytest.mark.parametrize("largest", [0.0, -0.1, 1.5])
def test_a_largest_radius_out_of_range_is_refused(largest):
    cure = r" Divide steps of 0\.\.255 by 255" if largest > 1 else "$"
    with pytest.raises(ValueError, match=rf"`largest` must be above 0 and at most 1, .* got {largest}\.{cure}"):
        certified_radii(lambda which, radii: radii, 2, largest)


def test_radii_of_a_network_agree_with_a_root_finder_one_image_at_a_time():
    model, x = network("max pool"), images(12)
    classes, radii = linf_certificates(model, x, largest=0.4)
    assert torch.equal(classes, model(x).argmax(1))
    for k in range(12):

        def worst(epsilon, k=k):
            return float(margin_bounds(model, box_around(x[k : k + 1], epsilon), classes[k : k + 1]).worst.detach())

        if radii[k] == 0.4:
            assert worst(0.4) > 0
        else:
            assert float(radii[k]) == pytest.approx(scipy.optimize.brentq(worst, 0.0, 0.4, xtol=1e-13), abs=2e-8)
            assert worst(float(radii[k])) >= 0


def test_the_radius_of_a_linear_classifier_is_its_exact_distance():
    model = network("linear")
    x = 0.3 + 0.4 * images(8)  # far enough from 0 and 1 that these do not cut the ball
    classes, radii = linf_certificates(model, x, largest=0.3)
    out, weight = model(x).detach(), model[1].weight.detach()
    for k, y in enumerate(classes.tolist()):
        others = [t for t in range(4) if t != y]
        exact = min(float((out[k, y] - out[k, t]) / (weight[y] - weight[t]).abs().sum()) for t in others)
        assert float(radii[k]) == pytest.approx(min(exact, 0.3), abs=2e-8)
        assert float(radii[k]) <= exact


def test_results_do_not_depend_on_the_batch():
    model, x = network("residual"), images(6)
    together = linf_certificates(model, x, largest=0.2)
    alone = [linf_certificates(model, x[k : k + 1], largest=0.2) for k in range(6)]
    assert torch.equal(together[0], torch.cat([c for c, _ in alone]))
    assert torch.allclose(together[1], torch.cat([r for _, r in alone]), atol=1e-8)


def test_a_smoothed_classifier_with_8_bit_images():
    model = smoothed("resnet")
    classes, radii = linf_certificates(model, pixels(4), largest=0.1)
    assert torch.equal(classes, model.classify(pixels(4).float() / 255).argmax(1))
    assert (radii > 0).any()


def test_train_mode_and_broken_weights_are_refused():
    x = images(2)
    with pytest.raises(ValueError, match=r"train mode.*Call model\.eval\(\) first"):
        linf_certificates(network("max pool").train(), x, largest=0.1)
    broken = network("mlp")
    broken[1].weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"1\.weight holds nan or inf"):
        linf_certificates(broken, x, largest=0.1)
    with pytest.raises(TypeError, match="needs a module"):
        linf_certificates(lambda y: y.flatten(1), x, largest=0.1)


def test_the_network_itself_is_not_changed():
    model = smoothed("resnet")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    linf_certificates(model, pixels(2), largest=0.1)
    assert all(
        value.dtype == before[name].dtype and torch.equal(value, before[name])
        for name, value in model.state_dict().items()
    )
    assert isinstance(model, nn.Module)


def test_pixels_beyond_the_ends_by_the_tolerance_are_those_of_the_ends():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).eval()
    image = torch.rand(1, 3, 2, 2)
    image[0, 0, 0] = torch.tensor([0.0, 1.0])
    beyond = image.clone()
    beyond[0, 0, 0] += torch.tensor([-1e-4, 1e-4])
    found, same = (linf_certificates(network, pixels, largest=0.1) for pixels in (image, beyond))
    assert torch.equal(found[0], same[0]) and torch.equal(found[1], same[1]) and float(found[1]) > 0


@pytest.mark.parametrize(("value", "said"), [(1.01, "to 1.01"), (-0.01, "from -0.01"), (float("nan"), "nan")])
def test_pixels_further_beyond_are_refused_with_their_own_range(value, said):
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).eval()
    image = torch.full((1, 3, 2, 2), 0.5)
    image[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=re.escape(said)):
        linf_certificates(network, image, largest=0.1)


@pytest.mark.parametrize("number", [
    np.float32(0.01), np.float64(0.01), np.array(0.01), Fraction(1, 100), torch.tensor(0.01), torch.tensor(0.01, dtype=torch.float64), Decimal("0.01"),
])  # fmt: skip
def test_numbers_of_any_kind_are_numbers(number):
    model, x = network("mlp"), images(2).float()
    _, radii = linf_certificates(model, x, largest=number, tolerance=number, iterations=np.int64(5))
    assert radii.dtype == torch.float64
    assert torch.equal(radii, linf_certificates(model, x, largest=float(number), tolerance=float(number))[1])


@pytest.mark.parametrize(("asked", "error", "message"), [
    ({"pixels": torch.rand(0, 3, 8, 8)}, ValueError, "at least one image, got an empty batch"),
    ({"pixels": torch.rand(3, 8, 8)}, ValueError, r"For a single image add the batch dimension: image\[None\]"),
    ({"pixels": np.zeros((1, 3, 8, 8))}, TypeError, "`pixels` must be a torch tensor of shape .* got ndarray"),
    ({"pixels": [torch.rand(3, 8, 8)]}, TypeError, r"got a list of tensors .* torch\.stack makes one of them"),
    ({"pixels": [[0.5]]}, TypeError, "got list"),
    ({"steps": 1.5}, ValueError, "`steps` must be a whole number, got 1.5"),
    ({"steps": -1}, ValueError, "`steps` must be at least 0"),
    ({"steps": None}, ValueError, "`steps` must be a whole number"),
    ({"iterations": 1.5}, ValueError, "`iterations` must be a whole number"),
    ({"iterations": -1}, ValueError, "`iterations` must be at least 0, got -1. Use 100"),
    ({"tolerance": 0}, ValueError, "`tolerance` must be > 0"),
    ({"cover_run": "no"}, TypeError, "`cover_run` must be True or False, got 'no'"),
    ({"cover_run": 0}, TypeError, "`cover_run` must be True or False, got 0"),
    ({"largest": [0.1, 0.1]}, ValueError, "`largest` must be above 0 and at most 1"),
    ({"largest": None}, ValueError, "`largest` must be above 0 and at most 1"),
])  # fmt: skip
def test_what_is_no_request_is_refused_at_the_door(asked, error, message):
    with pytest.raises(error, match=message):
        linf_certificates(network("mlp"), **{"pixels": images(2).float(), "largest": 0.1} | asked)


@pytest.mark.parametrize("backward", ["none", "crown"])
def test_the_scale_of_the_logits_does_not_count(backward):
    images = torch.tensor([0.3, 0.31, 0.9]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    for scale in (1.0, 1e-6, 1e-9, 1e-12):
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
        with torch.no_grad():
            network[1].weight.copy_(scale * torch.tensor([[-1.0] * 4, [1.0] * 4]))
            network[1].bias.copy_(scale * torch.tensor([2.0, -2.0]))
        _, radii = linf_certificates(network, images, largest=0.5, backward=backward)
        assert radii.tolist() == pytest.approx([0.2, 0.19, 0.4], abs=1e-5)
