"""The self-test holds on this machine, and each of its lines fails where the thing that it checks is broken."""

from __future__ import annotations

import re
import subprocess

import numpy as np
import pytest
import torch

from hf_smoothing import statistics
from hf_smoothing.cli import main
from hf_smoothing.noise import GaussianStream, GridStream, grid, streams
from hf_smoothing.records import reading
from hf_smoothing.selftest import CHECKS, battery, folders, run_selftest
from hf_smoothing.selftest.lines import NotApplicable, line_of
from tests.support.processes import run_python
from tests.support.rules import naive_boundaries


def test_every_line_holds_on_this_machine():
    seen = []
    found = run_selftest("cpu", progress=seen.append)
    assert [line.name for line in found.lines] == list(CHECKS)
    assert found.passed and {line.passed for line in found.lines} == {True}, found.lines
    assert tuple(seen) == found.lines
    assert found.bug_report.startswith(f"self-test: {len(CHECKS)} of {len(CHECKS)} ok in ")
    assert "FAILED" not in found.bug_report and "\n" not in found.bug_report


def another_constant(monkeypatch):
    monkeypatch.setattr(grid, "_FIRST", grid._FIRST ^ 2)


def other_scale(stream, factor):
    def plant(monkeypatch):
        right = stream.__init__

        def wrong(self, seed, shape, device="cpu", *, sigma):
            right(self, seed, shape, device, sigma=factor * sigma)

        monkeypatch.setattr(stream, "__init__", wrong)

    return plant


def shared_blocks(monkeypatch):
    right = streams.stream_keys
    monkeypatch.setattr(streams, "stream_keys", lambda seed, image, block: right(seed, image, 0))


def not_outward(monkeypatch):
    monkeypatch.setattr(statistics.binomial, "_rounded_down", lambda bound, k, n, alpha: bound)


def far_too_low(monkeypatch):
    right = statistics.binomial._rounded_down
    monkeypatch.setattr(statistics.binomial, "_rounded_down", lambda *given: right(*given) * (1 - 1e-8))


def no_correction_over_looks(monkeypatch):
    monkeypatch.setattr(statistics.claims, "union_boundaries", naive_boundaries)


def enlarged_radii(monkeypatch):
    right = statistics.claims.l2_radius
    monkeypatch.setattr(statistics.claims, "l2_radius", lambda *given: 1.001 * right(*given))


def plug_in(monkeypatch):
    monkeypatch.setattr(statistics.claims, "lower_bound", lambda k, n, alpha: np.minimum(np.divide(k, n), 1 - 1e-9))


def rows_read_unchecked(monkeypatch):
    monkeypatch.setattr(reading, "_check_rows", lambda run, places: None)


def rows_of_another_run(monkeypatch):
    right = folders.certify_into

    def other(folder, device):
        run = right(folder, device)
        if folder.name != "whole":
            run.rows[3]["draws"] += 1
        return run

    monkeypatch.setattr(folders, "certify_into", other)


def no_kill(monkeypatch):
    monkeypatch.setattr(folders, "START", "raise SystemExit('it lived')")


def one_rank_does_all(monkeypatch):
    words = "folder = pathlib.Path(sys.argv[1]); folder.mkdir(exist_ok=True); (folder / 'certificates-0.jsonl').write_text('{}\\n')"
    monkeypatch.setattr(folders, "START", f"import pathlib, sys; {words}")


PLANTED = {
    "another hash constant": ("golden grid draws", another_constant, r"must have SHA-256 fd87c39734d3..., got"),
    "blocks that share a stream": ("golden float32 draws", shared_blocks, "31 and 32 of seed 0 must be"),
    "grid noise, 1% wide": ("law of grid noise", other_scale(GridStream, 1.01), r"p-value .*, standard deviation 0\.25"),
    "float32 noise, 1% narrow": ("law of float32 noise", other_scale(GaussianStream, 0.99), "does not follow its law"),
    "bounds to the nearest": ("binomial bounds", not_outward, r"bound of \d+ of \d+ must fail with probability"),
    "bounds too cautious": ("binomial bounds", far_too_low, "must be within 1e-09 of the exact one"),
    "no correction over looks": ("stopping rules", no_correction_over_looks, "union bound: radius 0.0 is certified falsely"),
    "votes under other noise": ("votes of a known classifier", other_scale(GridStream, 1.01), "votes in batches of 7 must"),
    "certified under less noise": ("linear classifier", other_scale(GaussianStream, 0.8), "certificates exceed the exact"),
    "radii enlarged": ("linear classifier", enlarged_radii, "must be sigma|must certify"),
    "k / n for a bound": ("linear classifier", plug_in, "mode fixed: .* of 200 certificates exceed"),
    "rows not checked": ("records", rows_read_unchecked, "must be refused, and was read"),
    "another row after a kill": ("kill and resume", rows_of_another_run, r"but images \[3\] differ"),
    "no kill": ("kill and resume", no_kill, "a process that kills itself ended with status 1: it lived"),
    "a rank that fails": ("two ranks", no_kill, "rank 0 ended with status 1: it lived"),
    "one rank does all": ("two ranks", one_rank_does_all, "each of two ranks must write rows"),
}  # fmt: skip


