"""Random networks of everything that boxes accept: each is written as it is, or refused; none as another function."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
import torch

from hf_smoothing.interval import UnsupportedOperationError
from hf_smoothing.interval.export import graph, network, to_onnx
from tests.interval.test_export import ran
from tests.support.bounded_networks import network as bounded
from tests.support.fuzz_networks import Program, draw_program
from tests.support.tiny import smoothed


SHAPE = (3, 4, 4)


def fate(program: Program, seed: int) -> str:
    """What becomes of a network: "written", "refused", "batch" (runs on several images only), or what is wrong."""
    x = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(seed + 1))
    try:
        with torch.no_grad():
            wanted = np.concatenate([program(image.clone()).numpy() for image in x.split(1)])
    except (RuntimeError, IndexError):  # also the batch cut into as many tensors as there are images
        return "batch"
    try:
        written = to_onnx(program, SHAPE)
    except UnsupportedOperationError:
        return "refused"
    except Exception as error:  # neither a file nor a refusal
        return f"seed {seed}: {type(error).__name__}: {error}: {program}"
    off = np.abs(ran(written, x) - wanted).max()
    return (
        "written" if off < 1e-4 * max(1.0, np.abs(wanted).max()) else f"seed {seed}: logits differ by {off}: {program}"
    )


def fates(seeds: range) -> Counter[str]:
    found = Counter(fate(draw_program(seed), seed) for seed in seeds)
    print(found)
    return found


@pytest.mark.slow
def test_twenty_networks_are_written_as_they_are_or_refused():
    found = fates(range(20))
    assert set(found) <= {"written", "refused", "batch"}
    assert found["written"] >= 5


@pytest.mark.parametrize("seed", [73, 89, 157, 176, 191, 294])
def test_divisions_of_shapes_inputs_detached_in_place_and_negative_paddings_are_written_or_refused(seed):
    assert fate(draw_program(seed), seed) in {"written", "refused", "batch"}


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, 2000, 200))
def test_two_thousand_networks_are_written_as_they_are_or_refused(start):
    found = fates(range(start, start + 200))
    assert set(found) <= {"written", "refused", "batch"}
    assert found["written"] > 50


class Divided(torch.nn.Module):
    """torch's exporter forgets the divisor."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(12, 3)

    def forward(self, x):
        return self.head(torch.nn.functional.avg_pool2d(x, 2, divisor_override=3).flatten(1))


def test_an_argument_that_the_exporter_forgets_is_noticed():
    with pytest.raises(UnsupportedOperationError, match=r"another function than the network.*differ by \d"):
        to_onnx(Divided().eval(), SHAPE)


def test_a_wrong_constant_is_noticed(monkeypatch):
    def folded(program):
        model = graph.cleaned(program)
        weight = max(model.graph.initializer, key=lambda one: len(one.raw_data))
        values = onnx.numpy_helper.to_array(weight) * np.float32(1.01)
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        return model

    to_onnx(bounded("mlp").float(), (3, 8, 8))
    monkeypatch.setattr(network, "cleaned", folded)
    with pytest.raises(UnsupportedOperationError, match="another function than the network"):
        to_onnx(bounded("mlp").float(), (3, 8, 8))


def test_wrong_matrices_of_a_resize_are_noticed(monkeypatch):
    right = network._matrix
    monkeypatch.setattr(network, "_matrix", lambda *given: right(*given) * 1.01)
    with pytest.raises(UnsupportedOperationError, match="another function than the network"):
        to_onnx(smoothed("resnet", model_size=(12, 20)), (3, 16, 16))


def test_an_invalid_graph_is_refused():
    model = to_onnx(bounded("mlp").float(), (3, 8, 8))
    model.graph.node[0].input[0] = "nothing"
    with pytest.raises(UnsupportedOperationError, match="a graph that ONNX does not allow"):
        graph.check_operators(model)
