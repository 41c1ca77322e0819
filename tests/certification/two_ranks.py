"""Started on every rank: certify the same images into each of the folders."""

from __future__ import annotations

import gc
import sys

from classifiers import RUN, Ranges, random_dataset

from hf_smoothing.certification import certify_dataset


if __name__ == "__main__":
    count, *folders = sys.argv[1:]
    for folder in folders:
        certify_dataset(Ranges(), random_dataset(int(count)), folder, **RUN)
    gc.collect()