@pytest.mark.parametrize(("line", "plant", "says"), PLANTED.values(), ids=PLANTED)
def test_a_planted_error_fails_its_line_and_the_command(monkeypatch, capsys, line, plant, says):
    monkeypatch.setattr(battery, "CHECKS", {"binomial bounds": lambda device: "", line: CHECKS[line]})
    plant(monkeypatch)
    assert main(["selftest", "--device", "cpu"]) == 1
    *table, report, warning = [text for text in capsys.readouterr().out.splitlines() if text]
    failed = [text for text in table if "FAILED" in text]
    assert len(failed) == 1 and failed[0].startswith(line) and re.search(says, failed[0]), table
    assert f"; FAILED: {line}; hf_smoothing " in report and report.startswith("For a bug report: self-test: ")
    assert warning.startswith("Do not trust")


def test_the_killed_run_had_rows_to_go_on_from_and_false_certificates_are_said_beside_what_is_allowed():
    found = run_selftest("cpu", checks=["kill and resume", "linear classifier"])
    assert re.search(r"killed with [1-7] of 8 rows", found.lines[0].says), found.lines[0]
    assert found.lines[1].says.endswith("(up to 27 are no sign of a fault)"), found.lines[1]


def test_every_line_has_a_planted_error():
    assert {line for line, _, _ in PLANTED.values()} == set(CHECKS)


def test_the_command_prints_a_table_and_a_line_for_bug_reports(monkeypatch, capsys):
    def left_out(device):
        raise NotApplicable("this torch has no torch.distributed")

    monkeypatch.setattr(battery, "CHECKS", {"stopping rules": CHECKS["stopping rules"], "two ranks": left_out})
    assert main(["selftest"]) == 0
    table, other, _, report = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"stopping rules +ok +\d+\.\d s  12 boundaries, false with .*", table)
    assert re.fullmatch(r"two ranks +left out +0\.0 s  this torch has no torch\.distributed", other)
    assert "self-test: 1 of 2 ok in " in report and "; left out: two ranks; " in report


def test_what_a_check_raises_is_its_outcome():
    def broken(device):
        raise ZeroDivisionError("one\nof two lines")

    line = line_of("odd", broken, "cpu")
    assert (line.passed, line.result, line.says) == (False, "FAILED", "ZeroDivisionError: one of two lines")


@pytest.mark.parametrize("device", ["nowhere", "cuda:99", "meta", ""])
def test_an_unknown_device_is_refused(capsys, device):
    assert main(["selftest", "--device", device]) == 2
    said = capsys.readouterr()
    assert not said.out
    assert re.match(
        rf"hf-smoothing selftest: --device must be a device of this machine \(cpu.*\), got '{device}': ", said.err
    )


def test_unknown_checks_are_refused():
    with pytest.raises(ValueError, match="got 'kill and resum'. Did you mean 'kill and resume'"):
        run_selftest("cpu", checks=["kill and resum"])
    with pytest.raises(ValueError, match="got 'x'. There are golden grid draws, "):
        run_selftest("cpu", checks=["x"])
    for given in ([], "binomial bounds"):
        with pytest.raises(
            ValueError, match=f"`checks` must be a list of names of checks, got {re.escape(repr(given))}"
        ):
            run_selftest("cpu", checks=given)


def test_a_process_of_several_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="starts its ranks itself"):
        run_selftest("cpu", checks=["stopping rules"])


@pytest.mark.parametrize("count", ["", "x", "1"])
def test_a_number_of_processes_that_is_none_means_one(count, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", count)
    assert run_selftest("cpu", checks=["stopping rules"]).passed


def test_a_launcher_of_one_process_is_no_fault_of_the_machine(monkeypatch):
    launched = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "23456", "PMI_SIZE": "1"}  # fmt: skip
    for name, value in {**launched, "OMPI_COMM_WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "none"}.items():
        monkeypatch.setenv(name, value)
    found = run_selftest("cpu", checks=["kill and resume"])
    assert found.passed, found.lines


def test_known_answers_are_those_of_the_usual_defaults():
    before, dtype = torch.get_default_dtype(), torch.float64
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            found = run_selftest("cpu", checks=list(CHECKS)[:-3])
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(before)
    assert found.passed, found.lines


def test_a_process_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(folders, "PATIENCE", 0.5)
    monkeypatch.setattr(folders, "START", "import time; time.sleep(60)")
    started = []
    right = subprocess.Popen

    def watched(*words, **options):
        started.append(right(*words, **options))
        return started[-1]

    monkeypatch.setattr(folders.subprocess, "Popen", watched)
    assert "no answer within 0.5 s" in line_of("two ranks", folders.two_ranks, "cpu").says
    assert [process.wait(5) for process in started] == [-9, -9]


def test_the_selftest_works_wherever_it_is_started(tmp_path):
    (tmp_path / "random.py").write_text("raise RuntimeError('not this one')")
    done = run_python("-c", "from hf_smoothing.selftest import run_selftest as r; print(r('cpu', checks=['kill and resume']).passed)",
                      cwd=tmp_path.parent)  # fmt: skip
    assert done.stdout == "True\n", done.stderr
