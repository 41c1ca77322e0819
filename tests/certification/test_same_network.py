"""A run belongs to one network: one that answers fixed images alike goes on with it, whatever else differs; another one says so."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hf_smoothing.attack_run import attack_run
from hf_smoothing.certification import certify_dataset, rounds
from hf_smoothing.certification.behaviour import answer_to_probe
from hf_smoothing.certification.classifiers import resolve_classifier
from hf_smoothing.certification.identity import check_network_of_run
from hf_smoothing.certification.probes import FURTHER, NOISY, further_images, noisy_image, probe_images
from hf_smoothing.interval import certify_dataset_linf
from hf_smoothing.records import RunError, read_run
from tests.support.classifiers import RUN, Constant, random_dataset, results
from tests.support.hidden_networks import SHAPE, CallableOwn, network, saturated


class Settled(nn.Module):
    """A network with numbers that decide its answers and are in no parameter, and others that decide nothing."""

    def __init__(self, *, hard: bool = False, mean: float = 0.5, shift: float = 0.0, **attributes: Any) -> None:
        super().__init__()
        self.inner, self.shift, self.hard, self.adapted, self.passes = network(nn.ReLU()), shift, hard, True, 0
        self.created, self.process, self.table = time.time(), os.getpid(), None
        self.adapter = nn.Linear(16, 3)
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("kept", torch.zeros(0), persistent=False)
        self.register_buffer("scale", torch.ones(3))
        vars(self).update(attributes)

    def forward(self, pixels: Tensor) -> Tensor:
        self.passes += 1
        self.table = pixels.new_ones(3) if self.table is None else self.table
        if len(self.kept) < len(pixels):  # the largest batch so far
            self.kept = pixels.new_zeros(len(pixels))
        logits = self.inner(pixels - self.mean - self.shift) * self.table * self.scale
        if self.adapted:
            logits = logits + self.adapter(pixels.flatten(1))
        return nn.functional.one_hot(logits.argmax(1), 3).float() if self.hard else logits


def changed(change: Callable[[Settled], Any]) -> Callable[..., nn.Module]:
    """Makes a network and changes it; a change may return what is put around it."""

    def made(**kind: Any) -> nn.Module:
        one = Settled(**kind).eval()
        found = change(one)
        return found.eval() if isinstance(found, nn.Module) else one

    return made


def with_attributes(**attributes: Any) -> Callable[..., nn.Module]:
    return lambda **kind: Settled(**kind, **attributes).eval()


def loaded(one: Settled) -> Settled:
    other = Settled(hard=one.hard)
    torch.manual_seed(1)
    other.adapter.reset_parameters()
    other.load_state_dict(one.state_dict())
    return other


def tanh(one: Settled) -> None:
    one.inner[2] = nn.Tanh().eval()


ALIKE: dict[str, Callable[..., nn.Module]] = {
    "nothing": with_attributes(),
    "when and where it was made": with_attributes(created=0.0, process=-1, device="cuda:1", folder="/nowhere"),
    "attributes that decide nothing": with_attributes(names={"b", "a"}, order=torch.arange(9), made_by=lambda: 0, threshold=None),
    "how often it was asked": changed(lambda one: [one(torch.rand(size, *SHAPE)) for size in (1, 7, 64)] and None),
    "what it keeps": changed(lambda one: setattr(one, "kept", torch.ones(500))),
    "what it prints": changed(lambda one: setattr(one, "extra_repr", lambda: "another")),
    "its configuration alone": with_attributes(config=SimpleNamespace(to_dict=lambda: {"image_mean": [0.5]})),
    "in DataParallel": changed(nn.DataParallel),
    "compiled": changed(lambda one: torch.compile(one, backend="eager")),
    "compiled in DataParallel": changed(lambda one: nn.DataParallel(torch.compile(one, backend="eager"))),
    "compiled in part": changed(lambda one: setattr(one, "inner", torch.compile(one.inner, backend="eager").eval())),
    "saved and loaded": changed(loaded),
}  # fmt: skip
"""Changes that leave all answers as they are."""
OTHERS: dict[str, Callable[..., nn.Module]] = {
    "an attribute": lambda **kind: Settled(shift=0.5, **kind).eval(),
    "a buffer that is not saved": lambda **kind: Settled(mean=0.0, **kind).eval(),
    "a saved buffer": changed(lambda one: one.scale.mul_(-1)),
    "a weight": changed(lambda one: one.inner[1].weight.data.add_(0.5)),
    "a weight by little": changed(lambda one: one.inner[1].weight.data.add_(1e-6)),
    "a hook": changed(lambda one: one.inner.register_forward_pre_hook(lambda module, args: (args[0] + 0.5,)) and None),
    "a hook on all of it": changed(
        lambda one: one.register_forward_hook(lambda module, args, logits: -logits) and None
    ),
    "an activation": changed(tanh),
    "an adapter that is off": changed(lambda one: setattr(one, "adapted", False)),
    "another forward": changed(lambda one: setattr(one, "forward", lambda pixels: -Settled.forward(one, pixels))),
}
"""Changes that give another answer; the one by little shows in the hash of the weights alone, so not behind a function."""


def as_function(inner: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda pixels: inner(pixels)


def fixed_images() -> Tensor:
    further = torch.cat([images for _, images in further_images(SHAPE)])
    return torch.cat([probe_images(SHAPE), further, *(noisy_image(number, SHAPE)[None] for number in range(NOISY))])


@pytest.mark.parametrize("hard", [False, True], ids=["graded", "hard"])
@pytest.mark.parametrize("seen", [True, False], ids=["module", "function"])
@pytest.mark.parametrize("name", [*ALIKE, *OTHERS])
def test_a_run_goes_on_with_what_answers_alike(name, seen, hard, tmp_path):
    torch.manual_seed(0)
    first = Settled(hard=hard).eval()
    torch.manual_seed(0)
    second = (ALIKE | OTHERS)[name](hard=hard)
    one, other = (first, second) if seen else (as_function(first), as_function(second))
    by_little = name == "a weight by little"
    classes = [made(fixed_images()).argmax(1) for made in (first, second)]
    assert torch.equal(*classes) == (name in ALIKE or by_little)

    run, dataset = certify_dataset(one, random_dataset(2), tmp_path, **RUN), random_dataset(2)
    assert (len(run.settings["model"]["probe_classes"]) > len(run.settings["model"]["probe_logits"])) == hard
    if name in ALIKE or (by_little and not seen):
        check_network_of_run(other, run)
        threads = torch.get_num_threads()
        torch.set_num_threads(threads + 1)
        try:
            assert results(certify_dataset(other, dataset, tmp_path, **RUN)) == results(run)
        finally:
            torch.set_num_threads(threads)
        if not hard and not name.startswith("compiled"):  # votes have no gradient
            attack_run(other, dataset, run, steps=1, n=100, progress=False)
        return
    said = r"model\.weights_sha256" if seen and name in ("a saved buffer", "a weight", "a weight by little") else (
        r"the (network's answers|classes that the network gives) to fixed images \(model\.probe_\w+\) differ "
        r"(by up to|for) .* \(ask the network that was recorded: with the same buffers, hooks"
    )  # fmt: skip
    with pytest.raises(RunError, match=f"{said}.*Use the same settings, or another output folder"):
        certify_dataset(other, dataset, tmp_path, **RUN)
    with pytest.raises(RunError, match=f"another network: {said}.*Pass the network that was certified"):
        attack_run(other, dataset, run, steps=1)
    assert results(certify_dataset(one, dataset, tmp_path, **RUN)) == results(run)


class Plain(nn.Module):
    """What bounds follow: a normalisation that is no parameter before a network."""

    def __init__(self, mean: float = 0.5) -> None:
        super().__init__()
        self.inner, self.mean = network(nn.ReLU()), mean

    def forward(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.inner(pixels - self.mean)
        return found


@pytest.mark.parametrize("change", [
    lambda one: setattr(one, "mean", 0.25), lambda one: setattr(one.inner, "2", nn.Tanh()),
    lambda one: one.inner.register_forward_pre_hook(lambda module, args: (args[0] + 0.5,)),
], ids=["attribute", "activation", "hook"])  # fmt: skip
def test_so_does_a_deterministic_run(change, tmp_path):
    dataset, how = random_dataset(3), {"largest": 0.1, "progress": False}
    run, other = certify_dataset_linf(Plain().eval(), dataset, tmp_path, **how), Plain().eval()
    assert len(run.settings["model"]["probe_logits"]) == 1
    change(other)
    other.eval()
    with pytest.raises(RunError, match=r"\(model.probe_logits\) differ by"):
        certify_dataset_linf(other, dataset, tmp_path, **how)
    assert certify_dataset_linf(Plain().eval(), dataset, tmp_path, **how).rows == run.rows


def interrupt() -> None:
    raise KeyboardInterrupt


class Threshold(nn.Module):
    """Votes of a linear classifier with a threshold that is no parameter."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.last, self.threshold = nn.Linear(16, 2), threshold

    def forward(self, pixels: Tensor) -> Tensor:
        above = self.last(pixels.flatten(1)).softmax(1)[:, 1] > self.threshold
        return nn.functional.one_hot(above.long(), 2).float()


