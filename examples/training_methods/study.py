"""Every training method with the same network, images and number of passes: which certifies most?

    python examples/training_methods/study.py run --config examples/training_methods/cpu.json --data path/to/data --output_dir runs/methods
    python examples/training_methods/study.py status --config ... --output_dir ...
    python examples/training_methods/study.py report --config ... --output_dir ...   # tables, curves and docs/results/training_methods.json

`run` may be stopped at any time, and started several times at once on the same folder.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from plan import plan

from hf_smoothing.studies import Command, command_line


def main(arguments: list[str] | None = None) -> None:
    docs = Path(__file__).resolve().parents[2] / "docs"
    command_line(__doc__, docs, plan, work, report, arguments)


def work(given: Command) -> Callable[..., dict[str, Any]]:
    from work import Work

    return Work(given)


def report(given: Command) -> None:
    from report import build

    build(given)


if __name__ == "__main__":
    main()
