"""The tutorials, command by command, in an empty folder."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from tests.support.processes import ROOT


BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_your_images(tmp_path):
    """As a reader does it: the script, then each command; the last one prints a table with the rows that the page shows."""
    for name in ("examples", "model_cards"):
        (tmp_path / name).symlink_to(ROOT / name)
    printed = ""
    page = (ROOT / "docs" / "tutorials" / "your_images.md").read_text(encoding="utf-8")
    for language, block in BLOCK.findall(page):
        if language == "python":
            subprocess.run([sys.executable, "-c", block], cwd=tmp_path, check=True)
        for line in block.splitlines() if language == "" else []:
            program, *words = shlex.split(line)
            start = [sys.executable] if program == "python" else [sys.executable, "-m", "hf_smoothing.cli"]
            done = subprocess.run([*start, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-2000:]
            printed = done.stdout
    row = next(line for line in printed.splitlines() if line.startswith("| runs/mine"))
    at_radius = float(row.split("|")[4].split("(")[0])
    assert 15 < at_radius < 45, row  # the page shows 28, with an interval of 19.5 to 37.9
    assert len(list((tmp_path / "my_images" / "test").rglob("*.png"))) == 500
