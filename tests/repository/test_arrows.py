"""Which room may import which, and that no modules import each other in a circle. What is loaded is asked in fresh processes."""

from __future__ import annotations

import ast
import graphlib
import itertools
import subprocess
import sys
from pathlib import Path

import pytest

import hf_smoothing


ROOT = Path(hf_smoothing.__file__).parent
HEAVY = {"accelerate", "datasets", "evaluate", "matplotlib", "scipy", "torch", "transformers"}

# What a room may import of its siblings.
ARROWS = {
    "types": set(),
    "units": set(),
    "lazy": set(),
    "json_text": set(),
    "spelling": set(),
    "keywords": {"spelling"},
    "drawing": set(),
    "allocator": set(),
    "sample": set(),
    "demo": {"certification", "data", "models", "reports", "training"},
    "html_page": set(),
    "card_file": {"records"},
    "cards": {"card_file", "statistics"},
    "progress": set(),
    "statistics": {"units"},
    "records": {"json_text", "statistics", "units"},
    "pixels": set(),
    "noise": {"json_text", "units"},
    "preprocessing": {"pixels", "units"},
    "certification": {
        "allocator",
        "keywords",
        "lazy",
        "spelling",
        "statistics",
        "noise",
        "progress",
        "records",
        "pixels",
        "types",
        "units",
    },
    "attacks": {"noise", "pixels", "preprocessing", "statistics", "types", "units"},
    "attack_run": {
        "allocator",
        "attacks",
        "certification",
        "data",
        "interval",
        "noise",
        "pixels",
        "progress",
        "records",
        "statistics",
        "types",
    },
    "models": {
        "certification",
        "data",
        "keywords",
        "noise",
        "preprocessing",
        "pixels",
        "spelling",
        "statistics",
        "units",
    },
    "metrics": {"statistics"},
    "interval": {
        "allocator",
        "attacks",
        "certification",
        "data",
        "keywords",
        "models",
        "pixels",
        "preprocessing",
        "progress",
        "records",
        "statistics",
        "training",
        "types",
        "units",
    },
    "audit": {"units"},
    "selftest": {"audit", "certification", "noise", "records", "spelling", "statistics"},
    "reports": {
        "card_file",
        "cards",
        "drawing",
        "html_page",
        "json_text",
        "spelling",
        "statistics",
        "records",
        "units",
    },
    "data": {
        "json_text",
        "keywords",
        "lazy",
        "noise",
        "pixels",
        "preprocessing",
        "progress",
        "spelling",
        "types",
        "units",
    },
    "registration": set(),
    "robustness_transfer": {
        "attacks",
        "certification",
        "drawing",
        "html_page",
        "json_text",
        "models",
        "pixels",
        "progress",
        "records",
        "spelling",
        "statistics",
        "training",
        "types",
        "units",
    },
    "training": {
        "allocator",
        "attacks",
        "card_file",
        "cards",
        "certification",
        "data",
        "json_text",
        "models",
        "noise",
        "pixels",
        "preprocessing",
        "progress",
        "spelling",
        "statistics",
        "types",
        "units",
    },
}


def loaded_by(modules: str) -> set[str]:
    """What stands in `sys.modules` after the import."""
    script = f"import sys; import {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("modules", "forbidden"),
    [
        ("hf_smoothing", HEAVY | {"numpy"}),
        ("hf_smoothing.cli", HEAVY | {"numpy"}),  # help and refusals need none of it
        ("hf_smoothing.statistics", HEAVY - {"scipy"} | {"scipy.stats"}),
        ("hf_smoothing.records", HEAVY),
        ("hf_smoothing.pixels, hf_smoothing.noise, hf_smoothing.preprocessing", HEAVY - {"torch"}),
        ("hf_smoothing.certification", {"datasets", "evaluate", "matplotlib", "transformers"}),
        ("hf_smoothing.attacks", HEAVY - {"torch", "scipy"}),
    ],
)
def test_import_stays_light(modules, forbidden):
    assert not loaded_by(modules) & forbidden


