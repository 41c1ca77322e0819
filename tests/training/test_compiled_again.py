"""A compiled training has the hooks that it asks for, whatever was compiled before in the same process."""

import pytest
import torch
from packaging.version import Version

from tests.support.tiny import smoothed, tensors, trainer


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        Version(torch.__version__) < Version("2.13"),
        reason="the compiler of torch 2.6 cannot trace a frozen dataclass",
    ),
    # Of the compiler itself, where it hands a tensor from one graph to the next.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor"),
]
COMPILED = {"torch_compile": True, "torch_compile_backend": "eager"}
HOOKS = {
    "drop_path": {"drop_path": 0.9},
    "features": {
        "objective": "discrepancy-mitigation",
        "objective_args": {"steps": 1, "epsilon": 0.01},
        "noise": "clean",
    },
}


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def weights(folder, **settings):
    model = smoothed("vit")
    trainer(model, folder, max_steps=1, **settings).train()
    return tensors(model)


@pytest.mark.parametrize("more", HOOKS.values(), ids=HOOKS)
def test_what_is_hooked_has_its_effect_after_another_training(more, tmp_path):
    plain, expected = weights(tmp_path, **COMPILED), weights(tmp_path, **more)
    found = weights(tmp_path, **COMPILED, **more)
    moved = [float((found[name] - plain[name]).abs().max()) for name in found]
    assert max(moved) > 1e-3
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)
