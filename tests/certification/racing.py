"""Certify into one folder from several processes that begin at the same moment; what each came to is printed, a line each."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from hf_smoothing.certification import certify_dataset
from tests.certification.killed_anywhere import Slow
from tests.support.classifiers import KINDS, random_dataset


def main(folder: Path, kind: str, count: int, processes: int) -> None:
    classifier, arguments = KINDS[kind]
    begin = time.time() + 0.2
    children = []
    for _ in range(processes):
        child = os.fork()
        if child == 0:
            time.sleep(max(0.0, begin - time.time()))
            try:
                run = certify_dataset(Slow(classifier), random_dataset(count), folder, **arguments, partial_seconds=0)
                said = f"{len(run.rows)} rows"
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            os.write(1, (said.replace("\n", " ") + "\n").encode())
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
