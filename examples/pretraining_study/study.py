"""Does smoothing transfer? Pretraining x finetuning x certification noise, from scratch to tables.

    python examples/pretraining_study/study.py run --config examples/pretraining_study/cpu.json --data path/to/data --output_dir runs/study
    python examples/pretraining_study/study.py status --config ... --output_dir ...   # what is done and missing
    python examples/pretraining_study/study.py report --config ... --output_dir ...   # tables, figures and docs/pretraining_study.md

`run` does the stages that are not done, the cells of the claims first. It may be stopped at any time, and started several times at
once on the same folder: each process takes the next stage that nobody works on. `report` first gathers the results of the folder, if
it is there, into one small file of records, from which everything else is built.
"""

import argparse
import json
import os
import time
import traceback
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from plan import Stage, plan


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "status", "report"])
    parser.add_argument("--config", type=Path, required=True, help="cpu.json, gpu.json or your own.")
    parser.add_argument("--output_dir", type=Path, required=True, help="The results folder.")
    parser.add_argument("--data", type=Path, help="Folder that holds the data sets, each a folder for load_dataset.")
    parser.add_argument("--only", default="", help="Stages whose name starts with this.")
    parser.add_argument(
        "--docs", type=Path, default=Path(__file__).resolve().parents[2] / "docs", help="Where the report lies."
    )
    args = parser.parse_args(arguments)
    config = json.loads(args.config.read_text())
    stages = plan(config)
    check_settings(stages, args.output_dir)
    if args.command == "status":
        print(status(stages, args.output_dir))
        return
    if args.command == "report":
        report(config, stages, args)
        return
    if args.data is None:
        parser.error("`run` needs --data, the folder that holds the data sets.")
    run(stages, args.output_dir, args.data, args.only)


def report(config: dict[str, Any], stages: list[Stage], args: argparse.Namespace) -> None:
    """Everything that a reader sees, from the records."""
    from cells import collect
    from report import build, gallery

    scale = args.config.stem
    records = args.docs / "results" / f"pretraining_study-{scale}.jsonl"
    pictures = args.docs / "figures" / "pretraining_study" / scale
    if args.output_dir.exists():
        collect(stages, args.output_dir, records)
    elif not records.exists():
        raise SystemExit(
            f"There is nothing to report: neither {args.output_dir} nor {records} exists. Run the study first."
        )
    page, summary = args.docs / "pretraining_study.md", args.docs / "results" / "pretraining_study.json"
    unused = build(config, scale, records, page, pictures, summary)
    if args.data is not None:
        gallery(config, args.output_dir, args.data, pictures / "gallery.png")
    print(status(stages, args.output_dir), f"Tables without a place in the report: {unused or 'none'}", sep="\n")


def run(stages: list[Stage], output: Path, data: Path, only: str = "") -> None:
    """Work until nothing is left; stages that another process works on are waited for."""
    from stages import Study

    study = Study(output, data)
    study.check(stages)
    wanted = _with_needs(stages, only)
    failed: dict[str, None] = {}  # in order
    while missing := [stage for stage in wanted if stage.name not in failed and not _done(stage, output)]:
        ready = [stage for stage in missing if not failed.keys() & set(stage.needs)]
        failed |= {stage.name: None for stage in missing if failed.keys() & set(stage.needs)}
        if ready and not any(_try(stage, study, output, failed) for stage in ready):
            time.sleep(5)  # what is left needs a stage that another process works on
    if failed:
        raise SystemExit(
            f"{len(failed)} stages failed, or need one that did; the first: {next(iter(failed))}. Mend the cause and run again."
        )


def _with_needs(stages: list[Stage], only: str) -> list[Stage]:
    """The stages whose name starts so, and all that they need, in order."""
    wanted: set[str] = set()
    for stage in reversed(stages):
        if stage.name.startswith(only) or stage.name in wanted:
            wanted |= {stage.name, *stage.needs}
    return [stage for stage in stages if stage.name in wanted]


def _done(stage: Stage, output: Path) -> bool:
    return (output / stage.name / "result.json").exists()


def _try(stage: Stage, study: Any, output: Path, failed: dict[str, None]) -> bool:
    """Do a stage if its needs are there and nobody else works on it; whether it was tried."""
    if not all((output / name / "result.json").exists() for name in stage.needs):
        return False
    needs = {name: read(output / name / "result.json") for name in stage.needs}
    folder = output / stage.name
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            check_settings([stage], output)  # another process may have begun it with another configuration
            if not _done(stage, output):
                _write(folder / "settings.json", stage.settings)
                print(f"{time.strftime('%H:%M:%S')} {stage.name}", flush=True)
                _write(folder / "result.json", study.run(stage, needs))
    except Timeout:
        return False
    except Exception:  # the other stages can still be done
        traceback.print_exc()
        failed[stage.name] = None
    return True


def check_settings(stages: list[Stage], output: Path) -> None:
    """Refuse a configuration that differs from that of stages already begun.

    Raises:
        SystemExit: naming each such stage and what differs.
    """
    changed = []
    for stage in stages:
        before = read(output / stage.name / "settings.json")
        if before is not None and before != stage.settings:
            was, now = _flat(before), _flat(stage.settings)
            keys = sorted(key for key in was | now if was.get(key) != now.get(key))
            changed += [f"  {stage.name}: {key} was {was.get(key)!r}, is {now.get(key)!r}" for key in keys]
    if changed:
        raise SystemExit(
            f"The configuration has changed since these stages of {output} were begun:\n" + "\n".join(changed) +
            "\nRestore it, use another --output_dir, or delete those stages and all that need them."
        )  # fmt: skip


def _flat(settings: Any, above: str = "") -> dict[str, Any]:
    if not isinstance(settings, dict):
        return {above: settings}
    return {k: v for key, value in settings.items() for k, v in _flat(value, f"{above}.{key}".lstrip(".")).items()}


def status(stages: list[Stage], output: Path) -> str:
    """How far each kind of stage is."""
    lines = []
    for kind in dict.fromkeys(stage.kind for stage in stages):
        of_kind = [stage for stage in stages if stage.kind == kind]
        done = [result for stage in of_kind if (result := read(output / stage.name / "result.json"))]
        minutes = sum(result["seconds"] for result in done) / 60
        lines.append(f"{kind}: {len(done)} of {len(of_kind)} done, {minutes:.0f} minutes")
    return "\n".join(lines)


def read(path: Path) -> Any:
    """A JSON file, or None where there is none."""
    return json.loads(path.read_text()) if path.exists() else None


def _write(path: Path, value: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(partial, path)


if __name__ == "__main__":
    main()
