"""What a type checker sees of the package: its public names, and the types of what a user hands over."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest
from mypy import api

import hf_smoothing


ROOT = Path(hf_smoothing.__file__).parent

RIGHT = '''
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from hf_smoothing import Certificate, PixelDataset, PixelStream, SmoothedClassifier, certify, certify_dataset, predict
from hf_smoothing.attacks import pgd
from hf_smoothing.interval import certify_dataset_linf
from hf_smoothing.training import CertifiedAccuracyCallback, RobustTrainer


class Table:
    """As `datasets.Dataset` declares itself."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, key):  # type: ignore[no-untyped-def]
        return {"pixel_values": torch.zeros(3, 4, 4)}


class Stream:
    def __iter__(self) -> Iterator[dict[str, Tensor | int]]:
        return iter([{"pixel_values": torch.zeros(3, 4, 4), "labels": 1}])


class Wrapped:
    def classify(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def function(x: Tensor) -> Tensor:
    return x.flatten(1)


def all_of_it(model: SmoothedClassifier, pixels: PixelDataset, stream: PixelStream, rows: list[dict[str, Any]], trainer: RobustTrainer) -> None:
    images = torch.zeros(2, 3, 4, 4)
    found: list[Certificate] = certify(nn.Flatten(), images, sigma=0.25, spending=True)
    certify(lambda x: x.flatten(1), images, sigma=1, n=500, mode="fixed")
    certify(function, images, sigma=0.25)
    certify(Wrapped(), images, sigma=0.25)
    certify(model, images, sigma=0.25)
    certify(model.classify, images, sigma=0.25)
    predict(model, images, sigma=0.25, noise_kind="grid")
    pgd(model, images, torch.zeros(2).long(), epsilon=0.1)
    certify_dataset(model, rows, "run", sigma=0.25)
    certify_dataset(model, [{"pixel_values": torch.zeros(3, 4, 4), "labels": 1}], "run", sigma=0.25)
    items = [{"pixel_values": torch.zeros(3, 4, 4), "labels": 1} for _ in range(2)]
    certify_dataset(model, items, "run", sigma=0.25)
    certify_dataset(model, Table(), "run", sigma=0.25)
    certify_dataset(model, Stream(), "run", sigma=0.25)
    certify_dataset(model, pixels, "run", sigma=0.25)
    certify_dataset(model, stream, "run", sigma=0.25)
    certify_dataset_linf(nn.Flatten(), pixels, "run", largest=0.1)
    PixelDataset(rows, 32), PixelDataset(Table(), model), PixelStream(Stream(), (32, 32))
    CertifiedAccuracyCallback(trainer, pixels)
'''

WRONG = {
    "certify(model, images, sigma=0.25, spendng=True)": r'Unexpected keyword argument "spendng" for "certify"; did you mean "spending"',
    "certify(model, images, sigma='0.25')": 'Argument "sigma" to "certify" has incompatible type "str"',
    "certify(model, images, sigma=0.25, n0='100')": 'Argument "n0" to "certify" has incompatible type "str"',
    "certify(model, images, sigma=0.25, mode='sequential')": 'Argument "mode" to "certify" has incompatible type',
    "certify(5, images, sigma=0.25)": 'Argument 1 to "certify" has incompatible type "int"',
    "certify_dataset(model, images_and_labels, 'run', sigma=0.25)": 'Argument 2 to "certify_dataset" has incompatible type "list',
    "certify_dataset(model, 'cifar10', 'run', sigma=0.25)": 'Argument 2 to "certify_dataset" has incompatible type "str"',
    "PixelDataset(stream, 32)": 'Argument 1 to "PixelDataset" has incompatible type "PixelStream"',
}
"""A user's line -> what the type checker says."""

BEFORE = """
import torch
from hf_smoothing import PixelDataset, PixelStream, certify, certify_dataset
model, images = torch.nn.Flatten(), torch.zeros(2, 3, 4, 4)
images_and_labels = [(images[0], 1)]
def stated(stream: PixelStream) -> None:
"""


def checked(*files: Path) -> str:
    """What mypy says, strict as this repository is to itself."""
    config = ROOT.parent / "pyproject.toml"
    cache = (
        f"--cache-dir={ROOT.parent / '.mypy_cache'}"  # of the repository's own check, so that this takes a few seconds
    )
    said, trouble, _ = api.run(["--config-file", str(config), cache, "--no-error-summary", *map(str, files)])
    assert not trouble
    return said


def test_a_users_code_is_checked_strictly(tmp_path):
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(RIGHT, encoding="utf-8")
    wrong.write_text(BEFORE + "".join(f"    {line}\n" for line in WRONG), encoding="utf-8")
    said = checked(right, wrong)
    assert "right.py" not in said, said
    first = len(BEFORE.splitlines()) + 1
    for number, (line, message) in enumerate(WRONG.items(), start=first):
        assert re.search(rf"wrong\.py:{number}: error: {re.escape(message)}", said), f"{line}\n{said}"
    assert said.count("error:") == len(WRONG), said


def typed_names(package: Path) -> dict[str, str]:
    """Public name -> module of it, as a type checker reads `__init__.py`; `as` makes them public."""
    tree = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    found = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name, f"{alias.name} is not exported"
            found[alias.name] = str(node.module)
    return found


LAZY = [file.parent for file in sorted(ROOT.rglob("__init__.py")) if "_CONTENTS" in file.read_text(encoding="utf-8")]


@pytest.mark.parametrize("package", LAZY, ids=lambda package: package.name)
def test_names_for_type_checkers_are_those_that_are_imported_on_first_use(package):
    module = importlib.import_module(".".join(package.relative_to(ROOT.parent).parts))
    names = typed_names(package)
    assert names.keys() == module._CONTENTS.keys() == set(module.__all__) - {"__version__"}
    for name, source in names.items():
        assert getattr(importlib.import_module(source), name) is getattr(module, name)
