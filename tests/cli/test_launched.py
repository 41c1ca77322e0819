"""Under a launcher that has started several processes, commands that work on one leave it to rank 0."""

from __future__ import annotations

import os

import pytest

from hf_smoothing.cli import main
from hf_smoothing.cli.launched import NAMES, ON_ALL


@pytest.fixture
def launched(monkeypatch):
    def as_rank(rank: int, count: int = 2) -> None:
        for name, value in zip(NAMES, (rank, rank, count, count), strict=True):
            monkeypatch.setenv(name, str(value))

    return as_rank


@pytest.mark.parametrize("words", [["env"], ["report", "no-such-run"], ["attack", "no-such-run"]])
def test_other_ranks_say_one_line_and_end_well(launched, capsys, words):
    launched(1)
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"hf-smoothing {words[0]} works on one process: rank 1 of 2 leaves it to rank 0.\n"


def test_rank_0_works_and_waits_for_nobody(launched, capsys):
    launched(0)
    assert main(["report", "no-such-run"]) == 2
    assert "no-such-run" in capsys.readouterr().err
    assert not os.environ.keys() & set(NAMES)


@pytest.mark.parametrize("command", ON_ALL)
def test_shared_commands_go_on_on_all(launched, capsys, command):
    launched(1)
    with pytest.raises(SystemExit):
        main([command, "--no-such-option"])
    assert "leaves it to" not in capsys.readouterr().err
    assert set(NAMES) <= os.environ.keys()


def test_a_place_that_is_no_number_is_none(launched, monkeypatch):
    launched(0)
    monkeypatch.setenv("WORLD_SIZE", "x")
    assert main(["report", "no-such-run"]) == 2


def test_a_cluster_without_a_launcher_is_none(launched, capsys, monkeypatch):
    launched(1)
    monkeypatch.delenv("LOCAL_RANK")
    assert main(["report", "no-such-run"]) == 2
