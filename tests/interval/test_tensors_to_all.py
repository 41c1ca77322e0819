"""A box is a tensor to whoever asks: a network goes the way of tensors with it, or is refused."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Sized

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from hf_smoothing.interval import UnsupportedOperationError, box_around, linf_certificates, margin_bounds
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
    "dtype": lambda h: cut(h) if isinstance(h, torch.FloatTensor) else h,
    "requires_grad": lambda h: h if h.requires_grad else cut(h),
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


class Cut(torch.overrides.TorchFunctionMode):
    """What a network may do to all functions of torch within itself."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        return out.clamp(max=0.05) if getattr(func, "__name__", "") in ("add", "__add__", "relu") else out


class CutBelow(TorchDispatchMode):
    """The same below them, where a bound is several tensors."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        return out.clamp(max=0.05) if "relu" in str(func) or "clamp_min" in str(func) else out


class Saturating(torch.Tensor):
    """Weights that bring rules of their own."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        out = super().__torch_function__(func, types, args, kwargs)
        return out.clamp(-1, 1) if func is F.linear else out


def in_mode(mode):
    def function(self, h):
        with mode():
            return (h + 0.0).relu()

    return Hidden(function).eval()


@pytest.mark.parametrize("backward", ["none", "optimised"])
def test_operators_are_seen_by_a_mode_of_the_network(backward):
    found = linf_certificates(in_mode(Cut), pixels(), largest=0.9, backward=backward)[1]
    expected = linf_certificates(
        Hidden(lambda self, h: cut(cut(h + 0.0).relu())).eval(), pixels(), largest=0.9, backward=backward
    )[1]
    assert torch.equal(found, expected)


def test_a_mode_below_the_functions_is_refused():
    with pytest.raises(UnsupportedOperationError, match="has entered a mode of torch below its functions"):
        linf_certificates(in_mode(CutBelow), pixels(), largest=0.5)
    with CutBelow():  # around everything, such as a counter of operations, it is not the network's
        linf_certificates(Hidden(lambda self, h: h * 2.0).eval(), pixels(), largest=0.5)


@pytest.mark.parametrize("under", [contextlib.nullcontext, torch.no_grad])
def test_constants_with_rules_of_their_own_are_refused(under):
    weight = torch.eye(16).as_subclass(Saturating)

    def function(self, h):
        with under():
            return F.linear(h, weight)

    with pytest.raises(
        UnsupportedOperationError, match="'linear'. It takes a Saturating, a tensor with rules of its own"
    ):
        linf_certificates(Hidden(function).eval(), pixels(), largest=0.5)


class Reversed(torch.autograd.Function):
    """Passes on, and turns the gradient round."""

    @staticmethod
    def forward(ctx, x):
        return x

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2.0

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class DoubledInTwoSteps(Doubled):
    """As functions are written whose context is set up apart."""

    @staticmethod
    def forward(x):
        return x * 2.0

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass


class DoubledInInferenceMode(Doubled):
    @staticmethod
    def forward(ctx, x):
        with torch.inference_mode():
            return x * 2.0


class DoubledUnderAutocast(Doubled):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")
    def forward(ctx, x):
        return x * 2.0


def doubled_in_inference_mode(h):
    with torch.inference_mode():
        return h * 2.0


def doubled_without_gradients(h):
    with torch.no_grad():
        return h * 2.0


PASSED = {
    "a function that returns its input": Reversed.apply,
    "a function": Doubled.apply,
    "a function in two steps": DoubledInTwoSteps.apply,
    "a function in inference mode": DoubledInInferenceMode.apply,
    "a function under autocast": DoubledUnderAutocast.apply,
    "inference mode": doubled_in_inference_mode,
    "no gradients": doubled_without_gradients,
    "a reentrant checkpoint": lambda h: checkpoint(torch.relu, h, use_reentrant=True),
    "a checkpoint": lambda h: checkpoint(torch.relu, h, use_reentrant=False),
}
PLAIN = {name: lambda h: h * 2.0 for name in PASSED if "checkpoint" not in name} | {
    "a function that returns its input": lambda h: h,
    "no gradients": lambda h: h.detach() * 2.0,
}


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("name", PASSED)
def test_functions_of_autograd_are_followed_in_certificates_and_refused_where_they_lose_gradients(name):
    network = Hidden(lambda self, h: PASSED[name](h)).eval()
    plain = Hidden(lambda self, h: PLAIN.get(name, torch.relu)(h)).eval()
    found, expected = (linf_certificates(model, pixels(), largest=0.9)[1] for model in (network, plain))
    assert torch.equal(found, expected)
    gradients = []
    for model in (network, plain):
        box = box_around(pixels().double(), 0.05)
        if model is network and name not in ("a checkpoint", "no gradients"):
            with pytest.raises(UnsupportedOperationError, match="Its gradient is that of an autograd.Function"):
                margin_bounds(model.double(), box, torch.zeros(len(pixels()), dtype=torch.int64))
            return
        margin_bounds(model.double(), box, torch.zeros(len(pixels()), dtype=torch.int64)).lower[:, 1:].sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    assert gradients[0]
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize("training", [False, True])
def test_hooks_on_gradients_are_no_hindrance(training):
    network, plain = (Hidden(lambda self, h: h.relu()).eval() for _ in range(2))
    network.second.register_full_backward_hook(lambda module, into, out: None)
    network.first.register_full_backward_pre_hook(lambda module, out: None)
    if not training:
        found, expected = (linf_certificates(model, pixels(), largest=0.9)[1] for model in (network, plain))
        assert torch.equal(found, expected)
        return
    for model in (network, plain):
        box = box_around(pixels().double(), 0.05)
        margin_bounds(model.double(), box, torch.zeros(len(pixels()), dtype=torch.int64)).lower[:, 1:].sum().backward()
    gradients = ([p.grad for p in model.parameters() if p.grad is not None] for model in (network, plain))
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize("change", [
    lambda x: x.to("cpu"), lambda x: x.float(), lambda x: x.to(x.dtype), lambda x: x.to(torch.device("cpu"), non_blocking=True), lambda x: x.type_as(x),
])  # fmt: skip
def test_what_torch_returns_as_it_is_costs_no_tightness(change):
    class Ending(Hidden):
        def forward(self, x):
            return change(super().forward(x))

    ending, plain = (kind(lambda self, h: h.relu()).eval() for kind in (Ending, Hidden))
    found, expected = (linf_certificates(model, pixels(), largest=0.9)[1] for model in (ending, plain))
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
        lambda h: h.data,
        lambda h: h.grad_fn,
        lambda h: h.is_leaf,
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
        lambda h: h * np.ones(16, dtype=np.float32),
        lambda h: np.ones(16, dtype=np.float32) + h,
        lambda h: h - "a",
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


@pytest.mark.parametrize("name", ["grad_fn", "is_leaf", "grad"])
def test_asking_whether_a_property_is_there_is_refused_too(name):
    network = Hidden(lambda self, h: cut(h).relu() if hasattr(h, name) else h.relu()).eval()
    with pytest.raises(UnsupportedOperationError, match=f"no attribute '{name}', which tensors have"):
        linf_certificates(network, pixels(), largest=0.5)


def scripted(x: torch.Tensor):
    return x.clamp(max=0.05)


def test_a_box_can_be_printed_and_says_what_it_is():
    assert repr(box_around(images(2), 0.1)) == "Box(shape=(2, 3, 8, 8), dtype=torch.float64)"
