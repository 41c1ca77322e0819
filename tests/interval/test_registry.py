"""Every rule is registered, whichever module of the room is imported first."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_smoothing.interval import UnsupportedOperationError, rules
from hf_smoothing.interval.box import Box
from hf_smoothing.interval.registry import OPERATIONS, RULES
from hf_smoothing.interval.rules.turning import _VALLEYS
from tests.support.forks import fork_python
from tests.support.processes import printed


SCRIPT = """
import torch, {entry}
from hf_smoothing.interval.registry import OPERATIONS
from hf_smoothing.interval.box import Box
box = torch.relu(2.0 * Box(-torch.ones(1), torch.ones(1)))
assert (float(box.lower), float(box.upper)) == (0.0, 2.0)
print(*OPERATIONS)
"""


def test_every_file_of_rules_is_imported():
    files = {file.stem for file in Path(rules.__file__).parent.glob("*.py")} - {"__init__"}
    assert {operation.rule.__module__.rsplit(".", 1)[1] for operation in OPERATIONS.values()} == files


@pytest.mark.parametrize("entry", ["hf_smoothing.interval", "hf_smoothing.interval.box"])
def test_a_fresh_process_knows_every_rule(entry):
    assert printed(fork_python("-c", SCRIPT.format(entry=entry))).split() == list(OPERATIONS)


@pytest.mark.parametrize("name", _VALLEYS)
def test_the_bottom_of_a_valley_is_where_a_grid_finds_it(name):
    place, least = _VALLEYS[name]
    x = torch.linspace(place - 0.01, place + 0.01, 20_001, dtype=torch.float64)
    y = getattr(F, name)(x)
    assert float(x[y.argmin()]) == pytest.approx(place, abs=1e-5)
    assert least <= float(y.min()) < least + 2e-7
    far = torch.linspace(-50.0, 50.0, 100_001, dtype=torch.float64)
    assert float(getattr(F, name)(far).min()) >= least


SPELT = {
    "axis": lambda x: x.sum(axis=1),
    "axis of torch's own": lambda x: torch.mean(x, axis=1, keepdims=True).flatten(1),
    "axis of a maximum": lambda x: x.amax(axis=1),
    "dtype": lambda x: x.sum(1, dtype=torch.float32) + x.mean(1, dtype=torch.float32),
    "train": lambda x: torch.dropout(x, 0.5, train=False).flatten(1),
    "joined by axis": lambda x: torch.cat([x, x], axis=1).flatten(1),
}


@pytest.mark.parametrize("name", SPELT)
def test_arguments_by_the_other_names_that_torch_takes(name):
    point = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0))
    box = SPELT[name](Box(point - 0.1, point + 0.1))
    middle = SPELT[name](point)
    assert box.shape == middle.shape
    assert (box.lower <= middle).all() and (middle <= box.upper).all()


OTHERS = {
    "a pair": lambda x: torch.adaptive_max_pool1d(x, 2)[0],
    "other arguments": lambda x: torch.batch_norm(x, *[torch.ones(3)] * 4, False, 0.1, 1e-5, False),
    "scaled": lambda x: torch._C._nn.elu(x, 1.0, 2),
    "a pair in two dimensions": lambda x: torch._C._nn.adaptive_max_pool2d(x[:, :, None], (1, 2))[0],
    "another dtype": lambda x: x.sum(1, dtype=torch.float64),
}


@pytest.mark.parametrize("name", OTHERS)
def test_functions_of_the_same_name_that_are_others_are_refused_for_what_they_are(name):
    point = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0))
    OTHERS[name](point)  # torch takes it
    with pytest.raises(UnsupportedOperationError, match="There is no sound bound for"):
        OTHERS[name](Box(point - 0.1, point + 0.1))


def test_no_rule_is_for_a_private_function_beside_a_public_one():
    """F.elu takes (alpha, inplace), torch._C._nn.elu (alpha, scale, input_scale)."""
    private = {name for name in OPERATIONS if getattr(torch._C._nn, name, None) in RULES}
    assert private and all(
        getattr(F, name, None) is getattr(torch._C._nn, name) for name in private if hasattr(F, name)
    )


def _bound(bind, args, kwargs):
    """What is bound, or that nothing is."""
    try:
        given = bind(*args, **kwargs)
    except TypeError:
        return None
    return dict(given.arguments), next(iter(given.arguments), None), given.args, given.kwargs


@settings(max_examples=20, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_short_way_binds_as_the_signature_does(name, data):
    operation = OPERATIONS[name]
    names = [*operation.signature.parameters, "unheard_of"]
    args = tuple(data.draw(st.lists(st.integers(), max_size=len(names))))
    keys = data.draw(st.lists(st.sampled_from(names), unique=True, max_size=len(names)))
    kwargs = {key: data.draw(st.integers()) for key in keys}
    ours = _bound(lambda *args, **kwargs: operation.bind(args, kwargs), args, kwargs)
    assert ours == _bound(operation.signature.bind, args, kwargs)


def test_a_call_of_all_names_in_any_order_finds_its_box():
    box = Box(-torch.ones(2, 3), torch.ones(2, 3))
    assert torch.cat(dim=1, tensors=[box, box]).shape == (2, 6)
    assert torch.flatten(end_dim=1, input=box, start_dim=0).shape == (6,)
