"""Claims of ours put to other people's verifiers, where those are installed: none may be refuted."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from functools import partial

import pytest
import torch
from torch import nn

from hf_smoothing.interval import certify_dataset_linf
from hf_smoothing.interval.export import box_inside, export_run, vnnlib_text
from hf_smoothing.interval.objectives import adaptive_interval
from hf_smoothing.training import Batch, ObjectiveState
from tests.support.bounded_networks import network
from tests.support.tiny import data
from tests.support.verifiers import ask_lirpa, ask_marabou, import_lirpa
from tests.support.vnnlib import read_property


pytestmark = pytest.mark.slow
SIZE, COUNT, TIMEOUT = 4, 12, 30


def trained() -> nn.Module:
    """A small network that was trained for intervals, so that its radii are worth checking."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 3))
    some = data(120, SIZE, seed=1)
    pixels = torch.stack([some[k]["pixel_values"] for k in range(120)]).float() / 255
    batch, optimizer = Batch(pixels, torch.arange(120) % 3), torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(150):
        optimizer.zero_grad()
        state = ObjectiveState(None, torch.Generator().manual_seed(step), progress=step / 150)
        loss, _ = adaptive_interval(model, batch, state, largest=0.1)
        loss.backward()
        optimizer.step()
    return model.eval()


def untrained() -> nn.Module:
    """Convolution, batch norm, max pooling; radii by chance."""
    return network("max pool").float()


@pytest.fixture(scope="module", params=[trained, untrained], ids=["trained", "untrained"])
def exported(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("verified")
    size = SIZE if request.param is trained else 8
    model, some = request.param(), data(COUNT, size)
    run = certify_dataset_linf(model, some, folder / "run", largest=0.5, progress=False)
    found = export_run(model, some, run, folder / "out")
    assert len(found.claims) == COUNT
    wider = folder / "wider"
    wider.mkdir()
    for claim in found.claims:
        pixels = some[claim.index]["pixel_values"].double() / 255
        ends = box_inside(pixels, min(1.0, 1.1 * claim.radius))
        labels = 3 if request.param is trained else 4
        (wider / f"image-{claim.index}.vnnlib").write_text(vnnlib_text(*ends, claim.prediction, labels))
    return model, (3, size, size), folder


def verdicts(ask, folder):
    found = [ask(file) for file in sorted(folder.glob("*.vnnlib"))]
    assert len(found) == COUNT
    print(folder.name, Counter(f"{one.answer} {one.why}".strip() for one in found))
    return Counter(one.answer for one in found)


def test_marabou_confirms_every_claim_and_says_how_tight_they_are(exported):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip(
            "maraboupy.MarabouNetworkONNX", exc_type=ImportError,
            reason="Marabou reads no ONNX here, so our claims were NOT put to it: pip install --no-deps maraboupy==2.0.0 onnxruntime",
        )  # fmt: skip
    _, _, folder = exported
    ask = partial(ask_marabou, folder / "out" / "network.onnx", timeout=TIMEOUT)
    before = sorted(os.listdir())
    claims, wider = verdicts(ask, folder / "out" / "vnnlib"), verdicts(ask, folder / "wider")
    assert claims["refuted"] == 0 and claims["confirmed"] >= COUNT - 1  # it may fail at one, which is counted
    assert sum(wider.values()) == COUNT
    assert sorted(os.listdir()) == before


def test_a_claim_that_is_false_is_refuted(exported, tmp_path):
    """That another class wins in the ball: the check itself can fail."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("maraboupy.MarabouNetworkONNX", exc_type=ImportError, reason="Marabou reads no ONNX here")
    _, _, folder = exported
    right = read_property((folder / "out" / "vnnlib" / "image-0.vnnlib").read_text())
    ends = (torch.tensor([float(end) for end in side], dtype=torch.float64) for side in (right.lower, right.upper))
    wrong = (right.prediction + 1) % right.num_labels
    (tmp_path / "false.vnnlib").write_text(vnnlib_text(*ends, wrong, right.num_labels))
    assert ask_marabou(folder / "out" / "network.onnx", tmp_path / "false.vnnlib", TIMEOUT).answer == "refuted"


def test_bounds_of_auto_lirpa_confirm_claims(exported):
    try:
        import_lirpa()
    except ImportError as error:
        pytest.skip(
            f"auto_LiRPA does not run here ({error}), so our claims were NOT put to it: pip install --no-deps auto_LiRPA==0.3 appdirs"
        )
    model, shape, folder = exported
    claims = verdicts(partial(ask_lirpa, model, shape), folder / "out" / "vnnlib")
    assert claims["confirmed"] >= COUNT - 2  # its bounds are not always tighter than ours
