"""What only runs a network makes no other network of it, wherever it stands, and hides no method of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.parallel import DistributedDataParallel

from hf_smoothing.attack_run import attack_run
from hf_smoothing.attacks.losses import logits_of_batch
from hf_smoothing.certification import certify, certify_dataset
from hf_smoothing.certification.classifiers import resolve_classifier
from hf_smoothing.certification.identity import check_network_of_run, classifier_identity
from hf_smoothing.certification.structure import attributes_of, plain_name
from tests.support.classifiers import RUN, random_dataset, results
from tests.support.tiny import smoothed


@pytest.fixture(scope="module", autouse=True)
def one_process() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DataParallel": nn.DataParallel,
    "DistributedDataParallel": DistributedDataParallel,
    "compiled": lambda inner: torch.compile(inner, backend="eager"),  # type: ignore[return-value]
    "checkpointed": checkpoint_wrapper,
    "compiled on several devices": lambda inner: nn.DataParallel(torch.compile(inner, backend="eager")),
    "on several devices, compiled": lambda inner: torch.compile(nn.DataParallel(inner), backend="eager"),  # type: ignore[return-value]
}


class Normalised(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.module = inner  # the name under which DataParallel keeps its network

    def forward(self, pixels):
        return self.module((pixels - 0.5) / 0.25)


def base() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(16, 8), nn.ReLU()), nn.Linear(8, 3))


def in_part(wrap: Callable[[nn.Module], nn.Module]) -> nn.Module:
    one = base()
    one[1] = wrap(one[1])
    return one


PLACES: dict[str, Callable[[Callable[[nn.Module], nn.Module]], nn.Module]] = {
    "around all": lambda wrap: wrap(Normalised(base())),
    "within a module": lambda wrap: Normalised(wrap(base())),
    "around a part": lambda wrap: Normalised(in_part(wrap)),
    "everywhere": lambda wrap: wrap(Normalised(wrap(in_part(wrap)))),
}


@pytest.mark.parametrize("end", [nn.Identity(), nn.Hardtanh(0.0, 1e-9)], ids=["graded", "hard"])
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_wrapped_network_is_the_same_network(place, wrap, end, tmp_path):
    without, within = (nn.Sequential(place(one), end).eval() for one in (lambda inner: inner, wrap))
    assert classifier_identity(within) == classifier_identity(without)
    assert attributes_of(within) == attributes_of(without)
    run = certify_dataset(without, random_dataset(2), tmp_path, **RUN)
    check_network_of_run(within, run)
    assert results(certify_dataset(within, random_dataset(2), tmp_path, **RUN)) == results(run)


@pytest.mark.filterwarnings("ignore")  # torch.jit.script is deprecated
def test_names_are_kept_where_a_network_has_a_part_of_that_name():
    wrapped = Normalised(nn.DataParallel(Normalised(base())))
    assert {plain_name(wrapped, name) for name in wrapped.state_dict()} == set(
        Normalised(Normalised(base())).state_dict()
    )
    assert plain_name(wrapped, "module.module.nowhere.module") == "module.nowhere.module"
    assert plain_name(torch.jit.script(base()), "1.0.weight") == "1.0.weight"


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapper_hides_no_classify(wrap, tmp_path):
    model = smoothed()
    wrapped, images = wrap(model).eval(), random_dataset(2, (3, *model.config.size))
    pixels = 0.5 + torch.randn(2, 3, *model.config.size)
    for found in (resolve_classifier(wrapped)(pixels), logits_of_batch(wrapped, pixels)):
        assert torch.equal(found, model.classify(pixels))
    asked = {"sigma": 0.5, "n": 100, "seed": 0}
    image = images[0]["pixel_values"][None]
    first, second = (certify(one, image, **asked)[0] for one in (wrapped, model))
    assert (first.radius, first.counts_by_look) == (second.radius, second.counts_by_look)
    run = certify_dataset(model, images, tmp_path / "plain", **RUN)
    assert results(certify_dataset(wrapped, images, tmp_path / "wrapped", **RUN)) == results(run)
    certify_dataset(wrapped, images, run.path, **RUN)
    attack_run(wrapped, images, run, steps=1, n=100, progress=False)


def test_a_wrapper_of_a_network_without_classify_is_called_itself():
    wrapped = nn.DataParallel(base()).eval()
    assert resolve_classifier(wrapped).classify is wrapped
