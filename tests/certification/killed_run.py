"""Certify in child processes that kill themselves after a random number of batches, until one comes through."""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

from hf_smoothing.certification import certify_dataset
from tests.support.classifiers import KINDS, is_probe, random_dataset


class Deadly:
    """Kills its own process, without any chance to clean up, when its batches are used up."""

    def __init__(self, classifier, batches: int) -> None:
        self.left, self.classifier = batches, classifier

    def __call__(self, pixels):
        if is_probe(pixels):
            return self.classifier(pixels)
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
        return self.classifier(pixels)


def main(folder: Path, mode: str, count: int, seed: int) -> int:
    """The number of kills before the run was complete."""
    moments = random.Random(seed)
    # The sequential run needs fewer batches, so it dies sooner.
    classifier, arguments = KINDS[mode]
    longest = 60 if mode == "fixed" else 30
    for kills in range(200):
        # Forked rather than started anew: importing torch takes longer than the run.
        child = os.fork()
        if child == 0:
            deadly = Deadly(classifier, moments.randrange(1, longest))
            certify_dataset(deadly, random_dataset(count), folder, **arguments, partial_seconds=0)
            os._exit(0)
        moments.random()
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return kills
        assert os.WTERMSIG(status) == signal.SIGKILL
        # What a machine that loses power may take with it.
        file = folder / "certificates-0.jsonl"
        if file.exists():
            os.truncate(file, max(0, file.stat().st_size - moments.randrange(0, 50)))
    raise RuntimeError("the run never came to its end")


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
