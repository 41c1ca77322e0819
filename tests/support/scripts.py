"""The scripts of `.ci`, which is no package."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from tests.support.processes import ROOT


def script(name: str) -> ModuleType:
    """A script of `.ci` as a module.

    Args:
        name: Of the file, without its ending.
    """
    spec = importlib.util.spec_from_file_location(f"ci_{name}", ROOT / ".ci" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
