"""No command outlives the GPU kit, or it is not started again beside the one that does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from examples.gpu.work import Budget, spend
from examples.studies.stages import Stage
from tests.support.processes import ROOT


KIT = """
import sys
from pathlib import Path
from examples.gpu.processes import ended_by_signals
from examples.gpu.work import Budget, spend
from examples.studies.stages import Stage

inner = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(120)"
outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}, sys.argv[1]])"
command = [sys.executable, "-c", outer, sys.argv[2]]
with ended_by_signals():
    spend([[Stage("a", "certify", {"command": command, "least_minutes": 0.0})]], Path(sys.argv[1]), Budget(float(sys.argv[3])))
"""


@contextlib.contextmanager
def running_kit(tmp_path, minutes):
    """A kit that works on a command with a child, as (its process, the number of that child)."""
    words = [sys.executable, "-c", KIT, tmp_path / "out", tmp_path / "pid", minutes]
    with subprocess.Popen(list(map(str, words)), cwd=ROOT, stdout=subprocess.PIPE, text=True) as kit:
        wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        inner = int((tmp_path / "pid").read_text())
        try:
            yield kit, inner
        finally:
            kit.kill()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(os.getpgid(inner), signal.SIGKILL)


def wait_until(true):
    end = time.monotonic() + 60.0
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def ended(number):
    """Whether no process has this number, or one that is over."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    status = Path(f"/proc/{number}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] == "Z"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_a_kit_that_gets_the_signal_to_end(tmp_path, number):
    with running_kit(tmp_path, 5.0) as (kit, inner):
        kit.send_signal(number)
        assert "a: cut off with the kit: it goes on next time" in kit.communicate(timeout=60)[0]
        assert kit.returncode == 128 + number
        wait_until(lambda: ended(inner))


def test_nothing_outlives_the_budget(tmp_path):
    with running_kit(tmp_path, 0.1) as (kit, inner):
        assert "a: cut off by the budget" in kit.communicate(timeout=60)[0]
        wait_until(lambda: ended(inner))


def test_what_a_killed_kit_left_running_is_not_started_again(tmp_path):
    with running_kit(tmp_path, 5.0) as (kit, inner):
        kit.kill()
        kit.wait()
        settings = json.loads((tmp_path / "out" / "a" / "settings.json").read_text())
        settings.pop("needs")
        assert not ended(inner)
        said = spend([[Stage("a", "certify", settings)]], tmp_path / "out", Budget(1.0))
        assert said["a"] == "left out: another process works on it"
