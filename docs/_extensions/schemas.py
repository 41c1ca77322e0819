"""`{schema} run` and `{schema} run rule`: the keys of a JSON Schema, or of one of its objects, as a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx


FOLDER = Path(__file__).resolve().parents[1] / "reference"


class Schema(Directive):
    """What the schema says of the object, and a table of its keys."""

    required_arguments = 1
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The table."""
        name, *inside = self.arguments
        schema = json.loads((FOLDER / f"{name}.schema.json").read_text(encoding="utf-8"))
        for key in inside:
            schema = schema["properties"][key]
        rows = [(key, _kind(about), about["description"]) for key, about in schema["properties"].items()]
        return [nodes.paragraph("", "", *_words(schema["description"])), _table(rows)]


def _kind(schema: dict[str, Any]) -> str:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is not None:
        return " or ".join(json.dumps(value) for value in values)
    kind = schema["type"]
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _words(text: str) -> list[nodes.Node]:
    parts = text.split("`")
    return [nodes.literal(text=part) if k % 2 else nodes.Text(part) for k, part in enumerate(parts)]


def _table(rows: list[tuple[str, str, str]]) -> nodes.table:
    group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in (30, 70)), cols=2)
    group += nodes.thead("", _row([nodes.Text("key")], [nodes.Text("meaning")]))
    body = nodes.tbody()
    for key, kind, said in rows:
        body += _row([nodes.literal(text=key)], [nodes.emphasis(text=f"{kind}. "), *_words(said)])
    group += body
    return nodes.table("", group)


def _row(*cells: list[nodes.Node]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells))


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("schema", Schema)
    return {"parallel_read_safe": True}
