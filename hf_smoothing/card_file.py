"""A model card as a file: what nobody changes of its metadata stays as it was written, and a card is replaced whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from hf_smoothing.records import replace_file


class CardFile:
    """The card in a file, or an empty one where there is none.

    Values of the metadata are nodes of YAML, which keep how they were written: reading `no` or `1.10` as the values of YAML 1.1 and writing them again
    gives `false` and `1.1`.

    Args:
        page: Path of README.md.

    Attributes:
        page: The path.
        text: What follows the metadata, its lines ended by a line feed.
        metadata: What stands between the two lines `---`, as it is written.

    Raises:
        ValueError: If the file is no UTF-8, or has metadata that the Hub could not read.
    """

    def __init__(self, page: Path) -> None:
        self.page = page
        content = _read(page) if page.exists() else ""
        self._ending = "\r\n" if "\r\n" in content else "\n"
        self.text, self.metadata = content.replace("\r\n", "\n"), ""
        if (block := REGEX_YAML_BLOCK.search(self.text)) is not None:
            self.text, self.metadata = self.text[block.end() :], block[2]
            try:
                ModelCard(content)
            except (yaml.YAMLError, ValueError, TypeError) as error:
                said = " ".join(str(error).split())
                raise ValueError(
                    f"{page} must begin with metadata that the Hub can read, got: {said}. Correct the lines between the first two `---`."
                ) from error

    def get(self, key: str) -> yaml.Node | None:
        """The value of a key, None where there is none or nothing."""
        return entry_of(node_of(self.metadata), key)

    def word(self, key: str) -> str | None:
        """The value of a key if it is one word, as it is written."""
        node = self.get(key)
        return node.value if isinstance(node, yaml.ScalarNode) else None

    def put(self, key: str, value: yaml.Node) -> None:
        """Give a key another value, in its place or at the end; all other lines stay as they are."""
        if (before := self.get(key)) is not None and text_of(before) == text_of(value):
            return
        whole = node_of(self.metadata)
        pairs = whole.value if isinstance(whole, yaml.MappingNode) else []
        new = text_of(yaml.MappingNode(_MAP, [(node_of_value(key), value)]))
        if not pairs:
            self.metadata = new
            return
        lines, places = self.metadata.split("\n"), [name.start_mark.line for name, _ in pairs]
        names = [name.value for name, _ in pairs]
        first = last = len(lines)
        if key in names:
            number = len(names) - 1 - names[::-1].index(key)
            first, last = places[number], [*places, len(lines)][number + 1]
            while not lines[last - 1].strip() or lines[last - 1].startswith("#"):
                last -= 1  # what is said of the next key
        spliced = "\n".join([*lines[:first], new, *lines[last:]])
        if not _reads(spliced, len({*names, key})):  # all in one line, or a value elsewhere is that of the key
            assert whole is not None
            put_entry(whole, key, value)
            spliced = text_of(whole)
        self.metadata = spliced

    def save(self) -> None:
        """Write the file; errors as `replace_file`."""
        content = f"---\n{self.metadata}\n---\n{self.text}" if self.metadata else self.text
        replace_file(self.page, content.replace("\n", self._ending))


_MAP = "tag:yaml.org,2002:map"


def _read(page: Path) -> str:
    try:
        return page.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{page} must be text in UTF-8, got byte {error.object[error.start]:#04x} at place {error.start}. Save it in this encoding."
        ) from error


def _reads(metadata: str, keys: int) -> bool:
    """Whether metadata is still a mapping of so many keys after a change of some lines."""
    try:
        found = node_of(metadata)
    except yaml.YAMLError:
        return False
    return isinstance(found, yaml.MappingNode) and len({name.value for name, _ in found.value}) == keys


def node_of(text: str) -> yaml.Node | None:
    """The node that a text says; None of an empty one."""
    found: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    return found


def node_of_value(value: Any) -> yaml.Node:
    """The node of a value of JSON."""
    found = node_of(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))
    assert found is not None
    return found


def text_of(node: yaml.Node) -> str:
    """What a node says, without the line feed at its end; each word is written as it was read."""
    text: str = yaml.serialize(node, Dumper=yaml.SafeDumper, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def entry_of(node: yaml.Node | None, key: str) -> yaml.Node | None:
    """The value of a key of a mapping, None where there is none or nothing."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    found = next((value for name, value in reversed(pairs) if name.value == key), None)
    return None if found is None or found.tag == "tag:yaml.org,2002:null" else found


def word_of(node: yaml.Node | None, key: str) -> str | None:
    """The value of a key of a mapping if it is one word, as it is written."""
    found = entry_of(node, key)
    return found.value if isinstance(found, yaml.ScalarNode) else None


def put_entry(node: yaml.Node, key: str, value: yaml.Node) -> None:
    """Give a key of a mapping another value, in its place or at the end."""
    names = [name.value for name, _ in node.value]
    place = names.index(key) if key in names else len(names)
    node.value[place : place + 1] = [(node_of_value(key), value)]


def items_of(node: yaml.Node | None) -> list[yaml.Node]:
    """The items of a list; none of anything else."""
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def list_of(items: list[yaml.Node]) -> yaml.Node:
    """A list of these items, one per line."""
    return yaml.SequenceNode("tag:yaml.org,2002:seq", items, flow_style=not items)
