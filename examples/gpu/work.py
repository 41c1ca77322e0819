"""Doing the stages within a budget of minutes: what does not fit is left, what is interrupted continues next time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from examples.gpu.plan import GOES_ON
from examples.gpu.processes import BusyError, Commands, CutOffError
from examples.studies.stages import Results, Stage, changes, try_stage
from hf_smoothing.records import read_json


BUSY = "left out: another process works on it"


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


def spend(
    groups: Sequence[Sequence[Stage]], output: Path, budget: Budget, prefixes: tuple[str, ...] = ("",)
) -> dict[str, str]:
    """Do the stages that are not done, group after group, while there is time for them; those of a group side by side.

    Args:
        groups: The whole plan, every need of a stage in an earlier group.
        output: The results folder.
        budget: Of all stages together.
        prefixes: Only stages whose name starts with one of these are done; what they need must have been done before.

    Returns:
        For each of these stages what became of it, in words. Those that begin with "failed" or "refused" need a look.
    """
    said: dict[str, str] = {}
    stages = {stage.name: stage for group in groups for stage in group}
    commands = Commands()

    def do(stage: Stage) -> None:
        said[stage.name] = _do(stage, stages, output, budget, commands)
        print(f"{stage.name}: {said[stage.name]}", flush=True)

    for group in groups:
        if wanted := [stage for stage in group if stage.name.startswith(prefixes)]:
            with ThreadPoolExecutor(len(wanted)) as side_by_side:
                try:
                    list(side_by_side.map(do, wanted))
                except BaseException:  # Ctrl-C and SIGTERM among them: no command outlives the kit
                    commands.close()
                    raise
    return said


def _do(stage: Stage, stages: dict[str, Stage], output: Path, budget: Budget, commands: Commands) -> str:
    if refusal := _refusal([*_needs(stage, stages), stage], output):
        return refusal
    if (output / stage.name / "result.json").exists():
        return "was done before"
    if any(not (output / name / "result.json").exists() for name in stage.needs):
        return f"left out: it needs {', '.join(stage.needs)}"
    least, log = stage.settings["least_minutes"], output / stage.name / "log.txt"
    if budget.left < least:
        return f"left out: it needs {least:g} minutes, and {budget.left:.1f} are left"
    began = time.monotonic()

    def work(stage: Stage, needs: Results) -> dict[str, Any]:
        return run_command(command_of(stage, budget), log, budget, commands)

    try:
        if not try_stage(stage, work, output):
            return BUSY
    except BusyError:
        return BUSY
    except CutOffError as error:
        return f"cut off {error}: it {'goes on' if stage.kind in GOES_ON else 'starts over'} next time"
    except SystemExit as error:  # another process has begun it meanwhile
        return f"refused: {error}"
    except Exception as error:  # the others can still be done
        return f"failed, see {log} ({error})"
    return f"done in {(time.monotonic() - began) / 60:.1f} minutes"


def _needs(stage: Stage, stages: dict[str, Stage]) -> Iterator[Stage]:
    """What a stage needs, and what that needs."""
    for name in stage.needs:
        yield from _needs(stages[name], stages)
        yield stages[name]


def _refusal(stages: Sequence[Stage], output: Path) -> str:
    """Why no result may be made or taken from these stages, in words; empty where all were begun as they are planned now."""
    if not (changed := changes(stages, output)):
        return ""
    name = changed[0].split(":")[0]
    now = next(stage for stage in stages if stage.name == name).settings["command"]
    before = read_json(output / name / "settings.json").get("command", [])
    was, is_ = [word for word in before if word not in now], [word for word in now if word not in before]
    what = f"with {' '.join(was)}, now it is {' '.join(is_)}" if was + is_ else changed[0].removeprefix(f"{name}: ")
    return f"refused: {name} was made with other settings ({what}). Restore them, use another --output-dir, or delete {output / name}."


def command_of(stage: Stage, budget: Budget) -> list[str]:
    """The command of a stage; of a training with its minutes, and from its last whole checkpoint if it was cut off.

    Both are no settings of the stage: it stays the same when it goes on with other minutes.
    """
    command = list(stage.settings["command"])
    if "share" not in stage.settings:
        return command
    from examples.studies.recipes import last_checkpoint  # loads torch, which reading --help should not

    more = {
        "minutes": round(stage.settings["share"] * budget.minutes, 2),
        "decode_processes": min(8, os.cpu_count() or 1),
    }
    command += [str(word) for option, value in more.items() for word in (f"--{option}", value)]
    checkpoint = last_checkpoint(Path(stage.settings["checkpoints"]))
    return command + (["--resume_from_checkpoint", checkpoint] if checkpoint else [])


def run_command(command: Sequence[str], log: Path, budget: Budget, commands: Commands) -> dict[str, Any]:
    """Run a command, its output into a log, until it ends or the budget does.

    Returns:
        The seconds it took.

    Raises:
        CutOffError: When it was stopped first.
        RuntimeError: If it failed, with the end of its output.
    """
    began = time.monotonic()
    if status := commands.run(command, log, 60.0 * budget.left):
        end = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        raise RuntimeError(f"The command ended with status {status}:\n{end}")
    return {"seconds": round(time.monotonic() - began, 1)}
