"""Docstrings are plain text with `code`: what reStructuredText would read as markup of another kind is escaped."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

from sphinx.application import Sphinx


CODE = re.compile(r"(``[^`]+``|`[^`]+`)")


def _plain(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    for number, line in enumerate(lines):
        if line.lstrip().startswith(">>>"):
            continue
        parts = CODE.split(line)
        parts[::2] = [re.sub(r"([*|])", r"\\\1", part) for part in parts[::2]]
        parts[1::2] = ["``" + part.strip("`") + "``" for part in parts[1::2]]
        # What follows code at once, as in `Draws`s, needs a separator that is not shown.
        parts[2::2] = [re.sub(r"^(?=\w)", r"\\ ", part) for part in parts[2::2]]
        lines[number] = "".join(parts)


def _arguments(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """What a record of values says of its attributes is said of its arguments, which have the same names: else both would be listed."""
    if inspect.isclass(thing) and (dataclasses.is_dataclass(thing) or hasattr(thing, "_fields")):
        lines[:] = ["Args:" if line == "Attributes:" else line for line in lines]


def _bases(app: Sphinx, name: str, thing: type, options: Any, bases: list[type]) -> None:
    """Bases of other projects in place of our own that are no public names."""
    others = [base for base in thing.__mro__[1:] if not base.__module__.startswith(("hf_smoothing", "builtins"))]
    bases[:] = others[:1]


def _helped(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """The fields of a dataclass that carry their help for the command line: the class's own, with default."""
    if not (inspect.isclass(thing) and dataclasses.is_dataclass(thing)):
        return
    own = [field for field in dataclasses.fields(thing) if field.name in vars(thing).get("__annotations__", {})]
    if own and all("help" in field.metadata for field in own):
        lines += ["", "Args:"]
        lines += [f"    {field.name}: {_sentence(field)}" for field in own]
        if (parent := thing.__mro__[1]) is not object:
            lines += ["", f"All arguments of `{parent.__name__}` are taken as well."]
        lines.append("")


def _sentence(field: dataclasses.Field[Any]) -> str:
    said = field.metadata["help"].replace(" (%(default)s)", "").rstrip(".")
    said = said[:1].upper() + said[1:] + "."
    return said if field.default in (None, dataclasses.MISSING) else f"{said} By default `{field.default!r}`."


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _arguments, priority=80)
    app.connect("autodoc-process-docstring", _helped, priority=90)
    app.connect("autodoc-process-bases", _bases)
    app.connect("autodoc-process-docstring", _plain, priority=100)  # before napoleon
    return {"parallel_read_safe": True}
