"""Training in mixed precision wraps `forward` of the model: measuring meanwhile is of the network itself, and certificates say what to do."""

import copy

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from transformers import Trainer, TrainingArguments

from hf_smoothing.certification import certify_dataset
from hf_smoothing.certification.classifiers import in_mixed_precision
from hf_smoothing.interval import IntervalRadiusCallback, certify_dataset_linf, linf_certificates
from hf_smoothing.interval.classifier import in_own_precision
from tests.support.tiny import any_model, data, trainer, trainer_values
from tests.support.unusual import SHAPE, InPlace, Unusual


class Trained(Unusual):
    """With the loss that a Trainer wants, and the pixels as they come."""

    def forward(self, pixel_values, labels=None):
        logits = super().forward(pixel_values)
        if labels is None:
            return logits
        return {"loss": nn.functional.cross_entropy(logits.float(), labels), "logits": logits}


def images(count=6, low=0.0, high=1.0):
    values = torch.rand((count, *SHAPE), generator=torch.Generator().manual_seed(2)) * (high - low) + low
    values[:, 0, 0, :2] = torch.tensor([low, high])
    return [{"pixel_values": image, "labels": number % 3} for number, image in enumerate(values)]


def stock(model, folder, items, **settings):
    values = {"eval_strategy": "steps", "eval_steps": 1, "remove_unused_columns": False} | trainer_values(folder)
    loop = Trainer(model, TrainingArguments(**(values | settings)), train_dataset=items, eval_dataset=items)
    loop.add_callback(IntervalRadiusCallback(loop, items, largest=0.1))
    return loop


def figures(loop):
    return [entry for entry in loop.state.log_history if "eval_tradeoff" in entry]


def measured(model, items):
    """What the callback says of a model that no training has wrapped."""

    class Loop:
        def __init__(self):
            self.model = copy.deepcopy(model)

        def log(self, found):
            self.found = found

    loop = Loop()
    IntervalRadiusCallback(loop, items, largest=0.1).on_evaluate(TrainingArguments(use_cpu=True), None, None)
    return loop.found


def test_the_callback_measures_the_network_itself_and_training_stays_in_mixed_precision(tmp_path):
    model, items = Trained(), images()
    loop = stock(model, tmp_path, items, bf16=True, max_steps=3)
    loop.train()
    assert len(figures(loop)) == 3
    assert in_mixed_precision(model) == "the network"
    wrapped = model.forward
    with in_own_precision(model):
        assert model(images()[0]["pixel_values"][None]).dtype is torch.float32
        assert model.forward != wrapped
    assert model.forward == wrapped
    with in_own_precision(model), pytest.raises(KeyError):
        raise KeyError
    assert model.forward == wrapped
    own = loop.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    wanted = measured(own, items)
    assert {name: figures(loop)[-1][name] for name in wanted} == wanted


@pytest.mark.parametrize("kind", ["resnet", "smoothed-resnet"])
@pytest.mark.parametrize("objective", [None, "adaptive-interval"])
def test_so_it_does_in_a_robust_trainer(kind, objective, tmp_path):
    settings = {} if objective is None else {"objective_args": {"largest": 0.01}, "objective": objective}
    model = any_model(kind)
    loop = trainer(
        model,
        tmp_path,
        noise="clean",
        bf16=True,
        eval_strategy="steps",
        eval_steps=1,
        eval_dataset=data(4),
        **settings,
    )
    loop.add_callback(IntervalRadiusCallback(loop, data(8), largest=0.01))
    loop.train()
    assert len(figures(loop)) == 2
    assert not in_mixed_precision(model)
    linf_certificates(model.eval(), data(2).pixels, largest=0.01)


