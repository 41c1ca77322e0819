"""`{command-line}`: the options of every verb of `hf-smoothing`, from its parser."""

from __future__ import annotations

import argparse
import re

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

from hf_smoothing.cli import build_parser, verbs_of


FLAG = re.compile(r"(--[a-z][\w-]*)")


class CommandLine(Directive):
    """A section for each verb: usage, and a list of its options."""

    def run(self) -> list[nodes.Node]:
        """The sections."""
        return [_verb(name, parser) for name, parser in verbs_of(build_parser()).items()]


def _verb(name: str, parser: argparse.ArgumentParser) -> nodes.section:
    section = nodes.section(ids=[f"hf-smoothing-{name}"], names=[name])
    section += nodes.title(text=f"hf-smoothing {name}")
    if parser.description:
        section += nodes.paragraph(text=parser.description)
    usage = parser.format_usage().removeprefix("usage: ")
    section += nodes.literal_block(usage, usage, language="text")
    options = nodes.definition_list()
    for action in parser._actions:
        if action.help == argparse.SUPPRESS:
            continue
        words = ", ".join(action.option_strings) or action.dest
        if action.choices:
            words += f" {{{','.join(map(str, action.choices))}}}"
        said = (action.help or "") % {"default": action.default, "prog": parser.prog}
        options += nodes.definition_list_item(
            "",
            nodes.term("", "", nodes.literal(text=words)),
            nodes.definition("", nodes.paragraph("", "", *_words(said))),
        )
    section += options
    return section


def _words(text: str) -> list[nodes.Node]:
    """Text with its flags as code: two hyphens would become a dash."""
    parts = FLAG.split(text)
    return [nodes.literal(text=part) if number % 2 else nodes.Text(part) for number, part in enumerate(parts)]


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True}
