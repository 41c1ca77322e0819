"""The processes that share a run: what the first one makes, what each draws, and the errors of one on all."""

from __future__ import annotations

import atexit
import datetime
import functools
import gc
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, parse_flag_from_env

from hf_smoothing.certification.labels import adopt_labels
from hf_smoothing.certification.survey import Survey
from hf_smoothing.noise import Draws
from hf_smoothing.records import RunWriter
from hf_smoothing.types import Images


T = TypeVar("T")


class RankError(ConnectionError):
    """Another rank of the run has failed or is gone."""


@dataclass(frozen=True)
class Ranks:
    """The processes that share a run.

    All of them process the same images in the same rounds. Each makes an equal part of a round's draws, and all learn the votes of
    all: so no rank idles while another has work, however unequal the images, and every decision is the same everywhere.

    Args:
        rank, count: Rank of this process and number of processes.
        gather: A list of one object from this process -> those of all, in the order of the ranks.
    """

    rank: int = 0
    count: int = 1
    gather: Callable[[list[Any]], list[Any]] = list

    @classmethod
    def of(cls, state: PartialState) -> Ranks:
        """The ranks of this process's run, which exchange through `accelerate`."""
        return cls(state.process_index, state.num_processes, gather_object)

    def exchange(self, work: Callable[[], T]) -> list[T]:
        """What `work` gives on each rank; an error of one is raised on all, so that none waits for it forever."""
        if self.count == 1:
            return [work()]
        try:
            mine: Any = work()
            failure = None
        except Exception as error:
            mine, failure = f"{type(error).__name__}: {error}", error
        try:
            everything = self.gather([(failure is None, mine)])
        except RuntimeError as error:
            # The transport's own error, when a process was killed.
            raise (failure or RankError(f"Another rank of this run is gone ({error}).")) from error
        if failure is not None:
            raise failure
        for rank, (fine, result) in enumerate(everything):
            if not fine:
                raise RankError(f"Rank {rank} of this run failed: {result}")
        return [result for _, result in everything]


def process_state(cpu: bool = False) -> PartialState:
    """Ranks and device of this process, also for several ranks on a CPU.

    Args:
        cpu: Compute on the CPU although there is an accelerator.
    """
    # Without cpu=True, accelerate takes each process that torchrun starts on a machine without a GPU for a run of its own.
    forced = cpu or parse_flag_from_env("ACCELERATE_USE_CPU")
    leave_ranks_at_exit()
    # Ranks wait for each other while one of them reads what is recorded: hours are no sign of a fault.
    return PartialState(cpu=forced or not torch.accelerator.is_available(), timeout=datetime.timedelta(days=7))


_RELEASES: list[weakref.WeakMethod[Callable[[], None]]] = []


def leave_ranks_at_exit(release: Callable[[], None] | None = None) -> None:
    """Part from the other ranks when the interpreter ends: else a thread of gloo now and then aborts a process that has done its work.

    Args:
        release: A method that drops what holds on to the process group, called before if its object is still there.
    """
    if release is not None:
        _RELEASES.append(weakref.WeakMethod(release))
    _register_once()


@functools.cache
def _register_once() -> None:
    atexit.register(_leave_ranks)


def _leave_ranks() -> None:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    for reference in _RELEASES:
        release = reference()
        if release is not None:
            release()
    gc.collect()
    torch.distributed.destroy_process_group()


def from_first_rank(state: PartialState, made: T | None) -> T:
    """What rank 0 has made, on every rank; what the others pass is dropped."""
    held: list[Any] = [made]
    if state.num_processes > 1:
        broadcast_object_list(held)
    theirs: T = held[0]
    return theirs


def open_writer(
    state: PartialState,
    output_dir: str | os.PathLike[str],
    settings: Mapping[str, Any],
    seen: Survey,
    dataset: Images,
) -> RunWriter:
    """The writer of this rank. Rank 0 creates the folder; a run without labels is given those that the data set has now.

    Args:
        state: State of this process.
        output_dir, settings, seen, dataset: As in `adopt_labels`.

    Raises:
        RunError, OSError: As `RunWriter`.
    """
    with state.main_process_first():
        if seen.labelled and state.is_main_process:
            adopt_labels(output_dir, settings, seen, dataset)
        return RunWriter(output_dir, settings, rank=state.process_index)


class Share(NamedTuple):
    """What one rank draws of a request.

    Attributes:
        request: Number of the request within the round.
        draws: Those of its draws that are this rank's.
    """

    request: int
    draws: Draws


def share_of(requests: Sequence[Draws], rank: int, count: int) -> list[Share]:
    """The part of a rank when all requested draws, laid end to end, are cut into `count` equal pieces."""
    total = sum(request.stop - request.start for request in requests)
    first, last = rank * total // count, (rank + 1) * total // count
    mine, position = [], 0
    for number, request in enumerate(requests):
        start = request.start + max(0, first - position)
        stop = min(request.stop, request.start + last - position)
        if start < stop:
            mine.append(Share(number, request._replace(start=start, stop=stop)))
        position += request.stop - request.start
    return mine
