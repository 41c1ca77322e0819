"""Doing the stages within a budget of minutes: what does not fit is left, what is interrupted continues next time."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from examples.gpu.plan import ROOT
from examples.studies.stages import Results, Stage, run_stages


class OutOfTimeError(Exception):
    """The budget ended within a stage."""


class Budget:
    """Minutes that run from now.

    Args:
        minutes: Minutes that all stages may take together.
        clock: A function that gives seconds, which only grow.
    """

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.minutes, self._clock = minutes, clock
        self._end = clock() + 60.0 * minutes

    @property
    def left(self) -> float:
        """Minutes that are left."""
        return max(0.0, (self._end - self._clock()) / 60.0)


def spend(groups: Sequence[Sequence[Stage]], output: Path, budget: Budget) -> dict[str, str]:
    """Do the stages that are not done, group after group, while there is time for them; those of a group side by side.

    Returns:
        For each stage what became of it, in words.
    """
    said: dict[str, str] = {}
    stages = [stage for group in groups for stage in group]

    def do(stage: Stage) -> None:
        said[stage.name] = _do(stage, stages, output, budget)
        print(f"{stage.name}: {said[stage.name]}", flush=True)

    for group in groups:
        with ThreadPoolExecutor(len(group)) as side_by_side:
            list(side_by_side.map(do, group))
    return said


def _do(stage: Stage, stages: Sequence[Stage], output: Path, budget: Budget) -> str:
    least = stage.settings["least_minutes"]
    if (output / stage.name / "result.json").exists():
        return "was done before"
    if any(not (output / name / "result.json").exists() for name in stage.needs):
        return f"left out: it needs {', '.join(stage.needs)}"
    if budget.left < least:
        return f"left out: it needs {least:g} minutes, and {budget.left:.1f} are left"
    began = time.monotonic()

    def work(stage: Stage, needs: Results) -> dict[str, Any]:
        return run_command(command_of(stage, budget), output / stage.name / "log.txt", budget)

    try:
        run_stages(stages, output, work, only=stage.name)
    except SystemExit as error:
        if budget.left == 0.0:
            return "cut off by the budget: it goes on next time"
        return f"failed, see {output / stage.name / 'log.txt'} ({error})"
    return f"done in {(time.monotonic() - began) / 60:.1f} minutes"


def command_of(stage: Stage, budget: Budget) -> list[str]:
    """The command of a stage; of a training with its minutes, and from its last checkpoint if it was cut off.

    Both are no settings of the stage: it stays the same when it goes on with other minutes.
    """
    command = list(stage.settings["command"])
    if "share" not in stage.settings:
        return command
    more = {
        "minutes": round(stage.settings["share"] * budget.minutes, 2),
        "decode_processes": min(8, os.cpu_count() or 1),
    }
    command += [str(word) for option, value in more.items() for word in (f"--{option}", value)]
    resumable = any(Path(stage.settings["checkpoints"]).glob("checkpoint-*"))
    return command + (["--resume_from_checkpoint", "true"] if resumable else [])


def run_command(command: Sequence[str], log: Path, budget: Budget) -> dict[str, Any]:
    """Run a command in the repository, its output into a log, until it ends or the budget does.

    Returns:
        The seconds it took.

    Raises:
        OutOfTimeError: When the budget ended first; the command has been stopped.
        RuntimeError: If it failed, with the end of its output.
    """
    began = time.monotonic()
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n")
        file.flush()
        try:
            done = subprocess.run(
                command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, timeout=60.0 * budget.left, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise OutOfTimeError(f"The budget ended: {' '.join(command[:3])} was stopped.") from error
    if done.returncode:
        end = "\n".join(log.read_text(encoding="utf-8").splitlines()[-15:])
        raise RuntimeError(f"The command ended with status {done.returncode}:\n{end}")
    return {"seconds": round(time.monotonic() - began, 1)}
