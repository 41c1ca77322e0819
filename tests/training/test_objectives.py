"""Objectives are found by name, take checked settings, and the mixture equals its slow twin."""

import json

import numpy as np
import pytest
import torch
from transformers import HfArgumentParser

from hf_smoothing import NoiseMixture, RobustTrainer, RobustTrainingArguments, denoised_classifier
from hf_smoothing.data import DecodedPixels
from hf_smoothing.training import Batch, ObjectiveState
from hf_smoothing.training.objectives import OBJECTIVES, Network, find_objective, mixture_cross_entropy
from tests.support.tiny import KINDS, MEAN, STD, any_model, arguments, data, plain, smoothed, tensors, trainer


def slow_cross_entropy(logits, labels, smoothing):
    """-sum_k q_k log p_k with q = (1 - smoothing) * one-hot + smoothing / K, image by image."""
    total = 0.0
    for row, label in zip(logits.double(), labels.tolist(), strict=True):
        log_p = row - row.exp().sum().log()
        q = torch.full_like(log_p, smoothing / len(row))
        q[label] += 1 - smoothing
        total += float(-(q * log_p).sum())
    return total / len(labels)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("noise", [None, NoiseMixture((0.25, 1.0), clean=0.3)])
def test_mixture_cross_entropy_equals_its_slow_twin(noise, smoothing):
    pixels = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels, weight = torch.arange(8) % 5, torch.randn(48, 5, generator=torch.Generator().manual_seed(1))
    state = ObjectiveState(noise, torch.Generator().manual_seed(2), label_smoothing=smoothing)
    loss, logs = mixture_cross_entropy(lambda x: x.flatten(1) @ weight, Batch(pixels, labels), state)
    noisy = pixels if noise is None else noise.add(pixels, torch.Generator().manual_seed(2))[0]
    expected = slow_cross_entropy(noisy.flatten(1) @ weight, labels, smoothing)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert logs == {}


def test_the_clean_pixels_are_not_changed_in_place():
    pixels = torch.rand(4, 3, 4, 4)
    before = pixels.clone()
    state = ObjectiveState(NoiseMixture((1.0,)), torch.Generator().manual_seed(0))
    mixture_cross_entropy(lambda x: x.flatten(1), Batch(pixels, torch.arange(4)), state)
    assert torch.equal(pixels, before)


def test_find_objective():
    assert {"consistency", "mixture"} <= OBJECTIVES.keys()
    needy = {"adaptive-interval", "cc-ibp", "exp-ibp", "feature-distillation", "mtl-ibp", "sabr"}
    assert all(find_objective(name, OBJECTIVES) is OBJECTIVES[name] for name in OBJECTIVES.keys() - needy)
    assert find_objective("mixture", OBJECTIVES) is mixture_cross_entropy
    assert find_objective(mixture_cross_entropy, {}) is mixture_cross_entropy
    names = ", ".join(sorted(OBJECTIVES))
    with pytest.raises(ValueError, match=f"`objective` must be one of {names}, or a callable, got 'hinge'"):
        find_objective("hinge", OBJECTIVES)


def tempered(model, batch, state, *, temperature=1.0, offset=0.0):
    """An objective with settings of its own."""
    loss = torch.nn.functional.cross_entropy(model(batch.pixels) / temperature, batch.labels) + offset
    return loss, {"temperature": torch.tensor(float(temperature)), "offset": torch.tensor(float(offset))}


@pytest.mark.parametrize("settings", [{"temperature": 4.0}, {"offset": 7.0, "temperature": 0.5}])
def test_settings_reach_the_objective(settings):
    pixels, labels = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    call = (lambda x: x.flatten(1), Batch(pixels, labels), ObjectiveState(None, torch.Generator()))
    loss, logs = find_objective("own", {"own": tempered}, settings)(*call)
    assert float(loss) == float(tempered(*call, **settings)[0]) != float(tempered(*call)[0])
    assert logs["temperature"] == settings["temperature"]
    also, _ = find_objective(tempered, {}, settings)(*call)  # a callable takes settings too
    assert float(also) == float(loss)


