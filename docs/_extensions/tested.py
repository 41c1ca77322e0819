"""`<!-- tests: ... -->` of the page on how it is tested: what the test files themselves say, read when the site is built."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

from sphinx.application import Sphinx


ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
PAGE = "explanation/how_it_is_tested"
PLACE = re.compile(r"<!-- tests: (\w+) -->\n\(The list is in the built documentation: `make docs`\.\)")


def functions(file: Path) -> list[ast.FunctionDef]:
    """The test functions of a file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]


def is_slow(function: ast.FunctionDef) -> bool:
    """Whether a test is left to `make test-slow`, with all of its cases or with some."""
    return any("pytest.mark.slow" in ast.unparse(mark) for mark in function.decorator_list)


def counts() -> str:
    """A row for each room of tests: functions, and how many of them are slow."""
    rows, total, all_slow = [], 0, 0
    rooms = {file.parent if file.parent != TESTS else file for file in TESTS.rglob("test_*.py")}
    for room in sorted(rooms):
        files = [room] if room.is_file() else sorted(room.glob("test_*.py"))
        found = [function for file in files for function in functions(file)]
        slow = sum(map(is_slow, found))
        rows.append(f"| `{room.relative_to(ROOT)}` | {len(found):,} | {slow:,} |")
        total, all_slow = total + len(found), all_slow + slow
    return "\n".join(
        [
            "| tests | functions | slow, wholly or in part |",
            "|---|---|---|",
            *rows,
            f"| all | {total:,} | {all_slow:,} |",
        ]
    )


def golden() -> str:
    """Every test of known answers, by file."""
    named = {
        file: [function.name for function in functions(file) if "golden" in function.name]
        for file in sorted(TESTS.rglob("test_*.py"))
    }
    return "\n".join(
        f"- `{file.relative_to(ROOT)}`: {', '.join(f'`{name}`' for name in names)}"
        for file, names in named.items()
        if names
    )


def planted() -> str:
    """Errors that tests plant into the self-test and into interval bounds, as their files call them."""
    selftest = TESTS / "selftest" / "test_battery.py"
    interval = TESTS / "interval" / "test_fuzz.py"
    lines = [
        f"- self-test (`{selftest.relative_to(ROOT)}`): {', '.join(_keys(selftest, 'PLANTED'))}",
        f"- interval bounds (`{interval.relative_to(ROOT)}`): {', '.join(_plants(interval))}",
    ]
    return "\n".join(lines)


def _keys(file: Path, name: str) -> list[str]:
    """The keys of a table in a file."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name and isinstance(node.value, ast.Dict):
            return [str(ast.literal_eval(key)) for key in node.value.keys if key is not None]
    raise ValueError(f"{file} must have a table {name}.")


def _plants(file: Path) -> list[str]:
    """The functions that `test_planted_errors_are_found` is given, in words."""
    (test,) = [function for function in functions(file) if function.name == "test_planted_errors_are_found"]
    table = next(mark for mark in test.decorator_list if isinstance(mark, ast.Call))
    rows = table.args[1]
    if not isinstance(rows, ast.List):
        raise ValueError(f"{file}: the planted errors must be a list.")
    return [ast.unparse(row.elts[0]).replace("_", " ") for row in rows.elts if isinstance(row, ast.Tuple)]


MADE: dict[str, Callable[[], str]] = {"counts": counts, "golden": golden, "planted": planted}


def _read(app: Sphinx, name: str, source: list[str]) -> None:
    if name == PAGE:
        source[0] = PLACE.sub(lambda found: MADE[found[1]](), source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True}
