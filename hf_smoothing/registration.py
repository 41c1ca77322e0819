"""Importing the package is enough: Auto classes and pipelines of `transformers` know its models, whichever is imported first."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


# The names of transformers' own tables. It looks a name up in the module `transformers.models.<model type>` on first use, which for these is our
# package: so nothing is imported before a checkpoint asks for it, and torch and transformers not at all for `hf_smoothing.statistics`.
CONFIGURATIONS = {
    "smoothed_classifier": "SmoothedClassifierConfig",
    "cnn_seven": "CnnSevenConfig",
    "classifier_ensemble": "EnsembleConfig",
    "denoised_classifier": "DenoisedClassifierConfig",
}
IMAGE_PROCESSORS = {
    "smoothed_classifier": {"pil": "NoisyImageProcessorPil", "torchvision": "NoisyImageProcessor"},
}


def _name_configurations(module: Any) -> None:
    for model_type, name in CONFIGURATIONS.items():
        module.CONFIG_MAPPING_NAMES.setdefault(model_type, name)
        sys.modules.setdefault(f"transformers.models.{model_type}", sys.modules["hf_smoothing"])


def _name_image_processors(module: Any) -> None:
    for model_type, names in IMAGE_PROCESSORS.items():
        module.IMAGE_PROCESSOR_MAPPING_NAMES.setdefault(model_type, names)


def _add_task(module: Any) -> None:
    # A task has a class and no name to look up later. Who imports pipelines has paid for nearly everything that this imports.
    import_module("hf_smoothing.models")


_AFTER_IMPORT: dict[str, Callable[[Any], None]] = {
    "transformers.models.auto.configuration_auto": _name_configurations,
    "transformers.models.auto.image_processing_auto": _name_image_processors,
    "transformers.pipelines": _add_task,
}


class _Watcher(MetaPathFinder):
    """Acts once a module of `_AFTER_IMPORT` has been imported; finds nothing itself."""

    def __init__(self, names: set[str]) -> None:
        self.names = names

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec that the other finders give, whose loader acts afterwards."""
        if name not in self.names:
            return None
        self.names.discard(name)  # so that the question below is for the others
        try:
            spec = find_spec(name)
        finally:
            self.names.add(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_act(module: ModuleType) -> None:
            execute(module)
            self.names.discard(name)
            if not self.names:
                sys.meta_path.remove(self)
            _AFTER_IMPORT[name](module)

        spec.loader.exec_module = execute_and_act  # type: ignore[method-assign]  # of this loader alone
        return spec


def register() -> None:
    """Tell the modules of `transformers` that are imported already, and each of the others as soon as it is."""
    later = set()
    for name, act in _AFTER_IMPORT.items():
        if name in sys.modules:
            act(sys.modules[name])
        else:
            later.add(name)
    if later:
        sys.meta_path.insert(0, _Watcher(later))
