"""Processes that a test starts: of this checkout, one thread each, without the network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


ROOT = Path(__file__).parents[2]


def run_python(
    *words: object, cwd: Path | None = None, timeout: float = 300.0, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run Python with these words, such as a script and its arguments, and wait for it.

    Args:
        words: of the command line.
        cwd: Where it runs.
        timeout: Seconds after which it is killed and the test fails.
        variables: Further environment variables.
    """
    command, given = [sys.executable, *map(str, words)], environment(**variables)
    return subprocess.run(command, cwd=cwd, env=given, capture_output=True, text=True, timeout=timeout, check=False)


def environment(**variables: str) -> dict[str, str]:
    """What such a process finds in its environment: this checkout, one thread, and these further variables."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}


def run_ranks(
    count: int, script: Path, *words: object, timeout: float = 300.0, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a script on `count` ranks of one machine, on the CPU."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count)
    return run_python(*launcher, script, *words, cwd=None, timeout=timeout, ACCELERATE_USE_CPU="true", **variables)


def printed(done: subprocess.CompletedProcess[str]) -> str:
    """What a process printed, which must have ended well."""
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
