"""Every refusal names the operation and its place; none is a raw error of torch."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import RegNetConfig, RegNetForImageClassification

from hf_smoothing import SmoothedClassifier
from hf_smoothing.interval import UnsupportedOperationError, box_around, certify_dataset_linf, linf_certificates
from hf_smoothing.interval.registry import OPERATIONS
from hf_smoothing.interval.search import BACKWARD
from tests.support.bounded_networks import Hidden, attacked, broken, every, images, pixels


def _under_autocast(h):
    with torch.autocast("cuda" if torch.cuda.is_available() else "cpu", dtype=torch.bfloat16):
        return h.relu()


def _kept(self, h):
    """Of the call before, if it was for as many images."""
    before = self.__dict__.get("kept")
    self.kept = h
    return h + before if before is not None and len(before) == len(h) else h


def _copied(h):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have another spelling
        return torch.tensor(h)


def _caught(self, h):
    try:
        return h.softmax(1)
    except Exception:
        return h


def _caught_comparison(self, h):
    try:
        return h if h > 0 else -h
    except Exception:
        return h


REFUSED = {
    "caught": (_caught, "'softmax'. At the end of a network leave it out and return logits"),
    "caught comparison": (_caught_comparison, "'gt'. A box has no single value"),
    "softmax": (lambda self, h: h.softmax(1), "'softmax'. At the end of a network leave it out and return logits"),
    "log_softmax": (lambda self, h: h.log_softmax(1), "'log_softmax'. At the end of a network leave it out"),
    "functional softmax": (lambda self, h: F.softmax(h, 1), "'softmax'. At the end of a network leave it out"),
    "softmin": (lambda self, h: F.softmin(h, 1), "'softmin'. At the end of a network leave it out"),
    "addmm of a matrix": (
        lambda self, h: torch.addmm(torch.ones(len(h), 16), h, torch.eye(16)),
        "'linear'. Its bias must be one number, or one for each of 16 outputs",
    ),
    "scaled addmm": (
        lambda self, h: torch.addmm(torch.ones(16), h, torch.eye(16), beta=2),
        "'addmm'. Its bound is for a constant bias .* write it as a sum and a matmul",
    ),
    "half": (lambda self, h: h.half().float(), "'to'. A run in torch.float16 is not covered: call .float"),
    "bfloat16": (lambda self, h: h.bfloat16().float(), "'to'. A run in torch.bfloat16 is not covered: call .float"),
    "attention": (
        lambda self, h: F.scaled_dot_product_attention(*[h.view(-1, 4, 4)] * 3).flatten(1),
        "'scaled_dot_product_attention'",
    ),
    "matmul": (
        lambda self, h: (h.view(-1, 4, 4) @ h.view(-1, 4, 4).mT).flatten(1),
        "'matmul'. The product of two boxes",
    ),
    "einsum": (lambda self, h: torch.einsum("bi,ij->bj", h, torch.eye(16)), "'einsum'. Write it as linear, matmul"),
    "weights": (lambda self, h: F.linear(torch.ones(16), h).T, "'linear'. A box may not stand for its 'weight'"),
    "where": (
        lambda self, h: torch.where(torch.ones(16) > 0, h, 0.0),
        "'where'. Which branch is taken depends on the pixels",
    ),
    "comparison": (lambda self, h: h if h > 0 else -h, "'gt'. A box has no single value"),
    "comparison of a tensor": (
        lambda self, h: h * (torch.zeros(16) < h),
        "'lt'. A box has no single value|'gt'. A box has",
    ),
    "equality": (lambda self, h: h if h == 0 else -h, "'eq'"),
    "truth": (lambda self, h: h if h else -h, "'__bool__'"),
    "float": (lambda self, h: h * float(h), "'__float__'"),
    "int": (lambda self, h: h * int(h), "'__int__'"),
    "item": (lambda self, h: h * h.item(), "'item'. A box has no single value"),
    "tolist": (lambda self, h: torch.tensor(h.tolist()), "'tolist'. A box has"),
    "numpy": (lambda self, h: torch.from_numpy(h.numpy()), "'numpy'. A box has"),
    "array": (lambda self, h: torch.from_numpy(np.asarray(h)), "'__array__'. A box has"),
    "data": (lambda self, h: h.data, "no attribute 'data', which tensors have. A box has"),
    "tensor": (
        lambda self, h: _copied(h),
        "'detach'. It is called out of sight of the rules, as scripts",
    ),
    "iteration": (lambda self, h: torch.stack(list(h)), "'__iter__'. Interval bounds are for"),
    "trace": (lambda self, h: h.mT.trace(), "'trace'"),
    "clamp": (lambda self, h: h.clamp(min=h), "'clamp'. A box may not stand for its 'min'"),
    "clamp of a tensor": (lambda self, h: torch.zeros(16).clamp(min=h), "'clamp'. A box may not stand for its 'min'"),
    "index": (lambda self, h: torch.ones(16)[h], "'__getitem__'|'__index__'"),
    "power": (lambda self, h: 2.0**h, "'pow'. A box may not stand for its 'exponent'"),
    "fraction": (lambda self, h: h**0.5, "'pow'. Its bound is for whole exponents from 1 to 64, got 0.5"),
    "negative power": (lambda self, h: h**-1, "'pow'. Its bound is for whole exponents"),
    "floor": (lambda self, h: h // 2, "'__floordiv__'"),
    "rounding mode": (
        lambda self, h: torch.div(h, 2, rounding_mode="floor"),
        "'div'. Its bound is for the arguments .input, other.",
    ),
    "division by 0": (lambda self, h: h / 0, "'div'. It divides by a constant that is 0"),
    "unknown function": (lambda self, h: h.round(), "'round'. It jumps"),
    "array constant": (lambda self, h: h * np.ones(16), "tensors and numbers, got ndarray"),
    "maximum": (lambda self, h: h.max(1).values, "'max'. The place of a maximum depends on the pixels; use amax"),
    "dtype": (
        lambda self, h: h.mean(1, keepdim=True, dtype=torch.float64),
        "'mean'. Its bound is for the dtype of its entries, torch.float32, got dtype=torch.float64",
    ),
    "bits": (lambda self, h: h.view(torch.int32), "'view'. Its bound is for whole numbers"),
    "whole": (lambda self, h: h.long(), "'long'"),
    "shapes": (
        lambda self, h: h + torch.ones(5),
        "There is no bound for 'add' with these arguments: The size of tensor",
    ),
    "an error of torch": (
        lambda self, h: F.interpolate(h, size=(3, 9)).flatten(1),
        "There is no bound for 'interpolate' with these arguments|'interpolate'. ",
    ),
    "another error of torch": (
        lambda self, h: F.interpolate(h[:, None], size=(3, 9)).flatten(1),
        "There is no bound for 'interpolate' with these arguments: Input and output must have the same number of spatial",
    ),
    "norm": (lambda self, h: F.layer_norm(h, (16,)), "'layer_norm'. It divides by a spread"),
    "normalize": (lambda self, h: F.normalize(h), "'normalize'"),
    "padding": (
        lambda self, h: F.pad(h, (1, 1), mode="reflection"),
        "'pad'. Its bound is for the modes constant, reflect",
    ),
    "circular padding that cuts": (
        lambda self, h: F.pad(h, (1, -1), mode="circular"),
        r"'pad'. In mode circular its bound is for numbers >= 0, got \(1, -1\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_operation_and_its_place(name):
    function, message = REFUSED[name]
    with pytest.raises(UnsupportedOperationError, match=message) as refusal:
        linf_certificates(Hidden(function).eval(), pixels(), largest=0.1)
    assert re.search(r"\(in (Hidden|Linear).*line \d+\)$", str(refusal.value))


def test_the_place_is_that_of_the_innermost_module():
    model = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(12, 4), nn.Softmax(1))).eval()
    with pytest.raises(UnsupportedOperationError, match=r"'softmax'.* \(in Softmax '1\.1'"):
        linf_certificates(model, pixels(), largest=0.1)


@pytest.mark.parametrize("mode", ["bicubic", "lanczos", "cubic", "something"])
@pytest.mark.parametrize("antialias", [False, True])
def test_modes_of_resizing_are_listed(mode, antialias):
    with pytest.raises(
        UnsupportedOperationError, match=f"'interpolate'. Its bound is for the modes nearest, .* got '{mode}'"
    ):
        F.interpolate(box_around(images(2), 0.1), 4, mode=mode, antialias=antialias)


def test_antialiasing_is_known_for_one_mode():
    box = box_around(images(2), 0.1)
    F.interpolate(box, 4, mode="bilinear", antialias=True)
    for mode in ("nearest", "area"):
        with pytest.raises(UnsupportedOperationError, match="with antialias=True is for mode 'bilinear'"):
            F.interpolate(box, 4, mode=mode, antialias=True)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*is deprecated")
def test_scripted_modules_are_named():
    scripted = torch.jit.script(nn.Linear(12, 3))
    with pytest.raises(UnsupportedOperationError, match="scripted module, got '1'. Pass the module that was scripted"):
        linf_certificates(nn.Sequential(nn.Flatten(), scripted).eval(), pixels(), largest=0.1)


def test_a_network_to_compile_is_bounded_without_compiling_it():
    model, x = Hidden(lambda self, h: h.relu()).eval(), pixels()

    def refuse(graph, inputs):
        raise AssertionError("compiled")

    classes, radii = linf_certificates(torch.compile(model, backend=refuse), x, largest=0.3)
    assert torch.equal(radii, linf_certificates(model, x, largest=0.3)[1])
    assert broken(model, x, classes, radii) == 0


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize(
    "norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm]
)
def test_weights_that_are_computed_are_bounded(norm):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), norm(nn.Linear(12, 16)), nn.ReLU(), nn.Linear(16, 3)).eval(), pixels()
    classes, radii = linf_certificates(model, x, largest=0.3, backward="optimised")
    assert (radii > 0).any()
    assert broken(model, x, classes, radii) == 0


def _asked(h):
    """All that a tensor says of itself whatever is in it, by methods, properties and functions."""
    facts = (
        h.is_contiguous(),
        h.is_contiguous(memory_format=torch.contiguous_format),
        not h.is_complex(),
        not torch.is_complex(h),
    )
    facts += h.stride() == (16, 1), h.stride(1) == 1, h.element_size() == 4, h.itemsize == 4, h.storage_offset() == 0
    facts += (
        h.nelement() == torch.numel(h) == h.numel(),
        torch.is_floating_point(h),
        h.is_signed(),
        h.layout is torch.strided,
    )
    facts += h.is_cpu, not h.is_cuda, not h.is_sparse, not h.is_quantized, not h.is_meta, h.get_device() == -1
    return all(facts) and h.nbytes == 4 * h.numel()


EASY = {
    "power": lambda self, h: h**2 + h.pow(3),
    "abs": lambda self, h: abs(h) + torch.abs(h),
    "transposed": lambda self, h: (self.second.weight @ h.T).T.relu(),
    "matmul": lambda self, h: (h @ self.second.weight).relu(),
    "functional weights": lambda self, h: F.linear(h, self.second.weight.abs() * 2).relu(),
    "reciprocal": lambda self, h: 1 / (h.sigmoid() + 0.125),
    "quotient": lambda self, h: h / (h.abs() + 1.0),
    "product": lambda self, h: h * h.sigmoid(),
    "prelu": lambda self, h: F.prelu(h, torch.linspace(-1, 1, 16)),
    "pad": lambda self, h: F.pad(h, (2, 2), value=0.5)[:, 4:].relu(),
    "chunk": lambda self, h: torch.cat([part.relu() for part in h.chunk(4, 1)], 1),
    "split and stack": lambda self, h: torch.stack(h.split([8, 8], 1), 2).amax(2).repeat(1, 2),
    "unbind": lambda self, h: sum(h.view(-1, 2, 8).unbind(1)).relu().repeat(1, 2),
    "maxout": lambda self, h: torch.maximum(h, self.second(h)),
    "root": lambda self, h: (h.square() + 0.5).sqrt(),
    "mish": lambda self, h: F.mish(h),
    "hardswish": lambda self, h: F.hardswish(4.0 * h),
    "rrelu": lambda self, h: F.rrelu(h, 0.1, 0.3),
    "addmm": lambda self, h: torch.addmm(self.second.bias, h, self.second.weight).relu(),
    "made alike": lambda self, h: (h * torch.ones_like(h) + h.new_full((16,), 0.5)).relu() + h.new_zeros(len(h), 16),
    "metadata": lambda self, h: (h if _asked(h) else 0.0 * h).relu(),
    "numpy number": lambda self, h: np.float32(0.5) * h.relu() - np.float64(0.25),
}


@every(EASY)
def test_what_is_easy_is_bounded(name, backward):
    _, radii, found = attacked(EASY[name], backward)
    assert (radii > 0).any()
    assert found == 0


def test_a_division_by_an_interval_around_0():
    with pytest.raises(UnsupportedOperationError, match="'reciprocal'. It divides by an interval that holds 0"):
        1.0 / (box_around(images(2), 0.1) - 0.5)
    model, x = Hidden(lambda self, h: 1 / (h + 0.5)).eval(), pixels()
    classes, radii = linf_certificates(model, x, largest=0.9)  # narrow boxes do not hold it
    assert (radii > 0).any()
    assert broken(model, x, classes, radii) == 0


def test_regnet_y_is_bounded():
    torch.manual_seed(0)
    config = RegNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], groups_width=4, num_labels=3, layer_type="y"
    )
    model = SmoothedClassifier.from_base_pretrained(
        RegNetForImageClassification(config), sigma=0.25, size=16, image_mean=[0.5] * 3, image_std=[0.25] * 3
    ).eval()
    x = images(3, 16).float()
    classes, radii = linf_certificates(model, x, largest=0.1)
    assert (radii > 0).any()
    assert broken(model.classify, x, classes, radii, 50) == 0


def test_the_page_lists_every_rule():
    page = (Path(__file__).parents[2] / "docs" / "interval.md").read_text()
    listed = page.split("<!-- operations -->")[1].split("<!-- end -->")[0]
    assert sorted(re.findall(r"`(\w+)`", listed)) == sorted(name.strip("_") for name in OPERATIONS)


def test_a_single_output_is_no_classifier(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 1)).eval()
    images = torch.rand(2, 3, 4, 4)
    for dtype in (torch.float32, torch.bfloat16):
        with pytest.raises(ValueError, match=r"at least two classes, got 1, as for regression"):
            linf_certificates(model.to(dtype), images.to(dtype), largest=0.1, cover_run=dtype == torch.float32)
    with pytest.raises(ValueError, match="at least two classes"):
        certify_dataset_linf(
            model.float(), [{"pixel_values": image} for image in images], tmp_path / "run", largest=0.1
        )
    assert not (tmp_path / "run").exists()


SIZES = {  # what torch takes one by one, as one sequence, or by name; a new operation with any number of arguments must be entered
    "reshape": (6, 2, 6), "view": (6, 2, 6), "permute": (0, 2, 3, 1), "expand": (6, 3, 2, 2), "repeat": (1, 2, 1, 1), "flip": (1, 2), "squeeze": (1,),
    "new_zeros": (6, 2), "new_ones": (6, 2),
}  # fmt: skip


def test_sizes_and_dimensions_go_by_torch_s_own_names():
    assert {name: operation.variadic for name, operation in OPERATIONS.items() if operation.variadic and name != "to"} == {
        "reshape": "shape", "view": "size", "permute": "dims", "expand": "size", "repeat": "repeats", "flip": "dims", "squeeze": "dim",
        "new_zeros": "size", "new_ones": "size",
    }  # fmt: skip
    for name in ("new_zeros", "new_ones"):  # no boxes come of these
        x = pixels()
        assert torch.equal(getattr(box_around(x, 0.1), name)(size=SIZES[name]), getattr(x, name)(size=SIZES[name]))
    for name, sizes in ((name, sizes) for name, sizes in SIZES.items() if not name.startswith("new_")):
        key = OPERATIONS[name].variadic
        value = sizes[0] if name == "squeeze" else sizes
        tensor = getattr(pixels(), name)(**{key: value})
        for box in (
            getattr(box_around(pixels(), 0.1), name)(**{key: value}), getattr(box_around(pixels(), 0.1), name)(*sizes),
        ):  # fmt: skip
            assert box.shape == tensor.shape
            assert torch.equal(box.lower, getattr((pixels() - 0.1).clamp(min=0.0), name)(*sizes))
    assert torch.permute(box_around(pixels(), 0.1), dims=(0, 2, 3, 1)).shape == (6, 2, 2, 3)


@pytest.mark.parametrize("operator", [torch.ops.aten.relu, torch.ops.aten.relu.default], ids=str)
def test_operators_of_exported_modules_are_refused_with_the_cure(operator):
    with pytest.raises(
        UnsupportedOperationError, match=r"an operator of torch\.ops.* certify the module that was exported"
    ):
        linf_certificates(Hidden(lambda self, h: operator(h)).eval(), pixels(), largest=0.1)


@pytest.mark.parametrize("shape", [(3,), (1, 3), (1, 1), (1,), ()], ids=str)
@pytest.mark.parametrize("last", [True, False])
def test_a_bias_of_any_shape_that_linear_layers_take(shape, last):
    bias = torch.tensor([0.3, -0.2, 0.1])[: max(1, torch.Size(shape).numel())].reshape(shape)

    def function(self, h):
        return F.linear(h, self.head.weight, bias)

    model = Hidden(lambda self, h: h.relu())
    if last:
        model.forward = lambda x: function(model, model.second(model.first(x.flatten(1)).relu()))
    else:
        model.forward = lambda x: (
            function(model, model.first(x.flatten(1)).relu()).relu() * torch.tensor([1.0, 2.0, 3.0])
        )
    for backward in BACKWARD:
        classes, radii = linf_certificates(model.eval(), pixels(), largest=0.9, backward=backward, steps=2)
        assert (radii > 0).any()
        assert not broken(model, pixels(), classes, radii, 50)


@pytest.mark.parametrize("shape", [(6, 3), (3, 1), (1, 6, 3)], ids=str)
def test_a_bias_of_each_row_is_refused(shape):
    with pytest.raises(UnsupportedOperationError, match=r"one for each of 3 outputs, got shape"):
        linf_certificates(
            Hidden(lambda self, h: F.linear(h, torch.ones(3, 16), torch.ones(shape))).eval(), pixels(), largest=0.1
        )


@pytest.mark.parametrize("made_inside", [True, False])
@pytest.mark.parametrize("backward", BACKWARD)
def test_inference_mode_changes_nothing(backward, made_inside):
    wanted = linf_certificates(
        Hidden(lambda self, h: h.relu()).eval(), pixels(), largest=0.9, backward=backward, steps=2
    )
    with torch.inference_mode(made_inside):
        model = Hidden(lambda self, h: h.relu()).eval()
    with torch.inference_mode():
        for x in (pixels(), pixels().double()):
            found = linf_certificates(model, x, largest=0.9, backward=backward, steps=2)
            assert torch.equal(found[0], wanted[0])
            assert torch.allclose(found[1], wanted[1], atol=1e-7)


@pytest.mark.parametrize("made", [
    torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr, lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8),
], ids=["coo", "csr", "quantised"])  # fmt: skip
@pytest.mark.parametrize("place", ["parameter", "buffer", "constant", "matmul"])
@pytest.mark.filterwarnings("ignore:Sparse", "ignore:torch.quantize")
def test_weights_that_are_not_dense_are_refused_by_name(made, place):
    weight = made(torch.eye(16)[:3])
    if place == "parameter" and weight.is_quantized:
        pytest.skip("no gradients")
    model = Hidden(lambda self, h: torch.matmul(h, weight.t()) if place == "matmul" else F.linear(h, weight))
    if place == "parameter":
        model.own = nn.Parameter(weight)
    elif place == "buffer":
        model.register_buffer("own", weight)
    where = (
        r"weights, got 'own'\. Call to_dense\(\)"
        if place in ("parameter", "buffer")
        else r"tensors\. Call to_dense\(\)"
    )
    with pytest.raises(
        UnsupportedOperationError, match=rf"no sound bound for (sparse_coo|sparse_csr|sparse_csc|quantised) {where}"
    ):
        linf_certificates(model.eval(), pixels(), largest=0.1)
