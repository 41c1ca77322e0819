"""Parsers of files that others wrote, on inputs that are nearly right: each may succeed or refuse with its documented error, and nothing else."""

from __future__ import annotations

import contextlib
import random
import re
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.support.fuzz_bytes import mutate


HANGS = 10.0
"""Processor seconds of one input beyond which a parser hangs."""
CORPUS = 256
"""Inputs that are kept to mutate further."""
LONGEST_KEPT = 8192
KIND_WORDS = 12
WORD = re.compile(r"[a-z_]{3,}")


class Hang(BaseException):
    """Raised into a parser that takes too long; no `except Exception` of it catches this."""


@dataclass(frozen=True)
class Target:
    """A parser.

    Attributes:
        parse: Takes the bytes of an input.
        seeds: Valid inputs.
        errors: What it may raise, of exactly these types.
        names: What every refusal must say, such as the name of the file.
        share: Of all inputs, in parts.
    """

    parse: Callable[[bytes], object]
    seeds: Sequence[bytes]
    errors: tuple[type[Exception], ...]
    names: str
    share: int = 1


@dataclass
class Found:
    """What became of the inputs of one target.

    Attributes:
        inputs, accepted: How many there were, and how many were taken.
        refusals: Kinds of refusals: the first words of the messages.
        faults: Inputs with what was wrong, one for each kind.
        slowest: Processor seconds of the slowest input.
    """

    inputs: int = 0
    accepted: int = 0
    refusals: set[str] = field(default_factory=set)
    faults: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    slowest: float = 0.0


@contextlib.contextmanager
def _timed(seconds: float) -> Iterator[Callable[[], None]]:
    """What begins the time of an input anew; where it runs out, `Hang` is raised. Only on the main thread, and not on Windows."""

    def ring(*_: object) -> None:
        raise Hang(f"no answer after {seconds:g} s")

    before = signal.signal(signal.SIGVTALRM, ring)
    try:
        yield lambda: signal.setitimer(signal.ITIMER_VIRTUAL, seconds) and None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)


def fuzz(target: Target, count: int, seed: int, hangs: float = HANGS) -> Found:
    """Put inputs to a parser. Those that are refused in a new way are mutated further."""
    source, found = random.Random(seed), Found()
    # Valid inputs, those that were accepted, and those that were refused in a new way: near each of them other parts of a parser are met.
    accepted, refused = list(target.seeds), list(target.seeds)
    for seed_input in target.seeds:
        target.parse(seed_input)  # else nothing near it means anything
    with _timed(hangs) as begin:
        for _ in range(count):
            data = mutate(source, source.choice((target.seeds, accepted, refused)))
            begin()
            kind, fault, seconds = attempt(target, data)
            found.inputs += 1
            found.slowest = max(found.slowest, seconds)
            if fault is not None:
                found.faults.setdefault(kind, (data, fault))
                continue
            new = kind not in found.refusals if kind else source.random() < 0.02
            if kind:
                found.refusals.add(kind)
            else:
                found.accepted += 1
            if new and len(data) < LONGEST_KEPT:
                pool = refused if kind else accepted
                if len(pool) < CORPUS:
                    pool.append(data)
                else:
                    pool[source.randrange(CORPUS)] = data
    return found


def attempt(target: Target, data: bytes) -> tuple[str, str | None, float]:
    """(kind of refusal, or "" for none; what is wrong with it, or None; processor seconds)."""
    began = time.thread_time()
    try:
        target.parse(data)
        return "", None, time.thread_time() - began
    except (Exception, Hang) as error:
        seconds = time.thread_time() - began
        said = str(error)
        if type(error) not in target.errors:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{type(error).__name__} at {frame.filename.rpartition('/')[2]}:{frame.lineno}"
            return place, f"{type(error).__name__}: {said[:200]}", seconds
        kind = " ".join(WORD.findall(said[:400].partition(" got ")[0])[:KIND_WORDS])
        if target.names not in said:
            return f"unnamed: {kind}", f"{target.names!r} is not in: {said[:200]}", seconds
        return kind, None, seconds
