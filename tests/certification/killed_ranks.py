"""Certify on two ranks that their parent kills at random moments, one first and then the other, again and again until runs come through."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from pathlib import Path

from hf_smoothing.certification import certify_dataset
from hf_smoothing.records import RUN_FILE, read_run
from tests.certification.killed_anywhere import Slow
from tests.support.classifiers import KINDS, random_dataset
from tests.support.forked_ranks import forked_ranks


LONGEST = 120.0
"""Seconds after which ranks that were left alone hang."""


def rank(folder: Path, kind: str, count: int) -> None:
    """In a child: one of the two ranks. What it says at its end goes to a file beside the folder."""
    classifier, arguments = KINDS[kind]
    try:
        certify_dataset(Slow(classifier), random_dataset(count), folder, **arguments, partial_seconds=0)
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
        with open(folder.parent / "said", "a", encoding="utf-8") as stream:
            stream.write(said.replace("\n", " ") + "\n")
        raise


def start(folder: Path, kind: str, count: int) -> list[int]:
    def work(_: int) -> None:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        rank(folder, kind, count)

    return forked_ranks(work)


def ended(child: int, seconds: float) -> int | None:
    """The status of a child that ends within some seconds, else None."""
    until = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        if time.monotonic() > until:
            return None
        time.sleep(0.005)


def attempt(folder: Path, kind: str, count: int, moments: random.Random, length: float) -> int:
    """The number of ranks that were killed, of two; none where the run came to its end first."""
    first, second = start(folder, kind, count)
    victim, other = moments.sample([first, second], 2)
    status = ended(victim, moments.uniform(0.0, length))
    if status is not None:
        rest = ended(other, LONGEST)
        assert (status, rest) == (0, 0), f"a resumption must come through, got {status} and {rest}"
        return 0
    os.kill(victim, signal.SIGKILL)
    os.waitpid(victim, 0)
    # As a launcher does, a moment later: until then the other one writes what it knows, and finds out that it is alone.
    if ended(other, moments.uniform(0.0, 0.5)) is not None:
        return 1
    os.kill(other, signal.SIGKILL)
    os.waitpid(other, 0)
    return 2


def main(home: Path, kind: str, count: int, seed: int, enough: int) -> None:
    """Print the kills, those of them that left a run begun and unfinished, and the runs."""
    moments, kills, begun, runs = random.Random(seed), 0, 0, 0
    before = time.monotonic()
    for child in start(home / "alone", kind, count):
        assert ended(child, LONGEST) == 0
    length = 1.2 * (time.monotonic() - before)
    for _ in range(20 * enough + 20):
        folder = home / f"run-{runs}"
        killed = attempt(folder, kind, count, moments, length)
        kills += killed
        if killed == 0:
            runs += 1
            if kills >= enough:
                print(kills, begun, runs)
                return
            continue
        for file in folder.glob("certificates-*.jsonl"):
            torn = moments.choice([0, 1, moments.randrange(0, 60), moments.randrange(0, 400)])
            with contextlib.suppress(FileNotFoundError):
                os.truncate(file, max(0, file.stat().st_size - torn))
        left = read_run(folder) if (folder / RUN_FILE).exists() else None
        begun += left is not None and bool(left.rows or left.partials) and len(left.rows) < count
    raise RuntimeError("the runs never came to their end")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
