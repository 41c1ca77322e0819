"""The processes that share a run: what the first one makes, what each draws, and the errors of one on all."""

from __future__ import annotations

import atexit
import contextlib
import datetime
import functools
import gc
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar, cast

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, parse_flag_from_env

from hf_smoothing.certification.classifiers import classifier_device
from hf_smoothing.certification.labels import adopt_labels
from hf_smoothing.certification.survey import Survey
from hf_smoothing.noise import Draws
from hf_smoothing.records import RunWriter
from hf_smoothing.types import Classifier, Images


T = TypeVar("T")


NOTICE_SECONDS = 10.0
"""A rank that has failed says so by itself where the others do not come to an exchange for so long."""

logger = logging.getLogger(__name__)


class RankError(ConnectionError):
    """Another rank of the run has failed or is gone."""


@dataclass
class Ranks:
    """The processes that share a run.

    All of them process the same images in the same rounds. Each makes an equal part of a round's draws, and all learn the votes of
    all: so no rank idles while another has work, however unequal the images, and every decision is the same everywhere.

    Within a run they speak by `exchange` alone, within `together`: so an error of one ends the run on all, and what one says is never
    heard by another that is in the next run already.

    Args:
        rank, count: Rank of this process and number of processes.
        gather: A list of one object from this process -> those of all, in the order of the ranks.
    """

    rank: int = 0
    count: int = 1
    gather: Callable[[list[Any]], list[Any]] = list
    _over: bool = field(default=False, init=False)

    @classmethod
    def of(cls, state: PartialState) -> Ranks:
        """The ranks of this process's run, which exchange through `accelerate`."""
        return cls(state.process_index, state.num_processes, gather_object)

    def exchange(self, work: Callable[[], T]) -> list[T]:
        """What `work` gives on each rank; an error of one is raised on all, so that none waits for it forever."""
        if self.count == 1:
            return [work()]
        try:
            mine = work()
        except Exception as error:
            return self._speak(None, error)
        return self._speak(mine)

    def from_first(self, work: Callable[[], T]) -> T:
        """What `work` gives on rank 0, on every rank; the others do not call it."""
        return cast(T, self.exchange(lambda: work() if self.rank == 0 else None)[0])

    def wait(self) -> None:
        """Wait until all ranks have come here."""
        self.exchange(lambda: None)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A run: an error of this rank outside an exchange ends the run on the others too, whichever exchange they come to next.

        The last that happens within must be an exchange. An interruption is not passed on, since it comes to all or ends the process.
        """
        try:
            yield
        except Exception as error:
            if self.count > 1 and not self._over:
                said = f"Rank {self.rank} of this run failed, and waits to tell the others: {_text(error)}"
                notice = threading.Timer(NOTICE_SECONDS, logger.error, [said])
                notice.daemon = True
                notice.start()
                try:
                    self._speak(None, error)
                finally:
                    notice.cancel()
            raise

    def _speak(self, mine: Any, failure: Exception | None = None) -> list[Any]:
        self._over = True  # unless all ranks are well
        try:
            everything = self.gather([(failure is None, mine if failure is None else _text(failure))])
        except RuntimeError as error:
            # The transport's own error, when a process was killed.
            raise (failure or RankError(f"Another rank of this run is gone ({str(error).split('. ')[0]}).")) from error
        if failure is not None:
            raise failure
        for rank, (fine, result) in enumerate(everything):
            if not fine:
                raise RankError(f"Rank {rank} of this run failed: {result}")
        self._over = False
        return [result for _, result in everything]


def _text(error: Exception) -> str:
    """For the other ranks: without what this one has kept (`telling_what_is_kept` raises the same error once more), which they count themselves."""
    told = error.__cause__ if type(error.__cause__) is type(error) else error
    return f"{type(error).__name__}: {told}"


@contextlib.contextmanager
def ranks_of_run(classifier: Classifier) -> Iterator[Ranks]:
    """The ranks of this process while they share a run, on the kind of device that the classifier is on."""
    ranks = Ranks.of(process_state(cpu=classifier_device(classifier).type == "cpu"))
    with ranks.together():
        yield ranks


def process_state(cpu: bool = False) -> PartialState:
    """Ranks and device of this process, also for several ranks on a CPU.

    Args:
        cpu: Compute on the CPU although there is an accelerator.

    Raises:
        ValueError: If this process was set up as one of its own before, although a launcher has started several.
    """
    # Without cpu=True, accelerate takes each process that torchrun starts on a machine without a GPU for a run of its own.
    forced = cpu or parse_flag_from_env("ACCELERATE_USE_CPU")
    leave_ranks_at_exit()
    # Ranks wait for each other while one of them reads what is recorded: hours are no sign of a fault.
    state = PartialState(cpu=forced or not torch.accelerator.is_available(), timeout=datetime.timedelta(days=7))
    launched = int(os.environ.get("WORLD_SIZE") or 1) if "LOCAL_RANK" in os.environ else 1
    if state.num_processes == 1 < launched:
        raise ValueError(
            f"This process is one of {launched} that a launcher has started, but an Accelerator or PartialState of this "
            "process was made for one that runs alone, as accelerate does without a GPU. Start the launcher with ACCELERATE_USE_CPU=true, or "
            "make it with cpu=True."
        )
    return state


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


@contextlib.contextmanager
def open_writer(
    ranks: Ranks,
    output_dir: str | os.PathLike[str],
    settings: Mapping[str, Any],
    seen: Survey,
    dataset: Images,
) -> Iterator[RunWriter]:
    """The writer of this rank. Rank 0 creates the folder; a run without labels is given those that the data set has now.

    Args:
        ranks: The processes that share the run.
        output_dir, settings, seen, dataset: As in `adopt_labels`.

    Raises:
        RunError, OSError: As `RunWriter`.
    """
    first = ranks.rank == 0
    if not first:
        ranks.wait()
    elif seen.labelled:
        adopt_labels(output_dir, settings, seen, dataset)
    with RunWriter(output_dir, settings, rank=ranks.rank) as writer:
        if first:
            ranks.wait()
        yield writer


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
