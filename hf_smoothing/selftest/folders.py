"""Run folders: what is written is what was certified, and neither a kill nor a second rank changes a row."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import hf_smoothing
from hf_smoothing.certification import certify
from hf_smoothing.records import Run, RunError, read_run
from hf_smoothing.selftest.certificates import five_bands
from hf_smoothing.selftest.child import IMAGES, RUN, certify_into, images
from hf_smoothing.selftest.lines import CheckError, NotApplicable


PATIENCE = 120.0
"""Seconds after which a process of the self-test is given up."""

KILLED_AFTER = 2
"""Rows of the run that is killed: the last one loses its end, and one is left to go on from."""

FILE = "certificates-0.jsonl"
START = "import sys; from hf_smoothing.selftest.child import main; main(*sys.argv[1:])"


def records(device: str) -> str:
    """Rows that are read again are the certificates that `certify` gives, and a row that was changed is refused."""
    with _folder() as folder:
        rows = certify_into(folder, device).rows
        pixels = torch.stack([item["pixel_values"] for item in images()])
        options = {key: value for key, value in RUN.items() if key not in ("progress", "partial_seconds")}
        for one in certify(five_bands().to(device), pixels, seed=0, **options):
            row = rows[one.index]
            if (row["prediction"], row["radius"], row["draws"]) != (one.prediction, one.radius, one.draws):
                raise CheckError(f"image {one.index}: `certify` says {one}, the record {dict(row)}")
        _enlarge_a_radius(folder / FILE)
        try:
            read_run(folder)
        except RunError:
            return f"{len(rows)} rows read again; a radius that was enlarged is refused"
        raise CheckError("a row whose radius was enlarged must be refused, and was read")


def _enlarge_a_radius(file: Path) -> None:
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    certified = next(line for line in lines if line.get("radius", 0.0) > 0.0)
    certified["radius"] += 0.01
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def killed(device: str) -> str:
    """A run that is killed between two batches with some rows, and loses the end of its last line, resumes to the rows of an undisturbed one."""
    with _folder() as folder:
        whole = certify_into(folder / "whole", device)
        broken = folder / "broken"
        ((status, said),) = _processes([{}], broken, device, rows=KILLED_AFTER)
        if status not in (-getattr(signal, "SIGKILL", signal.SIGTERM), signal.SIGTERM):
            raise CheckError(f"a process that kills itself ended with status {status}: {said}")
        file = broken / FILE
        os.truncate(file, max(0, file.stat().st_size - 7))
        before = len(read_run(broken).rows)
        if not 0 < before < IMAGES:
            raise CheckError(f"the run must be killed with some of its {IMAGES} rows, and kept {before}")
        _check_same(certify_into(broken, device), whole, "a run that was killed and resumed")
    return f"killed with {before} of {IMAGES} rows, resumed to the rows of an undisturbed run"


def two_ranks(device: str) -> str:
    """Two processes that share a run write the rows of one."""
    if not torch.distributed.is_available():
        raise NotApplicable("this torch has no torch.distributed")
    kind = torch.device(device).type
    apart = kind if kind == "cuda" and torch.cuda.device_count() > 1 else "cpu"
    with _folder() as folder:
        ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in (0, 1)]
        shared = {
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
        }
        if apart == "cpu":
            shared["ACCELERATE_USE_CPU"] = "true"
        for rank, (status, said) in enumerate(_processes([shared | own for own in ranks], folder / "two", apart)):
            if status:
                raise CheckError(f"rank {rank} ended with status {status}: {said}")
        by_rank = [
            len(file.read_text(encoding="utf-8").splitlines())
            for file in (folder / "two").glob("certificates-*.jsonl")
        ]
        if len(by_rank) != 2 or not all(by_rank):
            raise CheckError(f"each of two ranks must write rows, got files of {by_rank} lines")
        _check_same(read_run(folder / "two"), certify_into(folder / "one", device), "a run on two ranks")
    return f"two processes on {apart}, the rows of one on {device}"


def _check_same(found: Run, whole: Run, what: str) -> None:
    rows, expected = ({index: {**row, "seconds": None} for index, row in run.rows.items()} for run in (found, whole))
    if rows != expected:
        other = sorted(index for index in rows.keys() | expected.keys() if rows.get(index) != expected.get(index))
        raise CheckError(f"{what} must have the rows of an undisturbed run, but images {other} differ")


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hf-smoothing-selftest-") as folder:
        yield Path(folder)


def _processes(variables: list[Mapping[str, str]], folder: Path, device: str, rows: int = 0) -> list[tuple[int, str]]:
    """Start one process per mapping of environment variables, all at once; the exit status of each, and its last line on stderr."""
    package = Path(hf_smoothing.__file__).parents[1]
    path = os.pathsep.join([str(package), *filter(None, [os.environ.get("PYTHONPATH")])])
    common = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", START, str(folder), device, str(rows)]
    started = []
    try:
        for number, own in enumerate(variables):
            log = folder.parent / f"process-{number}.log"
            with log.open("w", encoding="utf-8") as stream:
                process = subprocess.Popen(
                    words, cwd=folder.parent, env={**common, **own}, stdout=subprocess.DEVNULL, stderr=stream
                )
            started.append((process, log))
        return [(_status(process), _last_line(log)) for process, log in started]
    finally:
        for process, _ in started:
            process.kill()
            process.wait()


def _status(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(timeout=PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise CheckError(f"a process of the self-test gave no answer within {PATIENCE:g} s") from error


def _last_line(log: Path) -> str:
    return next(
        iter(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]), "it left no message"
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: Any = probe.getsockname()[1]
        return int(port)
