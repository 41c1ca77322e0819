"""Work in resumable stages: each has a folder, settings that are checked, and a result that is kept.

For studies of hours: stop and start them at any time, and start them several times at once on one folder.
"""

from __future__ import annotations

import hashlib
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hf_smoothing.records import differences, read_json, write_json


Results = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Stage:
    """A piece of work whose result is kept.

    Attributes:
        name: Its folder below the output folder.
        kind: What is done, such as "pretrain", "finetune" or "certify".
        settings: All that decides its result, except the stages that it needs; plain JSON values.
        needs: Names of stages that must be done first.
    """

    name: str
    kind: str
    settings: dict[str, Any]
    needs: tuple[str, ...] = field(default=())


def run_stages(
    stages: Sequence[Stage], output: Path, work: Callable[[Stage, Results], dict[str, Any]], only: str = ""
) -> None:
    """Work until nothing is left; each process takes the next stage that nobody works on, and waits for those of others.

    Args:
        stages: Stages, every need before the stage that has it.
        output: The results folder.
        work: A function of (stage, results of the stages that it needs, by name) -> its result, plain JSON values.
        only: Stages whose name starts so, with all that they need.

    Raises:
        SystemExit: The message names the first stage that failed, the others were done; or if no stage has such a
            name, or a stage that was done before was made from something else than what is there now.
        ValueError: If a stage needs one that is not among the stages.
    """
    names = {stage.name for stage in stages}
    for stage in stages:
        if missing_needs := sorted(set(stage.needs) - names):
            raise ValueError(
                f"{stage.name} needs {missing_needs[0]}, which is not among the stages: it would wait forever."
            )
    wanted = _with_needs(stages, only)
    if not wanted:
        raise SystemExit(
            f"No stage starts with {only!r}. There are: {', '.join(sorted({s.name.split('/')[0] for s in stages}))}/..."
        )
    failed: dict[str, None] = {}  # in order
    while missing := [stage for stage in wanted if stage.name not in failed and not _done(stage, output)]:
        ready = [stage for stage in missing if not failed.keys() & set(stage.needs)]
        failed |= {stage.name: None for stage in missing if failed.keys() & set(stage.needs)}
        if ready and not any(_try(stage, work, output, failed) for stage in ready):
            time.sleep(5)  # what is left needs a stage that another process works on
    if failed:
        raise SystemExit(
            f"{len(failed)} stages failed, or need one that did; the first: {next(iter(failed))}. Remove the cause and run again."
        )
    check_settings(wanted, output)


def _with_needs(stages: Sequence[Stage], only: str) -> list[Stage]:
    """The stages whose name starts so, and all that they need, in order."""
    wanted: set[str] = set()
    for stage in reversed(stages):
        if stage.name.startswith(only) or stage.name in wanted:
            wanted |= {stage.name, *stage.needs}
    return [stage for stage in stages if stage.name in wanted]


def _done(stage: Stage, output: Path) -> bool:
    return (output / stage.name / "result.json").exists()


def _try(
    stage: Stage, work: Callable[[Stage, Results], dict[str, Any]], output: Path, failed: dict[str, None]
) -> bool:
    """Whether a stage was tried; if it fails, that is noted."""
    try:
        return try_stage(stage, work, output)
    except Exception:  # the other stages can still be done
        traceback.print_exc()
        failed[stage.name] = None
    return True


def try_stage(stage: Stage, work: Callable[[Stage, Results], dict[str, Any]], output: Path) -> bool:
    """Do this stage alone, unless it is done; what it needs must have been done before.

    Returns:
        Whether it is done now: not if a need is not, nor while another process works on it.

    Raises:
        SystemExit: If it was begun with other settings, or made from something else than what is there now.
        Exception: Whatever the work raises.
    """
    if not all((output / name / "result.json").exists() for name in stage.needs):
        return False
    needs = {name: read_json(output / name / "result.json") for name in stage.needs}
    folder = output / stage.name
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout:
        return False
    with lock:
        check_settings([stage], output)  # another process may have begun it with another configuration
        if _done(stage, output):
            return True
        made_from = {name: _digest(output, name) for name in stage.needs}
        write_json(folder / "settings.json", stage.settings | {"needs": made_from})
        print(f"{time.strftime('%H:%M:%S')} {stage.name}", flush=True)
        try:
            write_json(folder / "result.json", work(stage, needs))
        except Exception:
            if {path.name for path in folder.iterdir()} <= {".lock", "settings.json"}:
                # Nothing was made with these settings, so they may be corrected.
                (folder / "settings.json").unlink()
            raise
    return True


def check_settings(stages: Sequence[Stage], output: Path) -> None:
    """Refuse a configuration that differs from that of stages already begun, and results made from others than those that are there.

    Raises:
        SystemExit: The message names each such stage and what differs.
    """
    if changed := changes(stages, output):
        raise SystemExit(
            f"The configuration has changed since these stages of {output} were begun:\n" +
            "\n".join(f"  {change}" for change in changed) +
            "\nRestore it, use another --output-dir, or delete those stages and all that need them."
        )  # fmt: skip


def changes(stages: Sequence[Stage], output: Path) -> list[str]:
    """What differs from when these stages were begun, in words that begin with the name of a stage."""
    changed = []
    for stage in stages:
        before = read_json(output / stage.name / "settings.json")
        if before is None:
            continue
        made_from = before.pop("needs", {name: _digest(output, name) for name in stage.needs})
        for name in sorted(made_from.keys() ^ set(stage.needs)):
            changed.append(f"{stage.name}: it was made {'with' if name in made_from else 'without'} {name}")
        for name in made_from.keys() & set(stage.needs):
            if made_from[name] != _digest(output, name):
                changed.append(f"{stage.name}: it was made from a result of {name} that is no longer there")
        changed += [f"{stage.name}: {difference}" for difference in differences(before, stage.settings)]
    return changed


def _digest(output: Path, name: str) -> str | None:
    """Of a stage's result, or None where there is none."""
    file = output / name / "result.json"
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.exists() else None


def status(stages: Sequence[Stage], output: Path) -> str:
    """How far each kind of stage is."""
    lines = []
    for kind in dict.fromkeys(stage.kind for stage in stages):
        of_kind = [stage for stage in stages if stage.kind == kind]
        done = [result for stage in of_kind if (result := read_json(output / stage.name / "result.json"))]
        minutes = sum(result.get("seconds", 0.0) for result in done) / 60
        lines.append(f"{kind}: {len(done)} of {len(of_kind)} done, {minutes:.0f} minutes")
    return "\n".join(lines)