@pytest.mark.parametrize("settings", [None, {}])
def test_without_settings_the_objective_is_left_as_it_is(settings):
    assert find_objective("own", {"own": tempered}, settings) is tempered


@pytest.mark.parametrize(
    ("objective", "settings", "message"),
    [
        (tempered, {"heat": 1}, "`objective_args` names 'heat'; this objective has temperature, offset"),
        (tempered, {"temperature": 1, "b": 1, "a": 1}, "names 'a', 'b'; this objective has temperature, offset"),
        ("consistency", {"copy": 2}, "names 'copy'; this objective has copies, weight, entropy"),
        ("consistency", {"batch": 2}, "names 'batch'"),  # an argument, but not a setting
        ("masked-denoising", {"copies": 2}, "names 'copies'; this objective has no settings"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_known_ones(objective, settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        find_objective(objective, OBJECTIVES, settings)
    if isinstance(objective, str):
        with pytest.raises(ValueError, match=message):
            trainer(plain(), tmp_path, objective_args=settings, objective=objective)


def test_an_objective_of_another_room_is_found_by_name_and_needs_its_arguments(tmp_path):
    from hf_smoothing.interval.objectives import adaptive_interval

    found = find_objective("adaptive-interval", OBJECTIVES, {"largest": 0.1})
    assert found.func is adaptive_interval
    assert found.keywords == {"largest": 0.1}
    with pytest.raises(ValueError, match="needs 'largest': give it in `objective_args`"):
        trainer(plain(), tmp_path, objective="adaptive-interval", objective_args={"kappa": 0.5})


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("stability", {"weight": "2"}, "a finite number for 'weight', such as 2.0, got '2'"),
        ("smoothadv", {"epsilon": float("inf")}, "a finite number for 'epsilon', such as 0.5, got inf"),
        ("macer", {"copies": "16"}, "a whole number for 'copies', such as 16, got '16'"),
        ("consistency", {"copies": 2.0}, "a whole number for 'copies', such as 2, got 2.0"),
        ("mixture", {"mixup": None}, "a finite number for 'mixup', such as 0.0, got None"),
        ("smoothmix", {"one_step": 1}, "true or false for 'one_step', such as False, got 1"),
        ("smoothadv", {"attack": 2}, "a name for 'attack', such as 'pgd', got 2"),
        ("denoising", {"mse": True}, "a finite number for 'mse', such as 1.0, got True"),
    ],
)
def test_a_setting_of_another_kind_is_refused_before_training(name, settings, message, tmp_path):
    with pytest.raises(ValueError, match=f"`objective_args` must give {message}"):
        trainer(plain(), tmp_path, noise="0.25", objective=name, objective_args=settings)


def test_whole_numbers_do_for_any():
    assert find_objective("macer", OBJECTIVES, {"weight": 12, "copies": np.int64(4)}).keywords["weight"] == 12


def test_two_objectives_are_refused(tmp_path):
    args = arguments(tmp_path, objective="macer", noise="0.25", image_mean=MEAN, image_std=STD)
    with pytest.raises(ValueError, match="one of your own and objective='macer' in the arguments"):
        RobustTrainer(plain(), args, objective=tempered, train_dataset=data())


def test_a_loss_that_nothing_trained_changes_is_refused(tmp_path):
    model = denoised_classifier(smoothed(), sigma=0.25)
    loop = trainer(model, tmp_path, noise="0.25", objective="denoising", trainable=["classifier"])
    with pytest.raises(ValueError, match=r"Nothing that is trained changes the loss of 'denoising'.*`trainable`"):
        loop.train()


def test_a_denoiser_needs_no_labels(tmp_path):
    model = denoised_classifier(smoothed(), sigma=0.25)
    before = tensors(model)
    images = DecodedPixels(data().pixels, None)
    loop = trainer(model, tmp_path, noise="0.25", objective="denoising", trainable=["denoiser"], train_dataset=images)
    loop.train()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all("denoiser" in name for name in changed)
    other = trainer(smoothed(), tmp_path / "b", noise="0.25", train_dataset=images)
    with pytest.raises(ValueError, match="Training needs 'labels'"):
        other.train()


@pytest.mark.parametrize("as_text", [False, True])
def test_settings_in_the_arguments(as_text, tmp_path):
    settings = {"temperature": 2.0, "offset": 100.0}
    loop = trainer(
        plain("vit"), tmp_path, objective=tempered, objective_args=json.dumps(settings) if as_text else settings,
        logging_strategy="steps", logging_steps=1, save_strategy="steps", save_steps=2,
    )  # fmt: skip
    assert loop.args.objective_args == settings
    loop.train()
    logged = [entry for entry in loop.state.log_history if "loss" in entry]
    assert [entry["temperature"] for entry in logged] == [2.0, 2.0]
    assert all(entry["loss"] > 100.0 for entry in logged)
    saved = torch.load(tmp_path / "checkpoint-2" / "training_args.bin", weights_only=False)
    assert saved.objective_args == settings


def test_settings_of_a_named_objective_in_the_arguments(tmp_path):
    args = arguments(
        tmp_path, noise="0.5", objective="consistency", objective_args={"copies": 3, "weight": 0.0}, image_mean=MEAN, image_std=STD,
    )  # fmt: skip
    model, counts = plain("vit"), []
    model.register_forward_pre_hook(
        lambda _m, _a, kwargs: counts.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    RobustTrainer(model, args, train_dataset=data()).train()
    assert counts == [12, 12]


def test_settings_on_the_command_line_and_in_a_file(tmp_path):
    words = ["--output-dir", str(tmp_path), "--use_cpu", "true", "--objective", "consistency"]
    parser = HfArgumentParser(RobustTrainingArguments)
    (args,) = parser.parse_args_into_dataclasses([*words, "--objective_args", '{"copies": 4}'])
    assert (args.objective, args.objective_args) == ("consistency", {"copies": 4})
    (tmp_path / "args.json").write_text(
        json.dumps({"output_dir": str(tmp_path), "use_cpu": True, "objective_args": {"copies": 5}})
    )
    (args,) = parser.parse_json_file(str(tmp_path / "args.json"))
    assert args.objective_args == {"copies": 5}


@pytest.mark.parametrize("text", ["copies=2", '{"copies": 2', "[2]", "2", '"copies"', ""])
def test_settings_that_are_no_json_object_are_refused(text, tmp_path):
    with pytest.raises(ValueError, match=r"`objective_args` must be a JSON object such as '\{\"copies\": 2\}', got"):
        arguments(tmp_path, objective_args=text)


class Recorder:
    """An objective of one's own that remembers what it was given."""

    def __init__(self):
        self.calls = []

    def __call__(self, model, batch, state):
        self.calls.append((batch, state))
        noisy, sigma = state.noise.add(batch.pixels, state.generator)
        loss = torch.nn.functional.cross_entropy(model(noisy), batch.labels)
        return loss, {"mean_sigma": sigma.mean(), "call": torch.tensor(float(len(self.calls)))}


@pytest.mark.parametrize("kind", KINDS)
def test_an_objective_of_ones_own(kind, tmp_path):
    objective = Recorder()
    loop = trainer(
        any_model(kind), tmp_path, objective=objective, noise="0.5", max_steps=4, logging_strategy="steps", logging_steps=2,
        label_smoothing_factor=0.1, horizontal_flip=True,
    )  # fmt: skip
    loop.train()
    assert len(objective.calls) == 4
    for number, (batch, state) in enumerate(objective.calls):
        assert batch.pixels.dtype == torch.float32 and batch.pixels.shape == (4, 3, 16, 16)
        assert batch.pixels.min() >= 0.0 and batch.pixels.max() <= 1.0
        assert batch.labels.dtype == torch.int64
        assert state.noise == NoiseMixture((0.5,))
        assert state.progress == pytest.approx(number / 4)
        assert state.label_smoothing == 0.1
    logged = [entry for entry in loop.state.log_history if "loss" in entry]
    assert [entry["mean_sigma"] for entry in logged] == [0.5, 0.5]
    assert [entry["call"] for entry in logged] == [1.5, 3.5]  # means since the last time
    json.dumps(loop.state.log_history)


def test_figures_of_an_objective_average_over_micro_steps(tmp_path):
    objective = Recorder()
    loop = trainer(
        plain("vit"), tmp_path, objective=objective, noise="0.5", max_steps=1, logging_strategy="steps", logging_steps=1,
        gradient_accumulation_steps=4, per_device_train_batch_size=2,
    )  # fmt: skip
    loop.train()
    assert len(objective.calls) == 4
    assert loop.state.log_history[0]["call"] == 2.5


def test_an_objective_is_not_used_in_evaluation(tmp_path):
    objective = Recorder()
    loop = trainer(plain("vit"), tmp_path, objective=objective, eval_dataset=data(4))
    metrics = loop.evaluate()
    assert objective.calls == []
    assert metrics["eval_loss"] > 0


def test_settings_of_an_objective_stand_in_the_arguments(tmp_path):
    with pytest.raises(TypeError, match=r"Pass RobustTrainingArguments\(objective=\.\.\., objective_args=\.\.\.\)"):
        RobustTrainer(plain(), arguments(tmp_path), objective="stability", objective_args={"weight": 2.0})


BOUNDED = {"adaptive-interval", "sabr", "mtl-ibp", "cc-ibp", "exp-ibp"}
WARMING = BOUNDED | {"smoothadv", "smoothmix"}
SIMPLE = sorted(set(OBJECTIVES) - {"denoising", "feature-distillation", "masked-denoising"})


def called(name, noise, progress, **settings):
    """An objective as a function, on a small network."""
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for layer in network[1::2]:
            layer.reset_parameters()
    settings = {"largest": 0.02} | settings if name in BOUNDED else settings
    batch = Batch(torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0]))
    state = ObjectiveState(noise, torch.Generator().manual_seed(1), progress=progress)
    return find_objective(name, OBJECTIVES, settings)(Network(network, network), batch, state)


@pytest.mark.parametrize("name", SIMPLE)
def test_a_warm_up_never_passes_for_the_objective_itself(name):
    noise = None if name in BOUNDED | {"adversarial", "trades", "discrepancy-mitigation"} else NoiseMixture((0.25,))
    whole, _ = called(name, noise, 1.0)
    if name in WARMING:
        with pytest.raises(ValueError, match=r"warms up, .*Pass ObjectiveState\(\.\.\., progress=step / steps\)"):
            called(name, noise, None)
        settings = {"clean_share": 0.0, "ramp_share": 0.0} if name in BOUNDED else {"warm_up": 0.0}
        assert torch.equal(called(name, noise, None, **settings)[0], whole)
    else:
        assert torch.equal(called(name, noise, None)[0], whole)


@pytest.mark.parametrize("progress", [-0.1, 1.5, 300, float("nan"), "0.5", [0.5], True, 1j])
def test_progress_is_a_share(progress):
    with pytest.raises(ValueError, match=r"must be the share of the training done.*progress=step / steps"):
        ObjectiveState(None, torch.Generator(), progress=progress)


def test_errors_about_noise_name_the_cure_of_the_trainer_and_of_the_function():
    for name in sorted(BOUNDED | {"adversarial", "trades", "discrepancy-mitigation"}):
        with pytest.raises(ValueError, match=r"Set noise='clean'; .* pass ObjectiveState\(None, \.\.\.\)"):
            called(name, NoiseMixture((0.25,)), 1.0)
        assert torch.isfinite(called(name, None, 1.0)[0])
    for name in ("smoothadv", "smoothmix", "macer", "stability", "consistency", "cat-rs"):
        with pytest.raises(
            ValueError, match=r"Set `noise`.* pass ObjectiveState\(NoiseMixture\(\(0\.25,\)\), \.\.\.\)"
        ):
            called(name, None, 1.0)
