"""What is certified is a function of one image, and a run belongs to one such function, whatever its modules look like."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hf_smoothing import SmoothedClassifier
from hf_smoothing.attack_run import attack_run
from hf_smoothing.certification import certify, certify_dataset, predict, rounds
from hf_smoothing.certification.behaviour import answer_to_probe
from hf_smoothing.certification.classifiers import resolve_classifier
from hf_smoothing.certification.execution import Execution
from hf_smoothing.certification.identity import check_network_of_run, classifier_identity
from hf_smoothing.certification.probes import FURTHER, further_images
from hf_smoothing.certification.tolerance import COARSE, FINE, answers_apart
from hf_smoothing.interval import certify_dataset_linf
from hf_smoothing.records import RunError, read_run
from tests.support.classifiers import RUN, Constant, bytes_of, random_dataset, random_images, results
from tests.support.tiny import plain


SHAPE = (1, 4, 4)


def network(*middle: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), *middle, nn.Linear(8, 3))


class Own:
    """A classifier of one's own around a network."""

    def __init__(self, inner: nn.Module) -> None:
        self.inner = inner

    def classify(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.inner(pixels)
        return found


class CallableOwn(Own):
    def __call__(self, pixels: Tensor) -> Tensor:
        return self.classify(pixels)


WRAPPED: dict[str, Callable[[nn.Module], Any]] = {
    "a lambda": lambda inner: lambda pixels: inner(pixels),
    "functools.partial": functools.partial,
    "an object with classify": Own,
    "the method of an object": lambda inner: Own(inner).classify,
    "a callable object": CallableOwn,
}
IN_TRAIN_MODE = {"batch norm": nn.BatchNorm1d(8), "dropout": nn.Dropout(0.2)}
NEIGHBOURS: dict[str, Any] = {
    "batch norm without statistics": network(nn.BatchNorm1d(8, track_running_stats=False)).eval(),
    "batch norm of images without statistics": nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten(), nn.Linear(16, 3)
    ).eval(),
    "a mean over the batch": lambda pixels: (pixels - pixels.mean(0)).flatten(1)[:, :3],
    "a scale of the batch": lambda pixels: pixels.flatten(1)[:, :3] / pixels.max(),
    "the smallest and largest of the batch": lambda pixels: (
        (pixels.flatten(1)[:, :3] - pixels.min()) / (pixels.max() - pixels.min())
    ),
    "random numbers beside a masked class": lambda pixels: torch.cat(
        [pixels.flatten(1)[:, :3] + 0.1 * torch.randn(len(pixels), 3), torch.full((len(pixels), 1), -1e4)], 1
    ),
    "the place in the batch": lambda pixels: pixels.flatten(1)[:, :3] * torch.arange(1.0, len(pixels) + 1)[:, None],
    "random numbers": lambda pixels: pixels.flatten(1)[:, :3] + 0.1 * torch.randn(len(pixels), 3),
}


def votes(logits: Tensor) -> Tensor:
    return nn.functional.one_hot(logits.argmax(1), logits.shape[1]).float()


def saturated(logits: Tensor) -> Tensor:
    return (200 * logits).softmax(1)


def normalised(pixels: Tensor) -> Tensor:
    flat = pixels.flatten(1)
    return (flat - flat.mean(0)) / (flat.std(0, unbiased=False) + 0.3) + 0.5 * flat


HARD: dict[str, Callable[[Tensor], Tensor]] = {"votes": votes, "saturated": saturated}
"""What leaves little of logits."""
HIDDEN: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "statistics of the batch": lambda last, pixels: last(normalised(pixels)),
    "dropout": lambda last, pixels: nn.functional.dropout(last(pixels.flatten(1)), 0.1, True),
    "dropout of the inputs": lambda last, pixels: last(nn.functional.dropout(pixels.flatten(1), 0.05, True)),
}
"""What makes a vote depend on the batch or the moment, seen through such an end."""


def refused(classifier: Any, said: str, folder: Any) -> None:
    images = bytes_of(random_images(1, SHAPE))
    for call in (certify, predict):
        with pytest.raises(ValueError, match=said):
            call(classifier, images, sigma=0.5, n=100)
    with pytest.raises(ValueError, match=said):
        certify_dataset(classifier, random_dataset(2), folder / "run", **RUN)
    assert not (folder / "run").exists()


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("layer", IN_TRAIN_MODE.values(), ids=IN_TRAIN_MODE)
def test_a_network_in_train_mode_is_refused_wherever_it_hides(layer, wrap, tmp_path):
    inner = network(layer).train()
    refused(
        wrap(inner),
        r"The classifier must (judge each image by itself|answer to an image alike).*Call eval\(\)",
        tmp_path,
    )
    certify(wrap(inner.eval()), bytes_of(random_images(1, SHAPE)), sigma=0.5, n=100)


@pytest.mark.parametrize("classifier", NEIGHBOURS.values(), ids=NEIGHBOURS)
def test_what_depends_on_the_batch_or_the_moment_is_refused(classifier, tmp_path):
    refused(classifier, "The classifier must (judge each image by itself|answer to an image alike)", tmp_path)


