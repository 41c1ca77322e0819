"""The command line of a study: run, status, report.

A study is a package with `plan.py` (`plan`: configuration -> stages), `work.py` (`Work`: does a stage), `reports/report.py` (`build`: rebuilds
what a reader sees), configurations such as `cpu.json`, and a `__main__.py` that calls `main`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from examples.studies.stages import Results, Stage, check_settings, run_stages, status


@dataclass(frozen=True)
class Command:
    """What the command line of a study was given.

    Attributes:
        config: Contents of the configuration file.
        scale: Its name, such as "cpu".
        stages: Stages of the study.
        output: The results folder.
        data: Folder of the data sets, or None.
        docs: Folder of the report.
    """

    config: dict[str, Any]
    scale: str
    stages: list[Stage]
    output: Path
    data: Path | None
    docs: Path


DOCS = Path(__file__).resolve().parents[2] / "docs"


USAGE = """{about}

    python -m {package} run --config {folder}/cpu.json --data path/to/data --output-dir runs/{name}
    python -m {package} status --config ... --output-dir ...   # what is done and missing
    python -m {package} report --config ... --output-dir ...   # records, tables, figures and docs/{name}.md

`run` does the stages that are not done. It may be stopped at any time, and started several times at once on the same folder: each
process takes the next stage that nobody works on. `report` first gathers the results of the folder, if it is there, into one small
file of records, from which everything else is built.
"""


def main(package: str, about: str | None, arguments: list[str] | None = None) -> None:
    """The command line of the study in `package`; arguments and errors as `command_line`."""

    # Each part is imported when it is needed, since torch and transformers take seconds.
    def part(name: str) -> Any:
        return import_module(f"{package}.{name}")

    name = package.rsplit(".", 1)[-1]
    command_line(
        USAGE.format(about=about, package=package, folder=package.replace(".", "/"), name=name),
        lambda config: part("plan").plan(config),
        lambda given: part("work").Work(given),
        lambda given: part("report").build(given),
        arguments,
    )


def command_line(
    about: str | None,
    plan: Callable[[dict[str, Any]], list[Stage]],
    work: Callable[[Command], Callable[[Stage, Results], dict[str, Any]]],
    report: Callable[[Command], None],
    arguments: list[str] | None = None,
) -> None:
    """`run`, `status` and `report` of a study.

    Args:
        about: Description for the help text.
        plan: Configuration -> stages.
        work: A function that makes what does a stage; called once, when the data is needed.
        report: A function that rebuilds what a reader sees.
        arguments: Arguments instead of those of the process.

    Raises:
        SystemExit: On wrong arguments, a changed configuration or failed stages.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "status", "report"])
    parser.add_argument("--config", type=Path, required=True, help="cpu.json, gpu.json or your own.")
    parser.add_argument("--output-dir", type=Path, required=True, help="The results folder.")
    parser.add_argument("--data", type=Path, help="Folder that holds the data sets, each a folder for load_dataset.")
    parser.add_argument("--only", default="", help="Stages whose name starts with this.")
    parser.add_argument("--docs", type=Path, default=DOCS, help="Folder of the report.")
    args = parser.parse_args(arguments)
    try:
        config = json.loads(args.config.read_text())
        stages = plan(config)
    except (OSError, json.JSONDecodeError) as error:
        parser.error(f"{args.config} cannot be read: {error}")
    except KeyError as error:
        parser.error(f"{args.config} lacks {error}. Compare it with cpu.json.")
    except ValueError as error:
        parser.error(f"{args.config}: {error}")
    given = Command(config, args.config.stem, stages, args.output_dir, args.data, args.docs)
    if args.command == "status":
        print(status(stages, args.output_dir))
    check_settings(stages, args.output_dir)
    if args.command == "report":
        report(given)
    elif args.command == "run":
        names = sorted({stage.settings["data"] for stage in stages if "data" in stage.settings})
        missing = [name for name in names if args.data is None or not (args.data / name).is_dir()]
        if missing:
            parser.error(
                f"`run` needs --data, a folder that holds {', '.join(names)}; got {args.data}, without {', '.join(missing)}."
            )
        run_stages(stages, args.output_dir, work(given), args.only)
