"""The tutorials as programs: run as a reader runs them, with what they print kept, and as notebooks.

python -m examples.studies.tutorials run          # docs/results/tutorials.json: what each step printed, and its time; some minutes
python -m examples.studies.tutorials notebooks    # examples/notebooks, from the pages alone
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from examples.studies.command import DOCS
from hf_smoothing.records import read_json, write_json


ROOT = DOCS.parent
NOTEBOOKS = ROOT / "examples" / "notebooks"
NAMES = ("your_images", "a_model_you_have", "train_at_a_tradeoff", "linf")
STEPS = {"python": "python", "": "command"}
"""By the language of a block, what a reader runs; `output` shows what that prints, and other blocks are to be read."""
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!\w+:|#)([^)]+)\)")
INSTALL = """# No package registry has hf_smoothing yet: this line is set when it is released. Until then, name a wheel or a clone instead.
%pip install --quiet "hf_smoothing[{extras}]"
"""
ROOT_OF_A_CLONE = """# The trained network is no part of the package: it lies in the root of a clone.
%cd ../..
"""
END = "<end of the block>\n"
RUNNER = f"""import json, sys
space = {{"__name__": "__main__"}}
for line in sys.stdin:
    exec(compile(json.loads(line), "<tutorial>", "exec"), space)
    print({END!r}, end="", flush=True)
"""


class Part(NamedTuple):
    """A piece of a page.

    Attributes:
        kind: "text" (Markdown), "python", "command" (lines for a shell), or "output" (what the step before prints).
        body: Its text, without the fence.
    """

    kind: str
    body: str


def parts(page: str) -> list[Part]:
    """A page in pieces; a block that is only to be read stays in its text."""
    found: list[Part] = []
    end = 0
    for block in BLOCK.finditer(page):
        language, body = block.groups()
        kind = STEPS.get(language, language)
        if kind in ("python", "command", "output"):
            found += [Part("text", page[end : block.start()]), Part(kind, body)]
            end = block.end()
    return [part for part in [*found, Part("text", page[end:])] if part.body.strip()]


def read(name: str) -> list[Part]:
    """The pieces of a tutorial."""
    return parts((DOCS / "tutorials" / f"{name}.md").read_text(encoding="utf-8"))


def expected(page: Sequence[Part]) -> list[tuple[int, str]]:
    """For each shown output, the number of the step that prints it, and the text."""
    steps = 0
    found = []
    for part in page:
        steps += part.kind in ("python", "command")
        if part.kind == "output":
            found.append((steps - 1, part.body))
    return found


def needs_a_clone(page: Sequence[Part]) -> bool:
    """Whether a step takes a model of the repository, which the package does not bring along."""
    return any("model_cards/" in part.body for part in page if part.kind in ("python", "command"))


def run(page: Sequence[Part], folder: Path) -> Iterator[str]:
    """Each step in turn, in one Python process and in shells beside it; yields what it printed.

    Args:
        page: The pieces of a tutorial.
        folder: Where it runs: an empty folder, or one with `model_cards` in it, as the root of a clone, where the page needs that.

    Raises:
        RuntimeError: If a step fails.
    """
    if needs_a_clone(page):
        (folder / "model_cards").symlink_to(ROOT / "model_cards")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "TQDM_DISABLE": "1"}
    options: dict[str, Any] = {"cwd": folder, "env": environment, "text": True, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", RUNNER], stdin=subprocess.PIPE, **options) as python:
        assert python.stdin is not None and python.stdout is not None
        for kind, body in page:
            if kind == "python":
                python.stdin.write(json.dumps(body) + "\n")
                python.stdin.flush()
                lines: list[str] = []
                while not lines or (lines[-1] and not lines[-1].endswith(END)):
                    lines.append(python.stdout.readline())
                if not lines[-1]:
                    raise RuntimeError(f"A block of the tutorial fails: {body}")
                yield "".join(lines).removesuffix(END)
            if kind == "command":
                words = body.replace("hf-smoothing ", f"{sys.executable} -m hf_smoothing.cli ")
                yield subprocess.run(["bash", "-ec", words], check=True, **options).stdout
        python.stdin.close()


def measure(docs: Path, names: Sequence[str] = NAMES) -> None:
    """Run the tutorials, and write down what they print and how long they take."""
    import torch

    file = docs / "results" / "tutorials.json"
    record = read_json(file) or {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            start, before = time.perf_counter(), os.times()
            printed = list(run(read(name), Path(folder)))
            after = os.times()
            cpu = sum(after[2:4]) - sum(before[2:4])
            record[name] = {
                "printed": [text.replace(folder + "/", "") for text in printed],
                "seconds": round(time.perf_counter() - start, 1),
                "cpu_seconds": round(cpu, 1),
                "threads": torch.get_num_threads(),
                "command": "python -m examples.studies.tutorials run",
            }
        write_json(file, record)


def first_cell(page: Sequence[Part]) -> str:
    """What a notebook needs before its first step: the package with the extras of the page, and the root of a clone."""
    extras = "plots,export" if any("interval.export" in part.body for part in page) else "plots"
    return INSTALL.format(extras=extras) + (ROOT_OF_A_CLONE if needs_a_clone(page) else "")


def notebook(name: str) -> dict[str, Any]:
    """A tutorial as a notebook, without output: nbformat 4.5."""
    page = read(name)
    cells = [_cell(0, page[0]), _cell(1, Part("python", first_cell(page)))]
    cells += [_cell(number, part) for number, part in enumerate(page[1:], start=2)]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def _cell(number: int, part: Part) -> dict[str, Any]:
    head = {"id": f"cell-{number}", "metadata": {}}
    if part.kind in ("python", "command"):
        body = part.body if part.kind == "python" else re.sub(r"^(?=\S)", "!", part.body, flags=re.MULTILINE)
        return {"cell_type": "code", "execution_count": None, **head, "outputs": [], "source": _lines(body)}
    body = f"It prints:\n\n```text\n{part.body}```" if part.kind == "output" else part.body
    return {"cell_type": "markdown", **head, "source": _lines(LINK.sub(r"](../../docs/tutorials/\1)", body))}


def _lines(text: str) -> list[str]:
    return text.strip("\n").splitlines(keepends=True)


def notebooks(folder: Path = NOTEBOOKS) -> None:
    """Write a notebook for each tutorial."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        text = json.dumps(notebook(name), indent=1, ensure_ascii=False)
        (folder / f"{name}.ipynb").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "notebooks"])
    parser.add_argument("names", nargs="*", default=NAMES, help="Tutorials to run; all by default.")
    args = parser.parse_args()
    if args.what == "run":
        measure(DOCS, args.names)
    else:
        notebooks()
