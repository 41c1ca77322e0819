"""A box is a tensor to whoever asks: a network goes the way of tensors with it, or is refused."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sized

import pytest
import torch
from torch.utils import _pytree

from hf_smoothing.interval import UnsupportedOperationError, box_around, linf_certificates
from tests.support.bounded_networks import Hidden, images, pixels


def cut(h):
    """What matters: without it the network is another function, whose bounds are wider in places and narrower in others."""
    return h.clamp(max=0.05)


@functools.singledispatch
def dispatched(h):
    return h


dispatched.register(torch.Tensor)(cut)

ASKING = {
    "isinstance": lambda h: cut(h) if isinstance(h, torch.Tensor) else h,
    "is_tensor": lambda h: cut(h) if torch.is_tensor(h) else h,
    "issubclass": lambda h: cut(h) if issubclass(type(h), torch.Tensor) else h,
    "singledispatch": dispatched,
    "pytree": lambda h: _pytree.tree_map_only(torch.Tensor, cut, (h, 1))[0],
    "iterable": lambda h: cut(h) if isinstance(h, Iterable) else h,
    "sized": lambda h: cut(h) if isinstance(h, Sized) else h,
    "an attribute that tensors have not": lambda h: h if hasattr(h, "last_hidden_state") else cut(h),
    "printed": lambda h: cut(h) if f"{h}{h!r}" else h,
    "parameter": lambda h: h if isinstance(h, torch.nn.Parameter) else cut(h),
}


@pytest.mark.parametrize("backward", ["none", "optimised"])
@pytest.mark.parametrize("name", ASKING)
def test_a_network_that_asks_goes_the_way_of_tensors(name, backward):
    asking = Hidden(lambda self, h: ASKING[name](h).relu()).eval()
    without = Hidden(lambda self, h: cut(h).relu()).eval()
    found, expected = (
        linf_certificates(model, pixels(), largest=0.9, backward=backward) for model in (asking, without)
    )
    assert (expected[1] > 0).any()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_hook_that_asks_is_followed():
    hooked = Hidden(lambda self, h: h.relu()).eval()
    hooked.first.register_forward_hook(lambda module, args, output: cut(output) if torch.is_tensor(output) else output)
    without = Hidden(lambda self, h: cut(h).relu()).eval()
    found, expected = (linf_certificates(model, pixels(), largest=0.9)[1] for model in (hooked, without))
    assert torch.equal(found, expected)


def caught(attempt):
    """A network that goes another way where something fails, as it does with a box and not with a tensor."""

    def function(self, h):
        try:
            attempt(h)
        except Exception:
            return h.relu()
        return cut(h).relu()

    return Hidden(function).eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "attempt",
    [
        lambda h: h.requires_grad,
        lambda h: h.data,
        lambda h: h.grad_fn,
        lambda h: h.is_cuda,
        list,
        lambda h: tuple(h),
        lambda h: torch.jit.script(scripted)(h),
        lambda h: torch.vmap(torch.relu)(h),
        lambda h: torch.func.grad(lambda x: x.sum())(h),
        lambda h: torch.ops.aten.relu(h),
        lambda h: torch.ops.aten.relu.default(h),
        lambda h: torch.tensor(h),
        lambda h: torch.as_tensor(h).tolist(),
        lambda h: h.numpy(),
        lambda h: h.trace(),
        lambda h: h.softmax(1),
        lambda h: h.__setitem__(0, 0.0),
        lambda h: setattr(h, "data", h),
        lambda h: setattr(h, "requires_grad", True),
        lambda h: h.requires_grad_(),
        lambda h: torch.zeros(7, 16).copy_(h),
        lambda h: float(h.sum()),
    ],
)
def test_a_network_that_catches_what_only_a_box_raises_is_refused(attempt):
    with pytest.raises(UnsupportedOperationError):
        linf_certificates(caught(attempt), pixels(), largest=0.5)


@pytest.mark.parametrize("name", ["layout", "grad_fn", "is_leaf", "grad"])
def test_asking_whether_a_property_is_there_is_refused_too(name):
    network = Hidden(lambda self, h: cut(h).relu() if hasattr(h, name) else h.relu()).eval()
    with pytest.raises(UnsupportedOperationError, match=f"no attribute '{name}', which tensors have"):
        linf_certificates(network, pixels(), largest=0.5)


def scripted(x: torch.Tensor):
    return x.clamp(max=0.05)


def test_a_box_can_be_printed_and_says_what_it_is():
    assert repr(box_around(images(2), 0.1)) == "Box(shape=(2, 3, 8, 8), dtype=torch.float64)"
