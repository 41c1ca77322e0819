"""What is to be wrapped or loaded is no configuration, and the constructors say so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from examples.pretrain import Pretraining, first_network
from hf_smoothing import SmoothedClassifier, SmoothedClassifierConfig, denoised_classifier, smoothed_ensemble
from hf_smoothing.models.checkpoints import load_base_classifier
from hf_smoothing.models.cnn_seven import CnnSevenForImageClassification
from hf_smoothing.models.denoised import DenoisedClassifierForImageClassification
from hf_smoothing.models.ensemble import EnsembleForImageClassification
from tests.support.tiny import plain, resnet_config, smoothed


OTHERS = {
    "path": lambda: "my/network",
    "Path": lambda: Path("my/network"),
    "module": lambda: torch.nn.Linear(3, 4),
    "network": plain,
    "configuration": resnet_config,
    "wrapped": smoothed,
    "settings": lambda: {"sigma": 0.25},
    "nothing": lambda: None,
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_a_smoothed_classifier_is_built_of_its_configuration_alone(make):
    said = "from_base_pretrained.* sigma=.*SmoothedClassifier.from_pretrained"
    with pytest.raises(TypeError, match=rf"built of its SmoothedClassifierConfig, got .*{said}"):
        SmoothedClassifier(make())


@pytest.mark.parametrize("name", ["module", "network", "configuration", "wrapped", "nothing"])
def test_only_a_path_is_loaded(name):
    with pytest.raises(TypeError, match="Only a folder or Hub id is loaded, got .*from_base_pretrained"):
        SmoothedClassifier.from_pretrained(OTHERS[name]())


def test_the_message_names_certify_for_a_module_and_not_for_a_network():
    for build in (SmoothedClassifier, SmoothedClassifier.from_pretrained):
        with pytest.raises(TypeError, match=r"got Linear.*hf_smoothing\.certify\(module"):
            build(torch.nn.Linear(3, 4))
        with pytest.raises(TypeError, match="got ResNetForImageClassification") as refused:
            build(plain())
        assert "certify(module" not in str(refused.value)
    with pytest.raises(
        TypeError, match=r"`base_network` must be a model of transformers, got Linear.*certify\(module"
    ):
        SmoothedClassifier(smoothed().config, torch.nn.Linear(3, 4))


def test_an_empty_configuration_is_refused_with_what_it_lacks():
    with pytest.raises(ValueError, match="needs `base_config`"):
        SmoothedClassifier(SmoothedClassifierConfig())


@pytest.mark.parametrize(
    ("build", "cure"),
    [
        (EnsembleForImageClassification, "smoothed_ensemble"),
        (DenoisedClassifierForImageClassification, "denoised_classifier"),
        (CnnSevenForImageClassification, "CnnSevenForImageClassification.from_pretrained"),
    ],
)
@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_so_are_the_networks_of_this_package(make, build, cure):
    with pytest.raises(TypeError, match=rf"{build.__name__} is built of its \w+Config, got .*{cure}"):
        build(make())


@pytest.mark.parametrize("name", ["module", "configuration"])
def test_what_is_no_classifier_is_neither_a_member_nor_denoised(name):
    with pytest.raises(TypeError, match="must be a list of classifiers"):
        smoothed_ensemble(OTHERS[name](), sigma=0.25)
    with pytest.raises(TypeError, match="must be a folder, a Hub id or a model"):
        denoised_classifier(OTHERS[name](), sigma=0.25)


def test_a_smoothed_classifier_is_not_wrapped_again(tmp_path):
    model = smoothed()
    model.save_pretrained(tmp_path)
    given = {"id2label": dict(enumerate("abcd")), "ignore_mismatched_sizes": True}
    names = dict(enumerate("abcd"))
    for call in (
        lambda: SmoothedClassifier.from_base_pretrained(tmp_path, sigma=0.25, **given),
        lambda: SmoothedClassifier.from_base_pretrained(model, sigma=0.25),
        lambda: load_base_classifier(tmp_path, **given),
        lambda: first_network(Pretraining(weights=str(tmp_path)), names),
        lambda: first_network(Pretraining(network=str(tmp_path)), names),
    ):
        with pytest.raises(
            ValueError, match="A plain image classifier is wanted, .* Load it with SmoothedClassifier.from_pretr"
        ):
            call()
