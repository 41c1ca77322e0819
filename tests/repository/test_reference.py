"""The reference is complete: a page for every room with public names, every name on a page, every argument with it."""

from __future__ import annotations

import dataclasses
import inspect
import pkgutil
import sys
import zlib
from importlib import import_module
from pathlib import Path

import pytest

import hf_smoothing


pytest.importorskip("sphinx")
DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(path.stem for path in (DOCS / "reference" / "api").glob("*.md") if path.stem != "index")
INTERNAL = {"cli", "interval.rules"}
"""Rooms whose names are not for programs: the command line has a page of its own, the rules are entered into a registry."""


@pytest.fixture(scope="module", autouse=True)
def _extensions():
    sys.path.insert(0, str(DOCS))
    yield
    sys.path.remove(str(DOCS))


def public_rooms() -> set[str]:
    found = {
        name.name.removeprefix("hf_smoothing.")
        for name in pkgutil.walk_packages(hf_smoothing.__path__, "hf_smoothing.")
    }
    with_names = {name for name in found if "__all__" in source(name)}
    return {name for name in with_names if name.split(".")[0] not in INTERNAL and name not in INTERNAL}


def source(room: str) -> str:
    path = Path(hf_smoothing.__file__).parent / room.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return file.read_text(encoding="utf-8")


def test_every_room_has_a_page():
    assert public_rooms() == set(PAGES)


@pytest.mark.parametrize("room", PAGES)
def test_every_name_is_on_the_page_of_its_room(room):
    from _extensions.rooms import _page

    text = _page(f"hf_smoothing.{room}")
    names = import_module(f"hf_smoothing.{room}").__all__
    assert names
    assert not [name for name in names if f":: hf_smoothing.{room}.{name}\n" not in text and f"`{name}`" not in text]


def test_every_name_of_the_package_leads_to_a_page():
    from _extensions.rooms import _contents

    rows = [line.split("|") for line in _contents().splitlines()[2:]]
    assert {row[1].strip(" `") for row in rows} == {name for name in hf_smoothing.__all__ if not name.startswith("__")}
    homes = {row[2].strip().removesuffix(".md)").rpartition("(")[2] for row in rows}
    assert homes <= set(PAGES)


def test_options_of_a_training_are_explained():
    from _extensions.docstrings import _helped

    from hf_smoothing import RobustTrainingArguments
    from hf_smoothing.data import DataChoice

    for kind in (RobustTrainingArguments, DataChoice):
        lines: list[str] = []
        _helped(None, "class", kind.__name__, kind, None, lines)  # type: ignore[arg-type]
        own = [field.name for field in dataclasses.fields(kind) if field.name in vars(kind)["__annotations__"]]
        said = [line.split(":")[0].strip() for line in lines if line.startswith("    ")]
        assert own and said == own


def test_signatures_show_the_options():
    for name in ("certify", "predict", "certify_dataset"):
        signature = inspect.signature(getattr(hf_smoothing, name))
        assert not [p for p in signature.parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD]
        assert {"alpha", "n", "dtype"} <= signature.parameters.keys()


def test_names_of_other_projects_need_no_network(tmp_path):
    from _extensions.inventories import inventory, mapping

    (tmp_path / "inventories.json").write_text(
        (DOCS / "inventories.json").read_text(encoding="utf-8"), encoding="utf-8"
    )
    found = mapping(tmp_path)
    assert {"torch", "transformers", "datasets"} <= found.keys()
    for address, file in found.values():
        assert address.startswith("https://") and Path(file).is_file()
    head, entries = inventory("torch", {"torch.Tensor": "tensors.html#torch.Tensor"}).split(b"zlib.\n", 1)
    assert head.startswith(b"# Sphinx inventory version 2\n")
    assert zlib.decompress(entries) == b"torch.Tensor py:class 1 tensors.html#torch.Tensor -\n"
