"""Cut the embedded CIFAR-10 subset out of the full set: 200 training images per class, and every 20th test image.

python examples/data/make_subset.py --dataset path/or/hub-id/of/cifar10
"""

import argparse
from pathlib import Path

import numpy as np
from datasets import Image, load_dataset


IN_THE_PACKAGE = {"train": 1_000, "test": 250}
"""The first images of each split travel with the package, in `sample`; those after them are in `rest`."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", required=True, help="CIFAR-10 with the columns image and label")
    parser.add_argument("--output-dir", type=Path, default=Path(__file__).parent)
    parser.add_argument("--per-class", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    data = load_dataset(args.dataset).cast_column("image", Image(decode=False))
    labels = np.asarray(data["train"]["label"])
    random = np.random.default_rng(args.seed)
    chosen = [random.choice(np.flatnonzero(labels == c), args.per_class, replace=False) for c in range(10)]
    splits = {
        "train": data["train"].select(random.permutation(np.concatenate(chosen))),
        "test": data["test"].select(range(0, len(data["test"]), 20)),
    }
    for name, split in splits.items():
        first = IN_THE_PACKAGE[name]
        for folder, part in {"sample": range(first), "rest": range(first, len(split))}.items():
            (args.output_dir / folder).mkdir(parents=True, exist_ok=True)
            split.select(part).cast_column("image", Image()).to_parquet(args.output_dir / folder / f"{name}.parquet")
        print(f"{name}: {len(split)} images, label counts {np.bincount(split['label']).tolist()}")


if __name__ == "__main__":
    main()
