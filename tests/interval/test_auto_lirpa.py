"""Interval bounds beside those of auto_LiRPA, where that library happens to be installed (it cannot be required: its pins exclude current torch)."""

from __future__ import annotations

import pytest
import torch

from hf_smoothing.interval import Trace, box_around
from tests.support.bounded_networks import images, network
from tests.support.verifiers import import_lirpa


try:
    lirpa = import_lirpa()
except ImportError as error:
    pytest.skip(
        f"auto_LiRPA does not run here ({error}), so our interval bounds were NOT compared with it: pip install --no-deps auto_LiRPA==0.3 appdirs",
        allow_module_level=True,
    )


@pytest.mark.parametrize("name", ["linear", "mlp", "tanh", "sigmoid", "average pool", "max pool"])
@pytest.mark.parametrize("epsilon", [0.001, 0.05])
def test_the_same_interval_bounds(name, epsilon):
    model, x = network(name).float(), images(3).float()
    logits = model(box_around(x, epsilon, Trace()))
    ends = {"x_L": (x - epsilon).clamp(0, 1), "x_U": (x + epsilon).clamp(0, 1)}
    perturbation = lirpa.PerturbationLpNorm(norm=float("inf"), eps=epsilon, **ends)
    bounded = lirpa.BoundedModule(model, torch.empty_like(x))
    lower, upper = bounded.compute_bounds(x=(lirpa.BoundedTensor(x, perturbation),), method="IBP")
    torch.testing.assert_close(logits.lower.detach(), lower.detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits.upper.detach(), upper.detach(), rtol=1e-4, atol=1e-4)
