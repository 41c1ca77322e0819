"""Memory that stays with the process: what is said to the C library, when, and that it works."""

from __future__ import annotations

import os
import platform
import resource
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hf_smoothing import allocator
from hf_smoothing.allocator import KEEPING, USUAL, memory_kept
from hf_smoothing.certification import Execution
from hf_smoothing.interval import linf_certificates
from tests.support import tiny


@pytest.fixture
def said(monkeypatch):
    """What the C library received, in order."""
    for name in list(os.environ):
        if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES":
            monkeypatch.delenv(name)
    calls: list[tuple[int, int]] = []
    library = SimpleNamespace(
        mallopt=lambda name, value: calls.append((name, value)), malloc_trim=lambda rest: calls.append((0, rest))
    )
    monkeypatch.setattr(allocator, "_glibc", lambda: library)
    monkeypatch.setattr(allocator, "LONG", 1e9)
    return calls


def test_kept_from_the_first_that_enters_to_the_last_that_leaves(said):
    with memory_kept():
        with memory_kept():
            assert said == list(KEEPING.items())
        assert said == list(KEEPING.items())
    assert said == [*KEEPING.items(), *USUAL.items()]


def test_given_back_after_an_error_as_well(said):
    with pytest.raises(KeyError), memory_kept():
        raise KeyError
    assert said == [*KEEPING.items(), *USUAL.items()]


def test_after_a_long_run_what_is_free_is_given_back(said, monkeypatch):
    monkeypatch.setattr(allocator, "LONG", -1.0)
    with memory_kept(), memory_kept():
        pass
    assert said == [*KEEPING.items(), *USUAL.items(), (0, 0)]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are copied here")
def test_a_process_copied_while_another_thread_enters_does_not_wait_for_it():
    with allocator._lock:
        child = os.fork()
        if child == 0:
            with memory_kept():
                os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_networks_of_certification_run_in_it(said):
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).eval()
    with Execution().prepare(network):
        assert said == list(KEEPING.items())
    assert said == [*KEEPING.items(), *USUAL.items()]


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_settings_of_the_environment_hold(name, monkeypatch):
    monkeypatch.setenv(name, "1")
    assert allocator._glibc() is None
    with memory_kept():
        pass


@pytest.mark.parametrize("failure", [ValueError, OSError])
def test_where_the_c_library_is_another_nothing_happens(failure, monkeypatch):
    def no_such_name(name: str) -> str:
        raise failure(name)

    monkeypatch.setattr(os, "confstr", no_such_name)
    assert allocator._glibc() is None


def pages_taken(times: int = 16, size: int = 70 << 20) -> int:
    """Pages that the process is given while blocks too large for the C library's own rule come and go."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.empty(size, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc: its blocks come and go as they do")
def test_blocks_do_not_pay_for_their_pages_again():
    if allocator._glibc() is None:
        pytest.skip("the environment has settings of its own for the allocator, which were NOT compared")
    usual = pages_taken()
    with memory_kept():
        # The least of a few: what other threads of the process allocate meanwhile may lie above a block that is given back.
        kept = min(pages_taken() for _ in range(3))
    assert kept < usual / 2


def test_certificates_of_bounds_run_in_it(said):
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).eval()
    linf_certificates(network, torch.rand(1, 3, 2, 2), largest=0.1)
    assert said == [*KEEPING.items(), *USUAL.items()]


def test_training_and_evaluation_run_in_it(said, tmp_path):
    images = tiny.data()
    trainer = tiny.trainer(tiny.smoothed(num_samples=1), tmp_path, max_steps=1)
    for run in (trainer.train, lambda: trainer.evaluate(images), lambda: trainer.predict(images)):
        said.clear()
        run()
        assert said == [*KEEPING.items(), *USUAL.items()]
