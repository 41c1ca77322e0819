"""The labels of the test images that studies measure on, so that a figure built from the records alone knows its floor.

    python -m examples.studies.labels --data path/to/data    # writes docs/results/test_labels.json

The floor is what a classifier reaches that gives all images the class that is most frequent among them: no noise and no perturbation
changes its answer.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from examples.studies.command import DOCS
from hf_smoothing.records import read_json, write_json


NAMES = ("cifar10", "mnist")
"""Data sets of ten classes, whose labels are one digit each."""


def file_of(docs: Path) -> Path:
    """The file of labels: by data set the digits of all test images, in order."""
    return docs / "results" / "test_labels.json"


def one_class_for_all(docs: Path, name: str, images: int, *, spread: bool = True) -> float | None:
    """Share of the most frequent class, %, among test images; None where the labels are not known.

    Args:
        docs: Folder of the report.
        name: Name of the data set.
        images: Number of images.
        spread: Whether they are spread evenly over the set, or the first.
    """
    digits = (read_json(file_of(docs)) or {}).get(name)
    if digits is None:
        return None
    chosen = np.arange(images) * (len(digits) if spread else images) // images
    return 100 * float(np.bincount([int(digits[k]) for k in chosen]).max()) / images


def write(data: Path, docs: Path) -> None:
    """Read the labels of the data sets and write the file."""
    from datasets import load_dataset

    found = {name: load_dataset(str(data / name), split="test")["label"] for name in NAMES}
    file_of(docs).parent.mkdir(parents=True, exist_ok=True)
    write_json(file_of(docs), {name: "".join(map(str, labels)) for name, labels in found.items()})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Folder that holds the data sets.")
    parser.add_argument("--docs", type=Path, default=DOCS, help="Folder of the report.")
    given = parser.parse_args()
    write(given.data, given.docs)