@pytest.mark.parametrize("mode", ["targets", "fixed"])
def test_certifying_a_data_set_needs_no_transformers(tmp_path, mode):
    script = """
import sys, torch
from hf_smoothing.certification import certify_dataset
run = certify_dataset(lambda x: torch.stack([x.sum((1, 2, 3)), -x.sum((1, 2, 3))], 1),
                      [{"pixel_values": torch.zeros(1, 2, 2)}], sys.argv[1], sigma=0.5, n0=2, n=20, progress=False, mode=sys.argv[2])
assert len(run.rows) == 1
print(*sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), mode], capture_output=True, text=True, check=True
    )
    assert not {"transformers", "evaluate", "datasets"} & set(done.stdout.split())


def import_graph(package: Path) -> dict[str, set[str]]:
    """From each module of a package to the modules of it that its text imports: at the top, inside functions, and for types alone.

    A package stands for its `__init__`; the packages around an imported module count only where they are named themselves.
    """
    files = {}
    for file in package.rglob("*.py"):
        parts = file.relative_to(package.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    graph = {}
    for module, file in files.items():
        names = []
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module}: imports are absolute in this package"
                inside = [f"{node.module}.{alias.name}" for alias in node.names]
                names += [name if name in files else node.module for name in inside]
        graph[module] = {name for name in names if name in files}
    return graph


def circle_in(graph: dict[str, set[str]]) -> str:
    """The modules of a circle, each importing the next, or "" where there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return " -> ".join(reversed(error.args[1]))
    return ""


GRAPH = import_graph(ROOT)


def imported_rooms(room: str) -> set[str]:
    inside = [module for module in GRAPH if module.split(".")[1:2] == [room]]
    return {name.split(".")[1] for module in inside for name in GRAPH[module] if "." in name} - {room}


def test_no_top_level_module_is_unknown_to_the_arrows():
    rooms = {path.stem for path in ROOT.iterdir() if (path / "__init__.py").is_file() or path.suffix == ".py"}
    assert rooms - {"__init__", "cli"} == set(ARROWS)  # the command line imports everything


@pytest.mark.parametrize("room", ARROWS)
def test_rooms_import_along_the_arrows(room):
    assert imported_rooms(room) <= ARROWS[room]


def test_neither_modules_nor_arrows_run_in_a_circle():
    assert circle_in(GRAPH) == ""
    assert circle_in(ARROWS) == ""


PLANTED = {
    "at the top": "from planted.room.high import Trainer",
    "of a module": "import planted.room.high",
    "by its name": "from planted.room import high",
    "in a function": "def late():\n    from planted.room.high import Trainer\n    return Trainer",
    "of a type": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from planted.room.high import Trainer",
}


@pytest.mark.parametrize("text", PLANTED.values(), ids=PLANTED)
def test_a_planted_circle_is_found_and_named(tmp_path, text):
    room = tmp_path / "planted" / "room"
    room.mkdir(parents=True)
    for file in (room.parent / "__init__.py", room / "__init__.py"):
        file.write_text("")
    (room / "high.py").write_text("from planted.room.middle import average\n\nclass Trainer: ...\n")
    (room / "middle.py").write_text("from planted.room.low import OWN\n\naverage = OWN\n")
    (room / "low.py").write_text("OWN = 1\n")
    assert circle_in(import_graph(room.parent)) == ""
    (room / "low.py").write_text(f"{text}\nOWN = 1\n")
    modules = circle_in(import_graph(room.parent)).split(" -> ")
    circle = [f"planted.room.{name}" for name in ("high", "middle", "low")]
    assert modules[0] == modules[-1] and set(modules) == set(circle)
    assert all(circle[(circle.index(a) + 1) % 3] == b for a, b in itertools.pairwise(modules))


def test_public_names_resolve_and_unknown_ones_do_not():
    for name in hf_smoothing.__all__:
        assert getattr(hf_smoothing, name) is not None
    with pytest.raises(AttributeError, match="module 'hf_smoothing' has no attribute 'certifi'"):
        _ = hf_smoothing.certifi
