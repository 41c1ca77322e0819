"""Python programs of tests, run by forks of a process that has imported other people's large packages, which takes seconds, and nothing of ours.

What is looked at by such a program must not be the import of these packages, nor what they read from the environment meanwhile.
"""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing import forkserver
from pathlib import Path

from tests.support.processes import environment


IMPORTED = ("torch", "torch._dynamo", "torch.distributed.tensor", "accelerate", "datasets", "scipy.stats")
"""Neither `transformers`, for whose import the package waits, nor `evaluate`, which imports it."""


def fork_python(
    *words: object, cwd: Path | None = None, timeout: float = 300.0, **variables: str
) -> subprocess.CompletedProcess[str]:
    """As `run_python`, of a script or of code (`-c`), sooner."""
    given = environment(**variables)
    _start(given)
    with tempfile.TemporaryDirectory() as folder:
        said, complained = (Path(folder) / name for name in ("out", "err"))
        arguments = ([str(word) for word in words], str(cwd or os.getcwd()), given, str(said), str(complained))
        process = multiprocessing.get_context("forkserver").Process(target=_run, args=arguments)
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(arguments[0], timeout)
        return subprocess.CompletedProcess(
            arguments[0], process.exitcode, said.read_text("utf-8"), complained.read_text("utf-8")
        )


def _start(given: dict[str, str]) -> None:
    """The process that is forked, once for each process of tests; its packages see this environment."""
    before = dict(os.environ)
    os.environ.update(given)
    try:
        forkserver.set_forkserver_preload(list(IMPORTED))
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


def _run(words: Sequence[str], cwd: str, given: dict[str, str], said: str, complained: str) -> None:
    """In the fork: what `python *words` would do there."""
    for descriptor, file in ((1, said), (2, complained)):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.clear()
    os.environ.update(given)
    os.chdir(cwd)
    gc.freeze()  # what was imported before stays
    paths = given["PYTHONPATH"].split(os.pathsep)
    try:
        if words[0] == "-c":
            sys.argv, sys.path[:0] = ["-c", *words[2:]], ["", *paths]
            exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv, sys.path[:0] = list(words), [str(Path(words[0]).parent), *paths]
            runpy.run_path(words[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # which a fork leaves out
