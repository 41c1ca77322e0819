"""Data sets of seconds for the studies."""

from pathlib import Path

import datasets
import numpy as np
from PIL import Image


def image_folder(path: Path, names: list[str], count: int) -> None:
    """A parquet data set whose classes differ in brightness."""
    generator = np.random.default_rng(0)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    for split in ("train", "test"):
        rows = []
        for k in range(count):
            value = generator.integers(0, 100, (8, 8, 3)) + 150 * (k % len(names)) // max(len(names) - 1, 1)
            rows.append({"image": Image.fromarray(value.astype(np.uint8)), "label": k % len(names)})
        path.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_list(rows, features=features).to_parquet(path / f"{split}-00000-of-00001.parquet")
