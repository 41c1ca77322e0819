"""A run belongs to one network: its weights, their dtype and its configuration."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from hf_smoothing.certification import Draws, Execution, agreement, certify_dataset, count_votes, predict
from hf_smoothing.certification.behaviour import answer_to_probe
from hf_smoothing.certification.classifiers import resolve_classifier
from hf_smoothing.certification.identity import classifier_identity
from hf_smoothing.certification.noise_kinds import noise_facts
from hf_smoothing.noise import GaussianStream, GridStream
from hf_smoothing.records import RunError
from tests.support.classifiers import RUN, random_dataset, results


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
    with pytest.raises(RunError, match=r"model\.config_sha256"):
        certify_dataset(Configured(image_mean=[0.4]).eval(), dataset, tmp_path, **RUN)


def test_what_changes_from_loading_to_loading_does_not_count():
    first = Configured(size=32, base_config={"_name_or_path": "a", "transformers_version": "5.18.0", "depths": [1]})
    second = Configured(size=32, base_config={"_name_or_path": "b", "transformers_version": "5.23.0", "depths": [1]})
    assert classifier_identity(first) == classifier_identity(second)


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
