"""Which room may import which: see the arrows of the design. Each question is asked in a fresh process."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hf_smoothing


ROOT = Path(hf_smoothing.__file__).parent
HEAVY = {"accelerate", "datasets", "evaluate", "matplotlib", "scipy", "torch", "transformers"}

# What a room may import of its siblings.
ARROWS = {
    "units": set(),
    "lazy": set(),
    "spelling": set(),
    "statistics": {"units"},
    "records": {"statistics", "units"},
    "pixels": set(),
    "noise": {"units"},
    "preprocessing": {"pixels"},
    "certification": {"lazy", "spelling", "statistics", "noise", "records", "pixels", "units"},
    "attacks": {"noise", "pixels", "preprocessing", "statistics", "units"},
    "attack_run": {"attacks", "certification", "data", "interval", "noise", "pixels", "records", "statistics"},
    "models": {"certification", "data", "noise", "preprocessing", "pixels", "statistics"},
    "metrics": {"statistics"},
    "interval": {"certification", "data", "pixels", "preprocessing", "records", "statistics", "training"},
    "reports": {"statistics", "records", "units"},
    "data": {"lazy", "spelling", "noise", "preprocessing", "pixels"},
    "registration": set(),
    "robustness_transfer": {"attacks", "certification", "models", "pixels", "records", "statistics", "training"},
    "training": {
        "attacks",
        "certification",
        "data",
        "models",
        "noise",
        "pixels",
        "preprocessing",
        "statistics",
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
        ("hf_smoothing.statistics", HEAVY - {"scipy"}),
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


def imported_rooms(room: str) -> set[str]:
    files = sorted((ROOT / room).rglob("*.py")) if (ROOT / room).is_dir() else [ROOT / f"{room}.py"]
    rooms = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file.name}: imports are absolute in this package"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            rooms |= {name.split(".")[1] for name in names if name.startswith("hf_smoothing.")}
    return {name for name in rooms if (ROOT / name).is_dir() or (ROOT / f"{name}.py").is_file()} - {room}


def test_every_room_has_its_arrows():
    rooms = {path.stem for path in ROOT.iterdir() if (path / "__init__.py").is_file() or path.suffix == ".py"}
    assert rooms - {"__init__", "cli"} == set(ARROWS)  # the command line imports everything


@pytest.mark.parametrize("room", ARROWS)
def test_rooms_import_along_the_arrows(room):
    assert imported_rooms(room) <= ARROWS[room]


def test_public_names_resolve_and_unknown_ones_do_not():
    for name in hf_smoothing.__all__:
        assert getattr(hf_smoothing, name) is not None
    with pytest.raises(AttributeError, match="module 'hf_smoothing' has no attribute 'certifi'"):
        _ = hf_smoothing.certifi
