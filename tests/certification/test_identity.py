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


def test_a_run_is_not_resumed_with_another_configuration(tmp_path):
    dataset = random_dataset(2)
    certify_dataset(Configured(image_mean=[0.5]).eval(), dataset, tmp_path, **RUN)
    with pytest.raises(RunError, match=r"\(model\.config\.image_mean\) was '\[0\.5\]', is '\[0\.4\]'\. Use"):
        certify_dataset(Configured(image_mean=[0.4]).eval(), dataset, tmp_path, **RUN)


def test_what_changes_from_loading_to_loading_does_not_count():
    first = Configured(size=32, base_config={"_name_or_path": "a", "transformers_version": "5.18.0", "depths": [1]})
    second = Configured(size=32, base_config={"_name_or_path": "b", "transformers_version": "5.23.0", "depths": [1]})
    assert classifier_identity(first) == classifier_identity(second)


def written_by_transformers(model):
    """What a loss, a training and a loading leave in the configuration of a model."""
    size, channels = model.config.size, len(model.config.image_mean)
    model(pixel_values=torch.rand(2, channels, *size), labels=torch.tensor([0, 1]))
    model.base_network(pixel_values=torch.rand(2, channels, *size), labels=torch.tensor([0, 1]))
    assert model.config.problem_type == "single_label_classification"
    for config in (model.config, model.config.base_config):
        config.use_cache, config.dtype, config.architectures = False, torch.float32, ["Other"]
        config._attn_implementation, config.name_or_path = "eager", "elsewhere"
        config.output_hidden_states, config.return_dict = True, False
        config.hf_smoothing = {"noise": {"sigmas": [0.5]}, "objective": {"name": "mixture"}}
        config.of_a_later_version = None
    return model


OF_RUNS: dict[str, Any] = {
    "sigma": 0.5, "num_samples": 7, "n0": 50, "n": 5000, "alpha": 0.01, "noise": [0.25], "noise_owner": "processor",
}  # fmt: skip


@pytest.mark.parametrize("name", OF_RUNS)
def test_defaults_of_runs_and_trainings_are_no_part_of_the_network(name, tmp_path):
    model = smoothed()
    other = smoothed(**{name: OF_RUNS[name]})
    assert getattr(other.config, name) != getattr(model.config, name)
    dataset = random_dataset(1, (3, *model.config.size))
    run = certify_dataset(model, dataset, tmp_path, **RUN)
    certify_dataset(other, dataset, tmp_path, **RUN)
    check_network_of_run(other, run)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_what_transformers_writes_at_run_time_is_no_part_of_the_network(kind, tmp_path):
    model = smoothed(kind)
    dataset = random_dataset(1, (3, *model.config.size))
    run = certify_dataset(model, dataset, tmp_path, **RUN)
    identity = classifier_identity(model)
    assert classifier_identity(written_by_transformers(model))["config"] == identity["config"]
    model.config.base_config.return_dict = True
    certify_dataset(model, dataset, tmp_path, **RUN)
    check_network_of_run(model, run)


DECIDING: dict[str, dict[str, Any]] = {
    "size": {"size": 8, "model_size": 16}, "model_size": {"model_size": 8}, "image_mean": {"image_mean": [0.1, 0.5, 0.6]},
    "image_std": {"image_std": [0.2, 0.25, 0.5]}, "base_config.hidden_act": {"base": {"hidden_act": "gelu"}},
}  # fmt: skip


@pytest.mark.parametrize("name", DECIDING)
def test_what_decides_an_answer_is_named_where_it_differs(name, tmp_path):
    model, other = smoothed(), smoothed(**DECIDING[name])
    dataset = random_dataset(1, (3, *model.config.size))
    run = certify_dataset(model, dataset, tmp_path, **RUN)
    with pytest.raises(RunError, match=rf"another network: .*\bconfig\.{name}\b.* differ"):
        check_network_of_run(other, run)
    if name != "size":
        with pytest.raises(RunError, match=rf"\(model\.config\.{name}\) was "):
            certify_dataset(other, dataset, tmp_path, **RUN)


def test_the_level_that_a_denoiser_takes_out_decides():
    def denoised(sigma):
        return Configured(
            model_type="smoothed_classifier",
            sigma=sigma,
            base_config={"model_type": "denoised_classifier", "sigma": sigma},
        )

    first, second = (classifier_identity(denoised(sigma))["config"] for sigma in (0.25, 0.5))
    assert "sigma" not in first and first["base_config"]["sigma"] != second["base_config"]["sigma"]
    members = [Configured(members=[{"base_config": {"problem_type": kind, "depths": [1]}}]) for kind in ("a", "b")]
    assert len({json.dumps(classifier_identity(one)["config"]) for one in members}) == 1


def test_older_records_have_one_hash_for_all_settings(tmp_path):
    model = smoothed()
    dataset = random_dataset(1, (3, *model.config.size))
    certify_dataset(model, dataset, tmp_path, **RUN)
    settings = json.loads((tmp_path / "run.json").read_text())
    del settings["model"]["config"]
    (tmp_path / "run.json").write_text(json.dumps(settings))
    check_network_of_run(model, read_run(tmp_path))
    certify_dataset(model, dataset, tmp_path, **RUN)
    with pytest.raises(RunError, match="with these: model.config_sha256 was"):
        certify_dataset(smoothed(image_mean=[0.1, 0.5, 0.6]), dataset, tmp_path, **RUN)


def test_the_shipped_classifier_is_that_of_its_committed_runs():
    folder = ROOT / "model_cards" / "resnet-mixture-cifar10"
    model = SmoothedClassifier.from_pretrained(folder)
    for records in (folder / "records").glob("sigma-*"):
        check_network_of_run(model, read_run(records))


def test_half_precision_weights_are_recorded(tmp_path):
    certify_dataset(
        lambda pixels: pixels.flatten(1)[:, :3], random_dataset(1), tmp_path / "callable", **RUN
    )  # has no weights
    model = json.loads((tmp_path / "callable" / "run.json").read_text())["model"]
    assert model["weights_sha256"] is None and len(model["probe_logits"]) == 3
    assert classifier_identity(Configured().to(torch.bfloat16))["weights_dtype"] == "bfloat16"


def test_ranks_with_different_networks_are_refused():
    def check(network, noise, known):
        agreement.check_same(resolve_classifier(network.eval()), noise, known, Execution())

    stream = GaussianStream(0, (1, 4, 4), sigma=0.5)
    answer = answer_to_probe(resolve_classifier(Configured().eval()), stream.shape)
    rank_0 = {"model": classifier_identity(Configured()) | {"probe_logits": answer.logits}, **noise_facts(stream)}
    check(Configured(), stream, rank_0)
    other = Configured()
    with torch.no_grad():
        other.layers[1].bias += 1e-6
    with pytest.raises(ValueError, match="not that of rank 0: weights_sha256 differ"):
        check(other, stream, rank_0)
    hooked = Configured()
    hooked.layers.register_forward_pre_hook(lambda module, args: (2 * args[0],))
    with pytest.raises(ValueError, match="not that of rank 0: probe_logits differ"):
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
        ({"note": np.int64(1)}, r"`description` must hold JSON values only .*'note' holds np.int64\(1\).*\.item\(\)"),
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