def brighter_than(threshold: float) -> Callable[[Tensor], Tensor]:
    return lambda pixels: nn.functional.one_hot((pixels.mean((1, 2, 3)) > threshold).long(), 2).float()


def saturated_around(mean: float) -> Callable[[Tensor], Tensor]:
    inner = network(nn.ReLU()).eval()
    return lambda pixels: saturated(inner(pixels - mean))


LITTLE_TOLD: dict[str, tuple[Any, Any]] = {
    "a threshold of a function": (brighter_than(0.6), brighter_than(0.52)),
    "a threshold of a module": (Threshold(0.5).eval(), Threshold(0.7).eval()),
    "a threshold of a hidden module": (CallableOwn(Threshold(0.5).eval()), CallableOwn(Threshold(0.7).eval())),
    "another normalisation": (saturated_around(0.45), saturated_around(0.55)),
}
"""Pairs of classifiers of which one image tells one bit or little more."""


@pytest.mark.parametrize("batches", [3, 10**6], ids=["stopped", "finished"])
@pytest.mark.parametrize(("first", "second"), LITTLE_TOLD.values(), ids=LITTLE_TOLD)
def test_classifiers_with_hard_votes_are_not_taken_for_one_another(first, second, batches, tmp_path, monkeypatch):
    whole = certify_dataset(first, random_dataset(3), tmp_path / "whole", **RUN)
    assert len(whole.settings["model"]["probe_classes"]) == 3 + NOISY + FURTHER
    with monkeypatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
        left, drawn = iter(range(batches)), rounds.draw_round
        patched.setattr(
            rounds, "draw_round", lambda *asked: drawn(*asked) if next(left, None) is not None else interrupt()
        )
        certify_dataset(first, random_dataset(3), tmp_path / "run", **RUN, partial_seconds=0)
    run = read_run(tmp_path / "run")
    assert (len(run.rows) == 3) == (batches > 3)
    with pytest.raises(RunError, match=r"another network: the .* to fixed images \(model.probe_\w+\) differ"):
        check_network_of_run(second, run)
    with pytest.raises(RunError, match=r"with these: the .* to fixed images \(model.probe_\w+\) differ"):
        certify_dataset(second, random_dataset(3), tmp_path / "run", **RUN)
    check_network_of_run(first, run)
    assert results(certify_dataset(first, random_dataset(3), tmp_path / "run", **RUN)) == results(whole)