@pytest.mark.parametrize("end", HARD.values(), ids=HARD)
@pytest.mark.parametrize("hidden", HIDDEN.values(), ids=HIDDEN)
def test_hard_votes_hide_neither_neighbours_nor_chance(hidden, end):
    for seed in range(12):
        torch.manual_seed(seed)
        last = nn.Linear(16, 3)
        with pytest.raises(
            ValueError, match="The classifier must (judge each image by itself|answer to an image alike)"
        ):
            answer_to_probe(resolve_classifier(lambda pixels, last=last: end(hidden(last, pixels))), SHAPE)


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 1, 7), (3, 224, 224)])
def test_further_images_are_grouped_anew_and_the_same(shape):
    first, second = (
        [
            (number, image)
            for batch in further_images(shape, regrouped=again)
            for number, image in zip(*batch, strict=True)
        ]
        for again in (False, True)
    )
    assert [number for number, _ in first] == list(range(FURTHER))
    found = dict(second)
    assert len(found) == FURTHER and all(torch.equal(image, found[number]) for number, image in first)
    assert all(image.shape == shape and image.dtype == torch.float32 for image in found.values())


@pytest.mark.filterwarnings("ignore")  # torch asks to move to torchao
def test_quantised_weights_have_an_identity_and_scales_of_the_batch_are_refused(tmp_path):
    known = set()
    for shift in (0.0, 0.0, 0.5):
        one = network(nn.ReLU()).eval()
        one[1].weight.data[0, 0] += shift
        quantised = torch.ao.quantization.quantize_dynamic(one, {nn.Linear}, dtype=torch.qint8)
        known.add(classifier_identity(quantised)["weights_sha256"])
    assert len(known) == 2
    refused(quantised.eval(), "quantisation a scale that is not taken from the batch", tmp_path)


class Cached(nn.Module):
    """Makes a table at the first pass, as networks do with positions or the features of texts."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.table = network(nn.ReLU()), None

    def forward(self, pixels: Tensor) -> Tensor:
        self.table = pixels.new_ones(3) if self.table is None else self.table
        found: Tensor = self.inner(pixels) * self.table
        return found

    def get_extra_state(self) -> object:
        return object()  # of which nothing can be said but where it lies


def test_what_a_network_keeps_from_the_probe_serves_an_attack_and_a_resumption(tmp_path):
    run = certify_dataset(Cached().eval(), random_dataset(2), tmp_path, **RUN)
    attack_run(Cached().eval(), random_dataset(2), run, steps=1, n=100)
    certify_dataset(Cached().eval(), random_dataset(2), tmp_path, **RUN)


def test_a_batch_that_cannot_be_any_size_is_said_to_be_the_cause():
    def in_fours(pixels):
        assert len(pixels) % 4 == 0
        return pixels.flatten(1)[:, :3]

    with pytest.raises(AssertionError) as caught:
        certify(in_fours, bytes_of(random_images(1, SHAPE)), sigma=0.5, n=100)
    assert any("A classifier must take batches of any size" in note for note in caught.value.__notes__)


def test_every_class_counts_for_the_identity(tmp_path):
    def wide(last):
        return lambda pixels: torch.cat([pixels.flatten(1)] * 2, 1) * torch.tensor([1.0] * 20 + [last] * 12)

    certify_dataset(wide(1.0), random_dataset(2), tmp_path, **RUN)
    with pytest.raises(RunError, match="answer to a fixed image"):
        certify_dataset(wide(-1.0), random_dataset(2), tmp_path, **RUN)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_rounding_is_no_fault(dtype, weights):
    model = SmoothedClassifier.from_base_pretrained(
        plain().to(weights), sigma=0.5, size=16, image_mean=[0.5] * 3, image_std=[0.1] * 3
    ).eval()
    found = [
        answer_to_probe(resolve_classifier(model), (3, 16, 16), Execution(dtype=dtype, channels_last=last)).logits
        for last in (False, True)
    ]
    assert answers_apart(*found, COARSE if dtype == "bfloat16" or weights == torch.bfloat16 else FINE) <= 1


def test_a_class_that_is_ruled_out_is_no_fault():
    def two_of_three(pixels):
        ruled_out = pixels.new_full((len(pixels), 1), -torch.inf)
        return torch.cat([pixels.flatten(1)[:, :2], ruled_out], 1)

    assert answer_to_probe(resolve_classifier(two_of_three), SHAPE).logits[2] == 0
    assert certify(two_of_three, bytes_of(random_images(1, SHAPE)), sigma=0.5, n=100)[0].prediction in (-1, 0, 1)


# --- One run, one network ----------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("noise", ["grid", "gaussian"])
def test_rows_do_not_depend_on_the_default_dtype(default, noise, tmp_path):
    seen = set()

    def classifier(pixels):
        seen.add(pixels.dtype)
        return pixels.flatten(1)[:, :3]

    images = random_dataset(2)
    expected = certify_dataset(classifier, images, tmp_path / "a", **RUN, noise_kind=noise)
    torch.set_default_dtype(default)
    try:
        found = certify_dataset(classifier, images, tmp_path / "b", **RUN, noise_kind=noise)
    finally:
        torch.set_default_dtype(torch.float32)
    assert results(found) == results(expected) and seen == {torch.float32}
