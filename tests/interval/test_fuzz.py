"""Random networks of everything that boxes accept: no certificate of them breaks, and the attack that says so finds planted errors."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from hf_smoothing.interval import certificates, crown, hinges, margins, optimised, registry, search
from hf_smoothing.interval.box import Box
from hf_smoothing.interval.memory import Memory
from hf_smoothing.interval.registry import OPERATIONS, RULES
from hf_smoothing.interval.rules import arithmetic, elementwise, pooling, turning
from hf_smoothing.interval.trace import Linear, Origin, same
from tests.support import fuzz_networks
from tests.support.fuzz_networks import Tally, check, draw_program
from tests.support.fuzz_operations import ARGUMENTS


def tally(seeds, **options) -> Tally:
    found = Tally()
    for seed in seeds:
        check(seed, found, **options)
    return found


def test_every_rule_is_fuzzed():
    assert set(ARGUMENTS) == set(OPERATIONS)


def test_the_programs_reach_every_rule_in_place_and_out_of_place():
    labels = {
        label.split("[")[0] + label[-9:] * label.endswith("(inplace)")
        for seed in range(1000)
        for label, _ in draw_program(seed).steps
    }
    reached = {
        operation.name
        for function, (operation, _) in RULES.items()
        if function.__name__ in {name.removesuffix("(inplace)") for name in labels}
    }
    assert reached == set(OPERATIONS)
    assert {"relu_", "relu(inplace)", "add_", "elu(inplace)", "clamp_", "mul_"} <= labels


def test_every_activation_has_its_twin_in_place():
    for name in (
        "relu",
        "elu",
        "selu",
        "celu",
        "leaky_relu",
        "threshold",
        "hardtanh",
        "add",
        "sub",
        "mul",
        "div",
        "clamp",
        "abs",
        "tanh",
    ):
        assert any(in_place and operation.name == name for operation, in_place in RULES.values()), name


@pytest.mark.parametrize("start", [0, 100])
def test_no_certificate_of_two_hundred_networks_breaks(start):
    found = tally(range(start, start + 100))
    assert found.broken == []
    assert found.networks == 100
    assert found.positive > 80
    assert found.refused < 60


CHUNK = 1000


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, 20_000, CHUNK))
def test_no_certificate_of_twenty_thousand_networks_breaks(start):
    found = tally(range(start, start + CHUNK))
    print(f"{start}: {found.networks} networks, {found.certificates} certificates, {found.positive} positive, {found.refused} refused, "
          f"{found.attacked} points, {len(found.broken)} broken")  # fmt: skip
    assert found.broken == []
    assert found.networks == CHUNK
    assert found.positive > CHUNK


# --- Errors that once were there, or could be: planted, and found. ------------------------------------------------------------


def replace(monkeypatch, name, rule):
    for function, (operation, in_place) in list(RULES.items()):
        if operation.name == name:
            monkeypatch.setitem(registry.RULES, function, (dataclasses.replace(operation, rule=rule), in_place))


def writes_to_its_ends(monkeypatch):
    def relu(box, inplace=False):
        result = box.map(F.relu_)
        result.origin = Origin(relu=box)
        return result

    replace(monkeypatch, "relu", relu)


def knows_no_views(monkeypatch):
    monkeypatch.setattr(Memory, "check", lambda self, version, name: None)


def takes_every_filter(monkeypatch):
    for mode in ("bicubic", "lanczos"):
        monkeypatch.setitem(pooling._MODES, mode, 4)


def divides_in_float32(monkeypatch):
    right = arithmetic.div

    def div(input, other):
        # By a box as ever: 1 / box would come here again, without an end.
        return right(input, other) if isinstance(other, Box) else arithmetic.mul(input, 1.0 / other)

    replace(monkeypatch, "div", div)


def forgets_the_batch(monkeypatch):
    def around(*args, **named):
        box = margins.box_around(*args, **named)
        box.batch = None
        return box

    monkeypatch.setattr(search, "box_around", around)
    monkeypatch.setattr(fuzz_networks, "box_around", around)


def forgets_the_run(monkeypatch):
    monkeypatch.setattr("hf_smoothing.interval.rounding._gamma", lambda terms, unit: terms * 2.0**-53)


def takes_abs_for_increasing(monkeypatch):
    replace(monkeypatch, "abs", lambda box: box.map(torch.abs))


def takes_prelu_for_increasing(monkeypatch):
    replace(monkeypatch, "prelu", lambda box, weight: box.map(lambda x: F.prelu(x, weight.to(x.dtype))))


def loses_a_corner(monkeypatch):
    monkeypatch.setattr(
        arithmetic,
        "_extremes",
        lambda corners: (torch.minimum(corners[0], corners[-1]), torch.maximum(corners[0], corners[-1])),
    )


def pads_with_zero(monkeypatch):
    def pad(box, pad, mode="constant", value=None):
        return box.map(lambda x: F.pad(x, pad, mode), box.batch)

    replace(monkeypatch, "pad", pad)


def sums_in_place_of_joining(monkeypatch):
    replace(
        monkeypatch,
        "amax",
        lambda box, dim=(), keepdim=False: box.map(
            lambda x: x.mean(dim, keepdim), pooling.after_reduction("amax", box, dim, keepdim)[1]
        ),
    )


def tightens_too_far(monkeypatch):
    def tightened(box):
        return box.make(box.lower + 0.4 * box.radius, box.upper, box.batch).came_from(Linear(box, same, same, 1))

    monkeypatch.setattr(hinges, "tightened", tightened)


def lets_slopes_exceed_one(monkeypatch):
    def linear_bounds(box, a, slopes=None):
        steeper = slopes and {number: 3.0 * slope for number, slope in slopes.items()}
        return crown.linear_bounds(box, a, slopes if steeper is None else steeper)

    monkeypatch.setattr(optimised, "linear_bounds", linear_bounds)


def bends_at_the_wrong_side(monkeypatch):
    bent = hinges.bent
    for module in (elementwise, turning):
        monkeypatch.setattr(module, "bent", lambda result, box, below, above: bent(result, box, above, below))


@pytest.mark.parametrize(("plant", "names"), [
    (writes_to_its_ends, ["relu", "add", "linear", "batch_norm", "mul"]),
    (knows_no_views, ["relu", "elu", "add", "flatten", "__getitem__", "view", "chunk", "tanh"]),
    (takes_every_filter, ["interpolate", "relu", "mul"]),
    (divides_in_float32, ["div", "relu", "linear"]),
    (forgets_the_batch, ["mean", "sub", "flip", "roll", "amax", "__getitem__"]),
    (forgets_the_run, ["linear", "conv2d", "exp", "mul", "add"]),
    (takes_abs_for_increasing, ["abs", "linear", "add"]),
    (takes_prelu_for_increasing, ["prelu", "linear"]),
    (loses_a_corner, ["mul", "linear", "add"]),
    (pads_with_zero, ["pad", "relu"]),
    (sums_in_place_of_joining, ["amax", "relu", "linear"]),
    (tightens_too_far, ["relu", "linear"]),
    (lets_slopes_exceed_one, ["relu", "linear"]),
    (bends_at_the_wrong_side, ["leaky_relu", "abs", "prelu", "linear"]),
], ids=lambda value: getattr(value, "__name__", ""))  # fmt: skip
def test_planted_errors_are_found(plant, names, monkeypatch):
    plant(monkeypatch)
    for net in ("check_followed", "check_inside"):  # which find some of them too
        monkeypatch.setattr(certificates, net, lambda *args, **named: None)
    found = next((seed for seed in range(600) if tally([seed], names=names).broken), None)
    assert found is not None, "600 networks did not show the planted error"
    monkeypatch.undo()
    assert tally([found], names=names).broken == []
