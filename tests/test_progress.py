"""Progress: a bar where it is seen as one, and a line now and then in a log file."""

import ast
import io
import sys

import pytest

from hf_smoothing import progress
from hf_smoothing.progress import Progress, progress_of
from tests.support.processes import ROOT


class Clock:
    """A time that a test sets."""

    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_a_log_gets_a_line_every_thirty_seconds_and_a_last_one(clock, capsys):
    with progress_of("Decoding", 1_000) as bar:
        for _ in range(1_000):
            clock.now += 0.1
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Decoding: 30%, 30") and "images, 30 s so far, about 1 min " in lines[0]
    assert lines[-1] == "Decoding: 1,000 of 1,000 images in 1 min 40 s"
    assert len(lines) == 4 and not any("\r" in line for line in lines)


def test_time_left_is_that_of_what_is_new(clock, capsys):
    bar = Progress("Certifying", 1_000, "draw", initial=800)
    clock.now += 50
    bar.update(50, certified=3)
    assert (
        capsys.readouterr().err
        == "Certifying: 85%, 850 of 1,000 draws, 50 s so far, about 2 min 30 s left, certified 3\n"
    )
    clock.now += 50
    bar.update(50, total=2_000)
    assert "45%, 900 of 2,000 draws, 1 min 40 s so far, about 18 min 20 s left, certified 3" in capsys.readouterr().err


def test_without_a_total_nothing_is_guessed(clock, capsys):
    with progress_of("Certifying", None, "draw") as bar:
        clock.now += 40
        bar.update(10)
    assert capsys.readouterr().err.splitlines() == [
        "Certifying: 10 draws, 40 s so far",
        "Certifying: 10 draws in 40 s",
    ]


def test_a_terminal_gets_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_of("Decoding", 3) as bar:
        for _ in range(3):
            bar.update(broken=1)
    assert (
        "Decoding: 100%" in terminal.getvalue() and "3/3" in terminal.getvalue() and "broken=1" in terminal.getvalue()
    )


def test_what_is_not_shown_says_nothing(monkeypatch, capsys):
    with progress_of("Decoding", 3, shown=False) as bar:
        bar.update(3)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys, "stderr", None)  # as where there is no console
    with progress_of("Decoding", 3) as bar:
        bar.update(3)


def test_every_bar_goes_through_one_home():
    files = [file for folder in ("hf_smoothing", "examples") for file in (ROOT / folder).rglob("*.py")]
    users = set()
    for file in files:
        nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        names = {node.module if isinstance(node, ast.ImportFrom) else alias.name
                 for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}  # fmt: skip
        if any(str(name).split(".")[0] == "tqdm" for name in names):
            users.add(file.name)
    assert users == {"progress.py"}
