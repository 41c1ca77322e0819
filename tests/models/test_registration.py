import subprocess
import sys
import textwrap

import pytest
from tiny import plain, smoothed
from transformers import AutoConfig, AutoModelForImageClassification, ResNetForImageClassification

import hf_smoothing


def test_register_can_be_called_again():
    hf_smoothing.register()
    hf_smoothing.register()


def test_plain_models_are_not_touched(tmp_path):
    plain().save_pretrained(tmp_path)
    assert type(AutoModelForImageClassification.from_pretrained(tmp_path)) is ResNetForImageClassification


def test_a_model_is_made_from_its_configuration():
    config = smoothed("vit").config
    assert type(AutoModelForImageClassification.from_config(config)) is hf_smoothing.SmoothedClassifier


def test_one_access_makes_a_fresh_process_know_the_models(tmp_path):
    smoothed().save_pretrained(tmp_path)
    script = f"""
        import hf_smoothing
        hf_smoothing.SmoothedClassifier
        from transformers import AutoConfig
        config = AutoConfig.from_pretrained({str(tmp_path)!r})
        print(type(config).__name__, config.base_config.model_type)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["SmoothedClassifierConfig", "resnet"]


def test_the_configuration_is_known_by_its_type():
    values = smoothed().config.to_dict()
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    assert isinstance(config, hf_smoothing.SmoothedClassifierConfig)


@pytest.mark.parametrize("name", sorted(set(hf_smoothing.__all__) - {"__version__"}))
def test_every_public_name_is_there(name):
    assert getattr(hf_smoothing, name) is not None
    assert name in dir(hf_smoothing)


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="no attribute 'Smoothie'"):
        hf_smoothing.Smoothie  # noqa: B018
