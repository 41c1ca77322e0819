"""The reference of a package: every public name, whether it is imported on first use or not."""

from __future__ import annotations

import inspect
from importlib import import_module

from sphinx.application import Sphinx


FOLDER = "reference/api/"


def _page(package: str) -> str:
    module = import_module(package)
    names = {name: getattr(module, name) for name in sorted(module.__all__, key=str.casefold)}
    elsewhere = {name: _home(name, thing, package) for name, thing in names.items()}
    also = "".join(f"Also here: `{name}`, of `{home}`.\n" for name, home in elsewhere.items() if home != package)
    blocks = [f"# `{package}`", inspect.getdoc(module) or "", also, "```{eval-rst}"]
    for name, thing in names.items():
        if elsewhere[name] != package:
            continue
        if inspect.isclass(thing):
            blocks.append(f".. autoclass:: {package}.{name}\n   :members:\n")
        elif inspect.isroutine(thing):
            blocks.append(f".. autofunction:: {package}.{name}\n")
        else:
            blocks.append(f".. py:data:: {package}.{name}\n   :no-index-entry:\n")
    return "\n\n".join([*blocks, "```", ""])


def _home(name: str, thing: object, package: str) -> str:
    """The package that a name is documented in: the one it is defined in, if that has it among its public names."""
    home = ".".join(getattr(thing, "__module__", package).split(".")[:2])
    defined_in = import_module(home) if home.startswith("hf_smoothing.") else None
    return home if name in getattr(defined_in, "__all__", ()) else package


def _read(app: Sphinx, name: str, source: list[str]) -> None:
    if name.startswith(FOLDER) and name != f"{FOLDER}index":
        source[0] = _page(f"hf_smoothing.{name.removeprefix(FOLDER)}")


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True}
