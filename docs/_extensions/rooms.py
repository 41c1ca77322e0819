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
            roots = {base.__module__.split(".")[0] for base in thing.__mro__}
            foreign = roots & {"torch", "transformers"}
            bases = "   :show-inheritance:\n" if foreign else ""
            blocks.append(f".. autoclass:: {package}.{name}\n   :members:\n{bases}")
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


def _contents() -> str:
    """The names of `hf_smoothing` itself, each with the page that explains it."""
    top = import_module("hf_smoothing")
    names = [name for name in sorted(top.__all__, key=str.casefold) if not name.startswith("__")]
    homes = {name: _home(name, getattr(top, name), top._CONTENTS[name]) for name in names}
    rows = [f"| `{name}` | [{home}]({home.removeprefix('hf_smoothing.')}.md) |" for name, home in homes.items()]
    return "\n".join(["| name | explained in |", "|---|---|", *rows])


def _read(app: Sphinx, name: str, source: list[str]) -> None:
    if name == f"{FOLDER}index":
        source[0] = source[0].replace("<!-- names -->", _contents())
    elif name.startswith(FOLDER):
        source[0] = _page(f"hf_smoothing.{name.removeprefix(FOLDER)}")


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True}