@pytest.mark.parametrize("around", ["nothing", "a module"])
def test_certificates_of_a_wrapped_network_say_what_to_do(around, tmp_path):
    model = Accelerator(mixed_precision="bf16", cpu=True).prepare_model(Trained(), evaluation_mode=True).eval()
    network = model if around == "nothing" else nn.Sequential(model).eval()
    pixels = torch.stack([item["pixel_values"] for item in images()])
    named = "the network" if around == "nothing" else "'0'"
    for ask in (
        lambda: linf_certificates(network, pixels, largest=0.1),
        lambda: certify_dataset_linf(network, images(), tmp_path / "run", largest=0.1, progress=False),
        lambda: certify_dataset(
            network, images(), tmp_path / "run", sigma=0.25, n=10, noise_kind="gaussian", progress=False
        ),
    ):
        with pytest.raises(
            ValueError,
            match=rf"left `forward` of {named}( under autocast)?. Take it out with .*keep_fp32_wrapper=False\)",
        ):
            ask()
    linf_certificates(network, pixels, largest=0.1, cover_run=False)
    Accelerator(mixed_precision="bf16", cpu=True).unwrap_model(model, keep_fp32_wrapper=False)
    certify_dataset(network, images(), tmp_path / "run", sigma=0.25, n=10, noise_kind="gaussian", progress=False)
    found = linf_certificates(network, pixels, largest=0.1)
    assert torch.equal(found[1], linf_certificates(Trained(), pixels, largest=0.1)[1])


def test_what_is_not_asked_through_forward_needs_no_cure(tmp_path):
    model = any_model("smoothed-resnet")
    wanted = linf_certificates(model, data(2).pixels, largest=0.01)
    wrapped = Accelerator(mixed_precision="bf16", cpu=True).prepare_model(model, evaluation_mode=True).eval()
    assert torch.equal(linf_certificates(wrapped, data(2).pixels, largest=0.01)[1], wanted[1])
    certify_dataset(wrapped, data(2), tmp_path, sigma=0.25, n=10, noise_kind="gaussian", progress=False)


def test_the_callback_clamps_as_runs_do(tmp_path):
    items = images(low=-0.0005, high=1.0005)
    loop = stock(Trained(), tmp_path / "training", items, max_steps=1)
    loop.train()
    clamped = [item | {"pixel_values": item["pixel_values"].clamp(0.0, 1.0)} for item in items]
    wanted = measured(loop.model, clamped)
    assert {name: figures(loop)[-1][name] for name in wanted} == wanted
    run = certify_dataset_linf(Unusual(), items, tmp_path / "run", largest=0.1, progress=False)
    again = certify_dataset_linf(Unusual(), clamped, tmp_path / "clamped", largest=0.1, progress=False)
    assert [row["radius"] for row in run.rows.values()] == [row["radius"] for row in again.rows.values()]


def test_the_callback_leaves_its_images_and_the_mode_as_they_are():
    items = images()
    first = measured(InPlace(), items)
    assert first == measured(InPlace(), items)

    class Failing(Unusual):
        def forward(self, pixels):
            raise KeyError("no such layer")

    class Loop:
        model = Failing().train()

    callback = IntervalRadiusCallback(Loop(), items, largest=0.1)
    before = callback.pixels.clone()
    with pytest.raises(KeyError):
        callback.on_evaluate(TrainingArguments(use_cpu=True), None, None)
    assert Loop.model.training

    class Loop:
        model = InPlace()
        log = staticmethod(lambda found: None)

    callback = IntervalRadiusCallback(Loop(), items, largest=0.1)
    for _ in range(2):
        callback.on_evaluate(TrainingArguments(use_cpu=True), None, None)
    assert torch.equal(callback.pixels, before)


class Judging(Unusual):
    """Has a `classify` that goes through `forward`."""

    def classify(self, pixels):
        return self(pixels)


@pytest.mark.parametrize("wrap", [lambda model: model, nn.DataParallel], ids=["alone", "parallel"])
def test_a_classify_that_calls_forward_does_not_hide_it(wrap, tmp_path):
    prepared = Accelerator(mixed_precision="bf16", cpu=True).prepare_model(Judging(), evaluation_mode=True)
    network = wrap(prepared).eval()
    pixels = torch.stack([item["pixel_values"] for item in images()])
    for ask in (
        lambda: linf_certificates(network, pixels, largest=0.1),
        lambda: certify_dataset_linf(network, images(), tmp_path / "run", largest=0.1, progress=False),
        lambda: certify_dataset(network, images(), tmp_path / "run", sigma=0.25, n=100, progress=False),
    ):
        with pytest.raises(ValueError, match="training in mixed precision has left `forward` of the network"):
            ask()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrap", [lambda model: model, nn.DataParallel], ids=["alone", "parallel"])
def test_our_classify_goes_past_forward(wrap, tmp_path):
    model = any_model("smoothed-resnet")
    prepared = Accelerator(mixed_precision="bf16", cpu=True).prepare_model(model, evaluation_mode=True)
    linf_certificates(wrap(prepared).eval(), data(2).pixels, largest=0.01)
