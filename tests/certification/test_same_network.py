"""A run belongs to one network: resumed or attacked with another, it says so, whatever the modules look like."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hf_smoothing.attack_run import attack_run
from hf_smoothing.certification import certify_dataset, rounds
from hf_smoothing.certification.identity import check_network_of_run
from hf_smoothing.certification.probes import FURTHER
from hf_smoothing.interval import certify_dataset_linf
from hf_smoothing.records import RunError, read_run
from tests.support.classifiers import RUN, Constant, random_dataset, results
from tests.support.hidden_networks import SHAPE, WRAPPED, CallableOwn, network, saturated


class Shifted(nn.Module):
    """A network whose normalisation is in no parameter and in no buffer that is saved."""

    def __init__(self, mean: float = 0.5, attribute: float = 0.0) -> None:
        super().__init__()
        self.inner, self.attribute = network(nn.ReLU()), attribute
        self.register_buffer("mean", torch.tensor(mean), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.inner(pixels - self.mean - self.attribute)
        return found


def hooked() -> nn.Module:
    one = Shifted()
    one.inner.register_forward_pre_hook(lambda module, args: (args[0] + 0.5,))
    return one


def activated() -> nn.Module:
    one = Shifted()
    one.inner[2] = nn.Tanh()
    return one


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "a buffer that is not saved": lambda: Shifted(mean=0.25),
    "an attribute": lambda: Shifted(attribute=0.25),
    "a hook": hooked,
    "an activation": activated,
}


@pytest.mark.parametrize("hidden", [False, True], ids=["module", "lambda"])
@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_a_run_goes_on_with_its_own_network_alone(other, hidden, tmp_path):
    first, second = (WRAPPED["a lambda"](one) if hidden else one for one in (Shifted().eval(), other().eval()))
    before = certify_dataset(first, random_dataset(3), tmp_path, **RUN)
    if not hidden:
        with pytest.raises(
            RunError, match=r"another network: probe_logits, probe_noisy(, attributes\.\w+\.\w+)? differ"
        ):
            attack_run(second, random_dataset(3), before, steps=1)
    with pytest.raises(RunError, match=r"the network's answer to a fixed image \(model.probe_logits\) differ in"):
        certify_dataset(second, random_dataset(3), tmp_path, **RUN)
    assert results(certify_dataset(first, random_dataset(3), tmp_path, **RUN)) == results(before)


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_so_does_a_deterministic_run(other, tmp_path):
    dataset = random_dataset(3)
    certify_dataset_linf(Shifted().eval(), dataset, tmp_path, largest=0.1, progress=False)
    with pytest.raises(RunError, match=r"\(model.probe_logits\) differ in"):
        certify_dataset_linf(other().eval(), dataset, tmp_path, largest=0.1, progress=False)
    certify_dataset_linf(Shifted().eval(), dataset, tmp_path, largest=0.1, progress=False)


def test_another_rounding_of_the_answer_is_the_same_network(tmp_path):
    certify_dataset(Shifted().eval(), random_dataset(2), tmp_path, **RUN)
    settings = json.loads((tmp_path / "run.json").read_text())
    settings["model"]["probe_logits"] = [1.0001 * value for value in settings["model"]["probe_logits"]]
    (tmp_path / "run.json").write_text(json.dumps(settings))
    certify_dataset(Shifted().eval(), random_dataset(2), tmp_path, **RUN)
    assert read_run(tmp_path).settings["model"] == settings["model"]


class Threshold(nn.Module):
    """Votes of a linear classifier with a threshold that is no parameter; it counts its calls."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.last, self.threshold, self.calls = nn.Linear(16, 2), threshold, 0

    def forward(self, pixels: Tensor) -> Tensor:
        self.calls += 1
        above = self.last(pixels.flatten(1)).softmax(1)[:, 1] > self.threshold
        return nn.functional.one_hot(above.long(), 2).float()


def brighter_than(threshold: float) -> Callable[[Tensor], Tensor]:
    return lambda pixels: nn.functional.one_hot((pixels.mean((1, 2, 3)) > threshold).long(), 2).float()


def saturated_around(mean: float) -> Callable[[Tensor], Tensor]:
    inner = network(nn.ReLU()).eval()
    return lambda pixels: saturated(inner(pixels - mean))


def interrupt() -> None:
    raise KeyboardInterrupt


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
    assert len(whole.settings["model"]["probe_answers"]) == FURTHER
    with monkeypatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
        left, drawn = iter(range(batches)), rounds.draw_round
        patched.setattr(
            rounds, "draw_round", lambda *asked: drawn(*asked) if next(left, None) is not None else interrupt()
        )
        certify_dataset(first, random_dataset(3), tmp_path / "run", **RUN, partial_seconds=0)
    run = read_run(tmp_path / "run")
    assert (len(run.rows) == 3) == (batches > 3)
    with pytest.raises(RunError, match="another network: (probe_logits, )?(probe_noisy, )?probe_answers"):
        check_network_of_run(second, run)
    with pytest.raises(
        RunError, match=r"the network's answers? to (a|further) fixed images? \(model.probe_\w+\) differ in"
    ):
        certify_dataset(second, random_dataset(3), tmp_path / "run", **RUN)
    check_network_of_run(first, run)
    assert results(certify_dataset(first, random_dataset(3), tmp_path / "run", **RUN)) == results(whole)


