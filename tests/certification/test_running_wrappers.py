"""What only runs a network makes no other network of it, wherever it stands, and hides no method of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn
from torch._dynamo.eval_frame import OptimizedModule
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointWrapper, checkpoint_wrapper
from torch.nn.parallel import DistributedDataParallel

from hf_smoothing.attack_run import attack_run
from hf_smoothing.attacks.losses import logits_of_batch
from hf_smoothing.certification import certify, certify_dataset
from hf_smoothing.certification.classifiers import resolve_classifier
from hf_smoothing.certification.identity import check_network_of_run, classifier_identity
from hf_smoothing.certification.structure import unwrapped_name
from hf_smoothing.interval import UnsupportedOperationError, linf_certificates
from hf_smoothing.records import RunError
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
    run = certify_dataset(without, random_dataset(2), tmp_path, **RUN)
    check_network_of_run(within, run)
    assert results(certify_dataset(within, random_dataset(2), tmp_path, **RUN)) == results(run)


@pytest.mark.filterwarnings("ignore")  # torch.jit.script is deprecated
def test_names_are_kept_where_a_network_has_a_part_of_that_name():
    wrapped = Normalised(nn.DataParallel(Normalised(base())))
    assert {unwrapped_name(wrapped, name) for name in wrapped.state_dict()} == set(
        Normalised(Normalised(base())).state_dict()
    )
    assert unwrapped_name(wrapped, "module.module.nowhere.module") == "module.nowhere.module"
    assert unwrapped_name(torch.jit.script(base()), "1.0.weight") == "1.0.weight"


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


class Judge(nn.Module):
    """Three classes by its method `classify`, the same by `forward`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.last = nn.Linear(16, 3)

    def classify(self, pixels):
        return self.last(pixels.flatten(1))

    forward = classify


class OtherParallel(nn.DataParallel):
    def forward(self, pixels):
        return -super().forward(pixels)


class OtherCheckpoint(CheckpointWrapper):
    def forward(self, pixels):
        return -super().forward(pixels)


class OtherCompiled(OptimizedModule):
    def __call__(self, pixels):
        return -super().__call__(pixels)


class Kept(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self._orig_mod = inner  # the name under which `torch.compile` keeps its network

    def forward(self, pixels):
        return -self._orig_mod(pixels)


def changed(wrapped: nn.Module, change: Callable[[nn.Module], object]) -> nn.Module:
    change(wrapped)
    return wrapped


def negate_after(module: nn.Module) -> None:
    module.register_forward_hook(lambda module, args, logits: -logits)


def move_before(module: nn.Module) -> None:
    module.register_forward_pre_hook(lambda module, args: (1 - args[0],))


def replace_forward(module: nn.Module) -> None:
    forward = module.forward
    module.forward = functools.wraps(forward)(lambda pixels: -forward(pixels))  # type: ignore[method-assign]


def compiled(inner: nn.Module) -> nn.Module:
    return torch.compile(inner, backend="eager")  # type: ignore[return-value]


COMPUTING: dict[str, Callable[[nn.Module], nn.Module]] = {
    "a subclass of DataParallel": OtherParallel,
    "a subclass of a checkpoint": OtherCheckpoint,
    "a subclass of what is compiled": lambda inner: OtherCompiled(inner, torch._dynamo.optimize("eager")),
    "a module with that name": Kept,
    "a function of its own": lambda inner: checkpoint_wrapper(inner, checkpoint_fn=lambda run, pixels: -run(pixels)),
    **{
        f"{change.__name__}, {name}": lambda inner, wrap=wrap, change=change: changed(wrap(inner), change)  # type: ignore[misc]
        for change in (negate_after, move_before, replace_forward)
        for name, wrap in (("parallel", nn.DataParallel), ("checkpointed", checkpoint_wrapper), ("compiled", compiled))
    },
}


@pytest.mark.parametrize("wrap", COMPUTING.values(), ids=COMPUTING)
def test_what_computes_something_itself_is_the_classifier(wrap, tmp_path):
    wrapped, inner = wrap(Judge()).eval(), Judge().eval()
    pixels = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    logits = wrapped(pixels)
    assert not torch.equal(logits.argmax(1), inner(pixels).argmax(1))
    assert torch.equal(resolve_classifier(wrapped)(pixels), logits)
    assert torch.equal(logits_of_batch(wrapped, pixels), logits)
    try:
        classes, radii = linf_certificates(wrapped, pixels, largest=0.1)
    except UnsupportedOperationError:  # boxes do not follow it
        classes, radii = logits.argmax(1), torch.zeros(len(pixels))
    assert not bool(((classes != logits.argmax(1)) & (radii > 0)).any())
    run = certify_dataset(inner, random_dataset(2), tmp_path, **RUN)
    with pytest.raises(RunError, match="another network"):
        check_network_of_run(wrapped, run)


class Shifting(nn.DataParallel):
    """Adds a number that it keeps itself to the logits of a network that keeps one of the same name."""

    def __init__(self, inner: nn.Module, number: float, kept: str) -> None:
        super().__init__(inner)
        inner.register_buffer("shift", torch.zeros(3))
        if kept == "buffer":
            self.register_buffer("shift", torch.tensor([number, 0.0, 0.0]))
        else:
            self.shift = [number, 0.0, 0.0]

    def forward(self, pixels):
        logits = super().forward(pixels) + torch.as_tensor(self.shift)
        return nn.functional.one_hot(logits.argmax(1), 3).float()


@pytest.mark.parametrize("kept", ["buffer", "attribute"])
@pytest.mark.parametrize("outer", [nn.Identity(), None], ids=["a part", "all"])
def test_what_a_wrapper_that_computes_keeps_counts(outer, kept, tmp_path):
    def made(number):
        wrapped = Shifting(Judge(), number, kept)
        return (wrapped if outer is None else nn.Sequential(outer, wrapped)).eval()

    run = certify_dataset(made(0.0), random_dataset(2), tmp_path, **RUN)
    check_network_of_run(made(0.0), run)
    with pytest.raises(RunError, match=r"weights_sha256|probe_classes|probe_logits"):
        check_network_of_run(made(0.5), run)
