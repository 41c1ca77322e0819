"""Changes in place: a box is followed as its tensor would be, or refused, and no stored bound is ever written to."""

from __future__ import annotations

import operator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hf_smoothing.interval import UnsupportedOperationError, box_around, linf_certificates
from hf_smoothing.interval.registry import RULES
from tests.support.bounded_networks import Hidden, attacked, broken, every, images, pixels


def twice(change):
    return lambda self, h: change(self.second(change(h)))


def preactivation(self, h):
    """As in many a residual network: the skip connection takes what was changed in place."""
    skip = h
    return F.relu(h, inplace=True) + skip


def statement(self, h):
    F.relu(h, inplace=True)
    return self.second(h)


def added(self, h):
    other = h
    other += 1.0
    other *= self.second(h)
    return h


def through_a_view(self, h):
    view = h.view(-1, 4, 4)
    view.relu_()
    return view.flatten(1)


FOLLOWED = {
    "relu_": twice(lambda h: h.relu_()),
    "torch.relu_": twice(torch.relu_),
    "F.relu_": twice(F.relu_),
    "elu_": twice(F.elu_),
    "clamp_": twice(lambda h: h.clamp_(-0.5, 0.5)),
    "tanh_": twice(lambda h: h.tanh_()),
    "abs_": twice(lambda h: h.abs_()),
    "leaky_relu_": twice(lambda h: F.leaky_relu_(h, 0.125)),
    "module": twice(nn.ReLU(inplace=True)),
    "preactivation": preactivation,
    "statement": statement,
    "added": added,
    "through a view": through_a_view,
}


@every(FOLLOWED)
def test_changes_in_place_are_followed(name, backward):
    _, radii, found = attacked(FOLLOWED[name], backward)
    assert (radii > 0).all()
    assert found == 0


@pytest.mark.parametrize("backward", ["none", "optimised"])
def test_in_place_and_out_of_place_are_the_same(backward):
    def function(self, h):
        h -= 0.5
        h *= 2.0
        h /= 4.0
        return F.relu(self.second(h.relu_()), inplace=True)

    def twin(self, h):
        return F.relu(self.second(((h - 0.5) * 2.0 / 4.0).relu()))

    found, plain = (
        linf_certificates(Hidden(f).eval(), pixels(), largest=0.3, backward=backward, steps=2)
        for f in (function, twin)
    )
    assert torch.equal(found[0], plain[0])
    assert torch.allclose(found[1], plain[1], atol=1e-6)


def changed_and_indexed(self, h):
    part = h[:, :8]
    F.elu(h, inplace=True)
    return torch.cat([part, part], 1)


def changed_under_a_view(self, h):
    other = h.view(len(h), 4, 4)
    h.add_(1.0)
    return other.flatten(1)


def changed_through_a_view(self, h):
    F.relu_(h.view(-1, 4, 4))
    return h


def changed_piece(self, h):
    first, second = h.chunk(2, 1)
    first.relu_()
    return torch.cat([first, second], 1)


def changed_detached(self, h):
    other = h.detach()
    h.mul_(-1.0)
    return other


def changed_transposed(self, h):
    other = h.T
    other.tanh_()
    return h


def changed_under_identity(self, h):
    other = F.dropout(h, 0.5, training=False)
    h.mul_(-1.0)
    return other


@pytest.mark.parametrize("function", [
    changed_and_indexed, changed_under_a_view, changed_through_a_view, changed_piece, changed_detached, changed_transposed,
    changed_under_identity,
])  # fmt: skip
def test_memory_that_changed_under_another_view_is_refused(function):
    with pytest.raises(
        UnsupportedOperationError, match="uses a tensor again whose memory was changed in place by '.*_?'"
    ):
        linf_certificates(Hidden(function).eval(), pixels(), largest=0.1)


def test_logits_whose_memory_changed_are_refused():
    class Late(nn.Module):
        def forward(self, x):
            logits = x.flatten(1)
            view = logits.view(-1, 12)
            logits.mul_(-1.0)
            return view

    with pytest.raises(UnsupportedOperationError, match="'the logits' uses a tensor again"):
        linf_certificates(Late().eval(), pixels(), largest=0.1)


def test_an_index_after_a_change_takes_the_changed_entries():
    def function(self, h):
        F.elu(h, inplace=True)
        return torch.cat([h[..., :8], h[..., 8:]], 1)

    model, x = Hidden(function).eval(), pixels()
    classes, radii = linf_certificates(model, x, largest=0.9, backward="optimised", steps=2)
    assert broken(model, x, classes, radii) == 0


def store(self, h):
    out = torch.zeros(len(h), 16)
    out[:, :] = h
    return out


