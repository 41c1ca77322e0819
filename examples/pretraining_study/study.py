"""Does smoothing transfer? Pretraining x finetuning x certification noise, from scratch to tables.

    python examples/pretraining_study/study.py run --config examples/pretraining_study/cpu.json --data path/to/data --output_dir runs/study
    python examples/pretraining_study/study.py status --config ... --output_dir ...   # what is done and missing
    python examples/pretraining_study/study.py report --config ... --output_dir ...   # tables, figures and docs/pretraining_study.md

`run` does the stages that are not done, the cells of the claims first. It may be stopped at any time, and started several times at
once on the same folder: each process takes the next stage that nobody works on. `report` first gathers the results of the folder, if
it is there, into one small file of records, from which everything else is built.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from plan import plan

from hf_smoothing.stages import status
from hf_smoothing.studies import Command, command_line


def main(arguments: list[str] | None = None) -> None:
    docs = Path(__file__).resolve().parents[2] / "docs"
    command_line(__doc__, docs, plan, work, report, arguments)


def work(given: Command) -> Callable[..., dict[str, Any]]:
    from stages import Study

    return Study(given)


def report(given: Command) -> None:
    """Everything that a reader sees, from the records."""
    from cells import collect
    from report import build, gallery

    records = given.docs / "results" / f"pretraining_study-{given.scale}.jsonl"
    pictures = given.docs / "figures" / "pretraining_study" / given.scale
    collect(given.stages, given.output, records)
    page, summary = given.docs / "pretraining_study.md", given.docs / "results" / "pretraining_study.json"
    build(given.config, given.scale, records, page, pictures, summary, given.output)
    if given.data is not None and any(given.output.glob("certify/*")):
        gallery(given.config, given.output, given.data, pictures / "gallery.png")
    print(status(given.stages, given.output))


if __name__ == "__main__":
    main()
