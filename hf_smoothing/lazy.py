"""Names of a package that are imported on first use, since torch and transformers take seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def on_first_use(package: str, contents: Mapping[str, str]) -> Callable[[str], Any]:
    """What a package takes as its `__getattr__`.

    Args:
        package: Its `__name__`.
        contents: Name -> the module of the package that it lives in.
    """

    def find(name: str) -> Any:
        if name not in contents:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{contents[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return find
