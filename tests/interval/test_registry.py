"""Every rule is registered, whichever module of the room is imported first."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from hf_smoothing.interval import rules
from hf_smoothing.interval.registry import OPERATIONS
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
