"""A run belongs to one network: its weights, their dtype and its configuration."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hf_smoothing import SmoothedClassifier
from hf_smoothing.certification import Draws, Execution, agreement, certify_dataset, count_votes, predict
from hf_smoothing.certification.behaviour import answer_to_probe
from hf_smoothing.certification.classifiers import resolve_classifier
from hf_smoothing.certification.identity import check_network_of_run, classifier_identity
from hf_smoothing.certification.noise_kinds import noise_facts
from hf_smoothing.noise import GaussianStream, GridStream
from hf_smoothing.records import RunError, read_run
from tests.support.classifiers import RUN, random_dataset, results
from tests.support.processes import ROOT
from tests.support.tiny import smoothed


class Configured(nn.Module):
    """A classifier with a configuration, as transformers models have."""

    def __init__(self, **config):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
        self.config = SimpleNamespace(to_dict=lambda: config)

    def forward(self, pixels):
        return self.layers(pixels)


def test_a_setting_decides_nothing_by_itself_and_explains_another_answer(tmp_path):
    dataset = random_dataset(2)
    run = certify_dataset(Configured(image_mean=[0.5], created=1).eval(), dataset, tmp_path, **RUN)
    other = Configured(image_mean=[0.4], created=2).eval()
    certify_dataset(other, dataset, tmp_path, **RUN)
    check_network_of_run(other, run)
    other.layers.register_forward_pre_hook(lambda module, args: (args[0] + 0.1,))
    said = r"answers to fixed images .* differ by .*\(model\.config\.created\) was 1, is 2; .*\(model\.config\.image_mean\) was \[0\.5\], is \[0\.4\]"
    with pytest.raises(RunError, match=f"with these: .*{said}. Use the same"):
        certify_dataset(other, dataset, tmp_path, **RUN)
    with pytest.raises(RunError, match=f"another network: .*{said}. Pass the network"):
        check_network_of_run(other, run)


def test_few_settings_are_named(tmp_path):
    def made(value):
        return Configured(**{f"setting_{number}": value for number in range(40)}, image_mean=value).eval()

    run, other = certify_dataset(made(1), random_dataset(2), tmp_path, **RUN), made(2)
    other.layers[1].bias.data += 1
    with pytest.raises(RunError) as caught:
        check_network_of_run(other, run)
    assert "model.weights_sha256 was" in str(caught.value) and str(caught.value).count("model.config.") == 8


class Unreadable(dict):
    def items(self):
        raise OSError("no such setting")


@pytest.mark.parametrize(
    ("config", "recorded"),
    [
        ({"_name_or_path": "/home/me", "id2label": {0: "cat"}, "base": {"_commit": "0", "size": 3}}, {"base": {"size": 3}}),
        ({"sizes": (1, 2), "eps": float("inf"), "dtype": torch.float32}, {"sizes": [1, 2], "eps": "Infinity", "dtype": "torch.float32"}),
        (Unreadable(size=3), None),
        (3, None),
    ],
    ids=["private", "no JSON", "unreadable", "no settings"],
)  # fmt: skip
def test_a_configuration_is_recorded_as_it_is(config, recorded, tmp_path):
    model = Configured().eval()
    model.config = SimpleNamespace(to_dict=lambda: config)
    run = certify_dataset(model, random_dataset(1), tmp_path, **RUN)
    assert run.settings["model"].get("config") == recorded


def written_by_transformers(model):
    """What a loss, a training and a loading leave in the configuration of a model."""
    size, channels = model.config.size, len(model.config.image_mean)
    model(pixel_values=torch.rand(2, channels, *size), labels=torch.tensor([0, 1]))
    for config in (model.config, model.config.base_config):
        config.use_cache, config.dtype, config.architectures = False, torch.float32, ["Other"]
        config.hf_smoothing = {"noise": {"sigmas": [0.5]}, "objective": {"name": "mixture"}}
    model.config.sigma, model.config.n, model.config.alpha = 0.5, 5000, 0.01
    return model


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_what_is_written_into_a_configuration_at_run_time_is_no_part_of_the_network(kind, tmp_path):
    model = smoothed(kind)
    dataset = random_dataset(1, (3, *model.config.size))
    run = certify_dataset(model, dataset, tmp_path / "run", **RUN)
    check_network_of_run(written_by_transformers(model), run)
    model.save_pretrained(tmp_path / "model")
    loaded = SmoothedClassifier.from_pretrained(tmp_path / "model").eval()
    for one in (model, loaded):
        assert results(certify_dataset(one, dataset, tmp_path / "run", **RUN)) == results(run)


DECIDING: dict[str, dict[str, Any]] = {
    "model_size": {"model_size": 8}, "image_mean": {"image_mean": [0.1, 0.5, 0.6]},
    "image_std": {"image_std": [0.2, 0.25, 0.5]}, "base_config.hidden_act": {"base": {"hidden_act": "gelu"}},
}  # fmt: skip


@pytest.mark.parametrize("name", DECIDING)
def test_what_decides_an_answer_is_named_where_it_differs(name, tmp_path):
    model, other = smoothed(), smoothed(**DECIDING[name])
    dataset = random_dataset(1, (3, *model.config.size))
    run = certify_dataset(model, dataset, tmp_path, **RUN)
    said = rf"answers to fixed images .*\(model\.config\.{name}\) was "
    with pytest.raises(RunError, match=f"another network: .*{said}"):
        check_network_of_run(other, run)
    with pytest.raises(RunError, match=said):
        certify_dataset(other, dataset, tmp_path, **RUN)


def test_a_network_for_images_of_another_size_is_refused(tmp_path):
    model, other = smoothed(), smoothed(size=8, model_size=16)
    run = certify_dataset(model, random_dataset(1, (3, *model.config.size)), tmp_path, **RUN)
    with pytest.raises(ValueError, match=r"must be at the certified resolution \(8, 8\), got \(16, 16\)"):
        check_network_of_run(other, run)


def test_the_shipped_classifier_is_that_of_its_committed_runs():
    folder = ROOT / "model_cards" / "resnet-mixture-cifar10"
    model = SmoothedClassifier.from_pretrained(folder)
    files = [*(folder / "records").rglob("run.json")]
    assert len(files) >= 3
    for file in files:
        check_network_of_run(model, read_run(file.parent))


def test_half_precision_weights_are_recorded(tmp_path):
    certify_dataset(
        lambda pixels: pixels.flatten(1)[:, :3], random_dataset(1), tmp_path / "callable", **RUN
    )  # has no weights
    model = json.loads((tmp_path / "callable" / "run.json").read_text())["model"]
    assert model["weights_sha256"] is None and len(model["probe_logits"][0]) == 3
    assert classifier_identity(Configured().to(torch.bfloat16))["weights_dtype"] == "bfloat16"


def test_ranks_with_different_networks_are_refused():
    def check(network, noise, known):
        agreement.check_same(resolve_classifier(network.eval()), noise, known, Execution())

    stream = GaussianStream(0, (1, 4, 4), sigma=0.5)
    answer = answer_to_probe(resolve_classifier(Configured().eval()), stream.shape)
    rank_0 = {"model": classifier_identity(Configured()) | answer.to_dict(), **noise_facts(stream)}
    check(Configured(), stream, rank_0)
    other = Configured()
    with torch.no_grad():
        other.layers[1].bias += 1e-6
    with pytest.raises(ValueError, match="not that of rank 0: model.weights_sha256 was"):
        check(other, stream, rank_0)
    hooked = Configured()
    hooked.layers.register_forward_pre_hook(lambda module, args: (2 * args[0],))
    with pytest.raises(ValueError, match="not that of rank 0: the network.s answers to fixed images"):
        check(hooked, stream, rank_0)
    elsewhere = {**rank_0, "noise_drawn_by": "a GPU"}
    with pytest.raises(ValueError, match="must draw their noise alike, but rank 0 is on a GPU and this one on CPU"):
        check(Configured(), stream, elsewhere)
    grid = GridStream(0, (1, 4, 4), sigma=0.5)  # one device draws it as another does
    check(Configured(), grid, {**rank_0, **noise_facts(grid)})
    with pytest.raises(ValueError, match="must draw their noise alike"):
        check(Configured(), grid, rank_0)


def test_uint8_images_are_not_counted_as_they_are():
    stream = GaussianStream(0, (1, 4, 4), sigma=0.5)
    images = torch.full((1, 1, 4, 4), 200, dtype=torch.uint8)
    with pytest.raises(TypeError, match="`images` must be float32"):
        count_votes(
            Configured().eval(), images, [Draws(0, 0, 0, 10)], stream=stream, execution=Execution(copies_per_batch=5)
        )


def test_a_seeded_prediction_depends_on_the_index_of_an_image_alone():
    images = torch.stack([random_dataset(2)[index]["pixel_values"] for index in range(2)])
    model = Configured().eval()
    for options in ({}, {"mode": "fixed"}, {"noise_kind": "gaussian"}, {"mode": "fixed", "noise_kind": "gaussian"}):
        both = predict(model, images, sigma=1.0, n=50, seed=3, indices=[7, 4], **options)
        alone = predict(model, images[1:], sigma=1.0, n=50, seed=3, indices=[4], **options)
        assert both[1] == alone[0]


@pytest.mark.parametrize(
    "change", [{"seed": 0.9}, {"seed": None}, {"copies_per_batch": 1.5}, {"copies_per_batch": True}]
)
def test_numbers_that_are_not_whole_are_refused(change, tmp_path):
    with pytest.raises(ValueError, match=f"`{next(iter(change))}` must be a whole number"):
        certify_dataset(Configured().eval(), random_dataset(1), tmp_path / "run", **{**RUN, **change})
    assert not (tmp_path / "run").exists()


def test_labels_and_descriptions_are_checked_before_the_folder_is_made(tmp_path):
    item = random_dataset(1)[0]
    with pytest.raises(ValueError, match="`labels of image 0` must be a whole number, got 1.7"):
        certify_dataset(Configured().eval(), [{**item, "labels": 1.7}], tmp_path / "run", **RUN)
    for description, message in (
        ({"note": object()}, "`description` must hold JSON values only .*'note' holds <object"),
        (
            {"note": np.int64(1)},
            r"`description` must hold JSON values only .*'note' holds (np.int64\(1\)|1:).*\.item\(\)",
        ),
        ({"a": 1, "note": {"b": float("nan")}}, "`description` must hold JSON values only .*'note' holds {'b': nan}"),
        ({1: 2}, "`description` must hold JSON values only under names that are text, but 1 holds 2"),
        ("text", "`description` must be a mapping of names to JSON values, .* got 'text'"),
        ([("a", 1)], "`description` must be a mapping of names to JSON values"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            certify_dataset(Configured().eval(), [item], tmp_path / "run", **RUN, description=description)
    assert not (tmp_path / "run").exists()


WHOLE = {"numpy": np.int64, "torch": torch.tensor, "numpy, no dimensions": np.array}
REAL = {"numpy": np.float32, "torch": torch.tensor, "numpy, no dimensions": np.array}


@pytest.mark.parametrize("kind", WHOLE)
def test_numbers_of_any_kind_are_recorded_as_plain_ones(kind, tmp_path):
    whole, real = WHOLE[kind], REAL[kind]
    numbers = {
        **RUN, "mode": "targets", "sigma": real(0.5), "alpha": real(0.125), "targets": [real(0.0), real(0.25)], "n0": whole(10), "n": whole(300),
        "copies_per_batch": whole(16), "seed": whole(3), "indices": [whole(1), whole(0)], "partial_seconds": real(5.0),
    }  # fmt: skip
    dataset = [{**item, "labels": whole(item["labels"])} for item in random_dataset(2)]
    run = certify_dataset(Configured().eval(), dataset, tmp_path / "run", **numbers)
    plain = {name: value.item() if hasattr(value, "item") else value for name, value in numbers.items()}
    plain |= {"targets": [0.0, 0.25], "indices": [1, 0]}
    again = certify_dataset(Configured().eval(), random_dataset(2), tmp_path / "plain", **plain)
    assert results(run) == results(again)
    assert {**run.settings, "created": None} == {**again.settings, "created": None}
    certify_dataset(Configured().eval(), random_dataset(2), tmp_path / "run", **plain)
