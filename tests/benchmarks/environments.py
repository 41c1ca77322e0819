"""Environments of their own for other people's packages whose pins exclude ours: they borrow this one's torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn


ROOT = Path(__file__).resolve().parents[2]


def borrowing_python(name: str, packages: Sequence[str], *options: str) -> Path:
    """The Python of the environment `.venv-NAME` in the repository, made and filled from the package index when it is missing or lacks some.

    Args:
        name: Name after `.venv-`.
        packages: What to install.
        options: Further words for pip.
    """
    folder = ROOT / f".venv-{name}"
    python = folder / "bin" / "python"
    filled = folder / "filled.txt"
    if not filled.exists() or filled.read_text(encoding="utf-8").split("\n") != [*packages]:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *options, *packages], check=True)
        here = next(path for path in sys.path if path.endswith("site-packages"))
        borrowed = next(folder.glob("lib/python*/site-packages")) / "borrowed.pth"
        borrowed.write_text(f"{here}\n{ROOT}\n")
        filled.write_text("\n".join(packages), encoding="utf-8")
    return python


def run_there(name: str, packages: Sequence[str]) -> NoReturn:
    """Run this command again in `borrowing_python`, packages without their dependencies, with the further option `--here`; ends this process."""
    python = borrowing_python(name, packages, "--no-deps")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    sys.exit(subprocess.run([str(python), *sys.argv, "--here"], env=environment, check=False).returncode)