def edited(folder: Any, **model: Any) -> dict[str, Any]:
    """A run folder whose record of the network is another."""
    settings = json.loads((folder / "run.json").read_text())
    settings["model"] |= model
    (folder / "run.json").write_text(json.dumps(settings))
    return settings["model"]


def test_another_rounding_of_the_answer_is_the_same_network(tmp_path):
    run = certify_dataset(Settled().eval(), random_dataset(2), tmp_path, **RUN)
    logits = [[1.0001 * value for value in row] for row in run.settings["model"]["probe_logits"]]
    known = edited(tmp_path, probe_logits=logits)
    assert certify_dataset(Settled().eval(), random_dataset(2), tmp_path, **RUN).settings["model"] == known


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_vote_on_the_border_is_rounding_where_that_is_coarse(dtype, tmp_path):
    run = certify_dataset(Threshold(0.5).eval(), random_dataset(2), tmp_path, **RUN, dtype=dtype)
    classes = run.settings["model"]["probe_classes"]
    known = edited(tmp_path, probe_classes=[1 - classes[0], *classes[1:]])
    if dtype == "float32":
        with pytest.raises(RunError, match=r"model.probe_classes\) differ for 1 of 163"):
            certify_dataset(Threshold(0.5).eval(), random_dataset(2), tmp_path, **RUN, dtype=dtype)
    else:
        again = certify_dataset(Threshold(0.5).eval(), random_dataset(2), tmp_path, **RUN, dtype=dtype)
        assert again.settings["model"] == known


def test_a_class_that_rounding_decides_is_not_recorded():
    """Two classes with one logit: either may win on another machine."""
    answer = answer_to_probe(resolve_classifier(lambda pixels: pixels.flatten(1)[:, [0, 0, 1]].clamp(0, 1)), SHAPE)
    assert None in answer.labels


class Votes(nn.Module):
    """A module that always votes for one class, of which no weight tells."""

    def __init__(self, label: int = 1) -> None:
        super().__init__()
        self.constant = Constant(label)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.constant(pixels)


@pytest.mark.parametrize("made", [Constant, lambda **kind: Votes(**kind).eval()], ids=["function", "module"])
def test_what_gives_one_answer_to_all_images_is_resumed_with_a_warning(made, tmp_path):
    certify_dataset(made(), random_dataset(1), tmp_path, **RUN)
    with pytest.warns(UserWarning, match="gives one answer to all of 163 fixed images, so nothing shows whether"):
        certify_dataset(made(), random_dataset(1), tmp_path, **RUN)
    with pytest.raises(RunError, match=r"model.probe_logits"):
        certify_dataset(made(label=2), random_dataset(1), tmp_path, **RUN)


def test_a_buffer_that_counts_and_is_saved_is_named_at_once(tmp_path):
    class Counting(Threshold):
        def __init__(self, persistent: bool) -> None:
            super().__init__(0.5)
            self.register_buffer("count", torch.zeros((), dtype=torch.long), persistent=persistent)

        def forward(self, pixels: Tensor) -> Tensor:
            self.count += 1
            return super().forward(pixels)

    with pytest.warns(UserWarning, match=r"change count of the network.*persistent=False"):
        certify_dataset(Counting(True).eval(), random_dataset(2), tmp_path / "saved", **RUN)
    one = Counting(False).eval()
    for _ in range(2):
        certify_dataset(one, random_dataset(2), tmp_path / "unsaved", **RUN)
