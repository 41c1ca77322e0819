"""Importing the package is enough for transformers to know its types, and imports nothing before it is asked for."""

import sys

import pytest
from transformers import AutoConfig, AutoModelForImageClassification, ResNetForImageClassification

import hf_smoothing
from hf_smoothing import models, registration
from tests.support.forks import fork_python
from tests.support.processes import printed
from tests.support.tiny import plain, smoothed


def test_plain_models_are_not_touched(tmp_path):
    plain().save_pretrained(tmp_path)
    assert type(AutoModelForImageClassification.from_pretrained(tmp_path)) is ResNetForImageClassification


def test_a_model_is_made_from_its_configuration():
    config = smoothed("vit").config
    assert type(AutoModelForImageClassification.from_config(config)) is hf_smoothing.SmoothedClassifier


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("smoothed")
    smoothed().save_pretrained(path)
    return path


USES = {
    "configuration": ("from transformers import AutoConfig as used", "used.from_pretrained(FOLDER)"),
    "model": (
        "from transformers import AutoModelForImageClassification as used",
        "used.from_pretrained(FOLDER, local_files_only=True)",
    ),
    "processor": (
        "from transformers.models.auto.image_processing_auto import AutoImageProcessor as used",
        "used.from_pretrained(FOLDER)",
    ),
    "plain pipeline": (
        "from transformers import pipeline as used",
        "used('image-classification', model=FOLDER).model",
    ),
    "our task": (
        "from transformers import pipeline as used",
        "used('certified-image-classification', model=FOLDER).model",
    ),
    "list of tasks": (
        "from transformers.pipelines import PIPELINE_REGISTRY as used",
        "used.supported_tasks['certified-image-classification']['impl']",
    ),
}


@pytest.mark.parametrize("first", ["hf_smoothing", "transformers"])
@pytest.mark.parametrize("use", USES)
def test_importing_both_is_enough_in_either_order(use, first, folder):
    imports, expression = USES[use]
    lines = [imports, "import hf_smoothing"][:: 1 if first == "transformers" else -1]
    script = "\n".join([*lines, f"print({expression.replace('FOLDER', repr(str(folder)))})"])
    said = printed(fork_python("-c", script))
    assert any(word in said for word in ("smoothed_classifier", "SmoothedClassifier", "hf_smoothing", "Noisy"))


@pytest.mark.parametrize("room", ["statistics", "records", "certification", "data"])
def test_any_room_is_enough_and_nothing_is_imported_before_it_is_asked_for(room, folder):
    script = f"""
import sys
import hf_smoothing.{room}
from transformers import AutoConfig
print('hf_smoothing.models' in sys.modules, AutoConfig.from_pretrained({str(folder)!r}).model_type)
print('hf_smoothing.models' in sys.modules)
"""
    assert printed(fork_python("-c", script)).split() == ["False", "smoothed_classifier", "True"]


def test_the_tables_name_every_model_and_processor():
    configs = [getattr(hf_smoothing, name) for name in hf_smoothing.__all__ if name.endswith("Config")]
    assert {config.model_type: config.__name__ for config in configs} == registration.CONFIGURATIONS
    for names in registration.IMAGE_PROCESSORS.values():
        for name in names.values():
            assert name in models.__all__


def test_the_package_waits_for_modules_once(folder):
    script = """
import sys
import hf_smoothing
waiting = [finder for finder in sys.meta_path if "registration" in type(finder).__module__]
import transformers.pipelines
left = [finder for finder in sys.meta_path if "registration" in type(finder).__module__]
print(len(waiting), len(left))
"""
    assert printed(fork_python("-c", script)).split() == ["1", "0"]


def test_a_module_that_cannot_be_imported_is_waited_for_again(tmp_path, monkeypatch):
    (tmp_path / "late.py").write_text("import os\nif os.environ.get('BROKEN'): raise ImportError('not now')\n")
    monkeypatch.syspath_prepend(tmp_path)
    seen = []
    monkeypatch.setitem(registration._AFTER_IMPORT, "late", seen.append)
    watcher = registration._Watcher({"late"})
    monkeypatch.setattr(sys, "meta_path", [watcher, *sys.meta_path])
    monkeypatch.setenv("BROKEN", "1")
    with pytest.raises(ImportError, match="not now"):
        __import__("late")
    monkeypatch.delenv("BROKEN")
    late = __import__("late")
    assert seen == [late] and watcher not in sys.meta_path
    monkeypatch.delitem(sys.modules, "late")


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
