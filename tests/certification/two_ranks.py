"""Started on every rank: certify the same images into each of the folders, the last with the sequential rule."""

from __future__ import annotations

import gc
import json
import os
import sys

from hf_smoothing.certification import certify_dataset
from tests.support.classifiers import RUN, SEQUENTIAL, Linear, Ranges, Watched, random_dataset


if __name__ == "__main__":
    count, *folders, last = sys.argv[1:]
    made = []
    for folder in [*folders, last]:
        classifier, arguments = (Linear(), SEQUENTIAL) if folder == last else (Ranges(), RUN)
        watched = Watched(classifier)
        certify_dataset(watched, random_dataset(int(count)), folder, **arguments)
        made.append(sum(watched.sizes))
    # In one write, so that the lines of two ranks do not mix.
    os.write(1, (json.dumps({"rank": int(os.environ["RANK"]), "draws": made}) + "\n").encode())
    gc.collect()
