"""Certify in child processes that their parent kills at any moment, not only between two batches, until one comes through."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from pathlib import Path

from hf_smoothing.certification import certify_dataset
from tests.support.classifiers import KINDS, random_dataset


class Slow:
    """Gives the killer time: a moment between two batches, so that kills fall on writing, reading and drawing alike."""

    def __init__(self, classifier) -> None:
        self.classifier = classifier

    def __call__(self, pixels):
        time.sleep(0.001)
        return self.classifier(pixels)


def attempt(folder: Path, kind: str, count: int) -> None:
    """In the child: the run, with its partial rows written after every round."""
    classifier, arguments = KINDS[kind]
    certify_dataset(Slow(classifier), random_dataset(count), folder, **arguments, partial_seconds=0)


def main(folder: Path, kind: str, count: int, seed: int) -> int:
    """The number of kills before the run was complete."""
    moments = random.Random(seed)
    for kills in range(500):
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                attempt(folder, kind, count)
                os._exit(0)
            os._exit(1)
        # Longer and longer: on a busy machine the start alone may take the first of these.
        time.sleep(moments.uniform(0.0, 0.12 * (1 + kills / 50)))
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, "a resumption must not be refused"
            return kills
        for file in folder.glob("certificates-*.jsonl"):
            # What a machine that loses power may take with it: most often a part of the last line, sometimes more.
            torn = moments.choice([0, 1, moments.randrange(0, 60), moments.randrange(0, 400)])
            os.truncate(file, max(0, file.stat().st_size - torn))
    raise RuntimeError("the run never came to its end")


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