def item(self, h):
    h[:, 0] = 0.0
    return h


def argument(self, h):
    return torch.add(h, 1.0, out=torch.zeros(len(h), 16))


@pytest.mark.parametrize(("function", "named"), [
    (lambda self, h: torch.zeros(len(h), 16).add_(h), "'add_'. A tensor that is no box is changed in place by a box"),
    (lambda self, h: torch.zeros(len(h), 16).copy_(h), "'copy_'"), (store, "'__setitem__'"), (item, "'__setitem__'"),
    (argument, "'add'. Its bound is for the arguments .*unexpected keyword argument 'out'"),
    (lambda self, h: h.fill_(1.0), "'fill_'"), (lambda self, h: h.unsqueeze_(0)[0], "'unsqueeze_'. In place it changes shape"),
])  # fmt: skip
def test_other_writing_is_refused_by_name(function, named):
    with pytest.raises(UnsupportedOperationError, match=named):
        linf_certificates(Hidden(function).eval(), pixels(), largest=0.1)


def overlapping(self, h):
    h[:, 1:].add_(h[:, :-1])
    return h


def shifted(self, h):
    late, early = h[:, 1:], h[:, :-1]
    late.add_(early)  # torch reads entries that it has written, some of them
    return torch.cat([late, late[:, :1]], 1)


@pytest.mark.parametrize("function", [overlapping, shifted])
def test_reading_the_memory_that_is_changed_is_refused(function):
    with pytest.raises(UnsupportedOperationError, match="'add_'. It reads another view of the memory that it changes"):
        linf_certificates(Hidden(function).eval(), pixels(), largest=0.1)


@pytest.mark.parametrize(("change", "named"), [
    (operator.iadd, "add_"), (operator.isub, "sub_"), (operator.imul, "mul_"), (operator.itruediv, "div_"), (operator.ipow, "pow"),
])  # fmt: skip
def test_an_operator_that_changes_a_tensor_by_a_box_is_refused(change, named):
    """Its other name would keep the old content, which is right at the image (0 there) and wrong near it."""

    def function(self, h):
        store = torch.ones(len(h), 16)
        known = store
        store = change(store, F.relu(h - h.detach().clone().abs() - 5.0) + 1.0)
        return known

    with pytest.raises(UnsupportedOperationError, match=f"'{named}"):
        linf_certificates(Hidden(function).eval(), pixels(), largest=0.9)


@pytest.mark.parametrize("origins", [False, True])
def test_no_function_writes_to_the_ends_of_a_box(origins):
    """All functions that have a rule, with the argument that most of them take."""
    from hf_smoothing.interval import Trace

    for function, (operation, _) in RULES.items():
        for args in (
            (),
            (2,),
            (2, 1),
            (torch.ones(8, 8).double(),),
            (torch.zeros(3).double(), torch.ones(3).double()),
        ):
            box = box_around(images(2), 0.1, Trace(outward=True, origins=origins))
            base = box.frozen()
            lower, upper = box.lower.clone(), box.upper.clone()
            name = function.__name__
            try:
                getattr(box, name)(*args) if hasattr(torch.Tensor, name) else function(box, *args)
            except (TypeError, ValueError, RuntimeError):  # refused, or no such arguments
                continue
            assert torch.equal(base.lower, lower), operation.name
            assert torch.equal(base.upper, upper), operation.name


def test_the_same_object_has_the_new_content():
    box = box_around(images(1), 0.1)
    again = box
    again += 1.0
    assert again is box
    assert torch.allclose(box.lower, box_around(images(1), 0.1).lower + 1.0)


def test_pixels_of_the_caller_stay():
    class Centred(nn.Module):
        def forward(self, x):
            return x.sub_(0.5).flatten(1)

    x = pixels()
    before = x.clone()
    linf_certificates(Centred().eval(), x, largest=0.1)
    assert torch.equal(x, before)


@pytest.mark.parametrize("backward", ["none", "optimised"])
def test_constants_that_the_network_changes_later(backward):
    """Backward bounds look at them after the network is done."""

    def function(self, h):
        factor, shift, weight = torch.ones(16), torch.ones(16), torch.eye(16)
        places = torch.arange(16)
        h = (F.linear(h * factor + shift, weight) / factor)[:, places]
        for tensor in (factor, shift, weight):
            tensor.mul_(-3.0)
        places.zero_()
        return h.relu()

    model, x = Hidden(function).eval(), pixels()
    classes, radii = linf_certificates(model, x, largest=0.9, backward=backward, steps=2)
    assert (radii > 0).any()
    assert broken(model, x, classes, radii) == 0