def test_an_attribute_tells_modules_with_the_same_hard_votes_apart(tmp_path):
    run = certify_dataset(Threshold(0.5).eval(), random_dataset(3), tmp_path, **RUN)
    used = Threshold(0.5).eval()
    used(torch.zeros(1, *SHAPE))  # a count of passes is not the network
    check_network_of_run(used, run)
    with pytest.raises(RunError, match=r"another network: attributes\.Threshold\.threshold \(begin the names"):
        check_network_of_run(Threshold(0.50001).eval(), run)
    with pytest.raises(RunError, match=r"the attribute threshold of .* \(model.attributes.Threshold.threshold\) was"):
        certify_dataset(Threshold(0.50001).eval(), random_dataset(3), tmp_path, **RUN)


def test_a_vote_on_the_border_is_rounding(tmp_path):
    certify_dataset(Threshold(0.5).eval(), random_dataset(2), tmp_path, **RUN)
    settings = json.loads((tmp_path / "run.json").read_text())
    answers = settings["model"]["probe_answers"]
    answers[0] = next(value for value in answers if value != answers[0])
    (tmp_path / "run.json").write_text(json.dumps(settings))
    certify_dataset(Threshold(0.5).eval(), random_dataset(2), tmp_path, **RUN)
    assert read_run(tmp_path).settings["model"] == settings["model"]


def test_a_record_without_further_answers_is_compared_as_before(tmp_path):
    certify_dataset(Threshold(0.5).eval(), random_dataset(2), tmp_path, **RUN)
    settings = json.loads((tmp_path / "run.json").read_text())
    for key in ("probe_answers", "probe_noisy", "attributes"):
        del settings["model"][key]
    (tmp_path / "run.json").write_text(json.dumps(settings))
    run = certify_dataset(Threshold(0.5).eval(), random_dataset(2), tmp_path, **RUN)
    check_network_of_run(Threshold(0.5).eval(), run)
    assert run.settings["model"] == settings["model"]


def test_graded_logits_are_known_by_one_answer(tmp_path):
    model = certify_dataset(Shifted().eval(), random_dataset(1), tmp_path, **RUN).settings["model"]
    assert "probe_logits" in model and "probe_answers" not in model
    assert "classes" not in model["attributes"] and not any(
        name.endswith("extra_repr") for name in model["attributes"]
    )


def test_a_function_that_gives_one_answer_to_all_images_is_resumed_with_a_warning(tmp_path):
    certify_dataset(Constant(), random_dataset(1), tmp_path, **RUN)
    with pytest.warns(
        UserWarning, match="gives one answer to all of 128 fixed images, so nothing shows whether it is"
    ):
        certify_dataset(Constant(), random_dataset(1), tmp_path, **RUN)
    with pytest.raises(RunError, match="model.probe_logits"):
        certify_dataset(Constant(label=2), random_dataset(1), tmp_path, **RUN)


WRAPPERS: dict[str, Callable[[nn.Sequential], nn.Module]] = {
    "compiled": lambda inner: torch.compile(inner, backend="eager"),  # type: ignore[return-value]
    "on several devices": nn.DataParallel,
    "both": lambda inner: nn.DataParallel(torch.compile(inner, backend="eager")),
    "compiled in part": lambda inner: nn.Sequential(inner[0], torch.compile(inner[1], backend="eager"), *inner[2:]),
}


@pytest.mark.parametrize("end", [nn.Identity(), nn.Hardtanh(0.0, 1e-9)], ids=["graded", "hard"])
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_what_is_put_around_a_network_to_run_it_is_no_other_network(wrap, end, tmp_path):
    def made() -> nn.Sequential:
        return nn.Sequential(*network(nn.ReLU()), end).eval()

    plain = certify_dataset(made(), random_dataset(2), tmp_path / "plain", **RUN)
    assert ("probe_answers" in plain.settings["model"]) == isinstance(end, nn.Hardtanh)
    wrapped = certify_dataset(wrap(made()).eval(), random_dataset(2), tmp_path / "wrapped", **RUN)
    for first, second, folder in ((made(), wrap(made()).eval(), plain), (wrap(made()).eval(), made(), wrapped)):
        certify_dataset(second, random_dataset(2), folder.path, **RUN)
        check_network_of_run(first, folder)
    assert wrapped.settings["model"] == plain.settings["model"] and results(wrapped) == results(plain)
