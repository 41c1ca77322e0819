"""Every parser of the library that reads what others wrote, with valid inputs."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from hf_smoothing.certification import certify_dataset
from hf_smoothing.cli import build_parser, verbs_of
from hf_smoothing.cli.config_file import config_of, take_pairs
from hf_smoothing.data.choice import label_map_of
from hf_smoothing.data.labels import class_map
from hf_smoothing.interval import certify_dataset_linf
from hf_smoothing.noise import NoiseMixture
from hf_smoothing.records import RUN_FILE, Run, RunError, check_method
from hf_smoothing.records.reading import run_of, settings_of
from hf_smoothing.reports.grouping import comparable
from hf_smoothing.reports.measured import measure
from hf_smoothing.reports.page import captioned, notes_of, radii_of
from hf_smoothing.reports.published import published_log_of
from hf_smoothing.reports.remarks import default_thresholds
from hf_smoothing.robustness_transfer.records import record_of
from hf_smoothing.training.arguments import read_settings
from hf_smoothing.training.objectives import OBJECTIVES, find_objective
from tests.support.classifiers import Ranges, random_dataset
from tests.support.fuzz_parsers import Target
from tests.support.published import HEADER, LINES


FOLDER = Path("folder-of-a-run")
LOG = Path("sigma_0.50/published.tsv")
NAMES = ["crane", "polar bear", "n01440764 tench, Tinca tinca", "crane", "seven up", "class 5"]
ID2LABEL = dict(enumerate(["tench", "polar_bear", "crane", "crane", "LABEL_7", "class 5"]))

RUNS: dict[str, dict[str, Any]] = {
    "fixed": {"mode": "fixed", "n": 200},
    "runner-up": {"mode": "fixed", "n": 200, "bound": "runner-up", "noise_kind": "gaussian"},
    "targets": {"n": 200, "targets": [0.0, 0.25]},
    "spending": {"n": 200, "spending": True, "targets": [0.0, 0.25], "n0": 0},
    "label-aware": {"n": 200, "targets": [0.0, 0.25], "label_aware": True},
}


def run_seeds() -> list[bytes]:
    """Run folders of every kind as runs write them: the settings in the first line, then the rows."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name, options in RUNS.items():
            made = certify_dataset(
                Ranges(3), random_dataset(3), Path(folder) / name, sigma=0.5, progress=False, **options
            )
            found.append(_blob(made))
        network = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(random_dataset(1)[0]["pixel_values"].numel(), 3)
        ).eval()
        found.append(
            _blob(certify_dataset_linf(network, random_dataset(2), Path(folder) / "linf", largest=0.1, progress=False))
        )
    return found


def _blob(run: Run) -> bytes:
    rows = [run.rows[index] for index in sorted(run.rows)]
    first = rows[0]
    if "counts_by_look" in first:
        rows[0] = {
            "index": first["index"],
            "partial": True,
            "draws": first["draws"],
            "num_labels": 3,
            **{key: first[key] for key in ("label", "counts_by_look", "seconds", "image_sha256")},
        }
    return b"".join(json.dumps(one).encode() + b"\n" for one in (run.settings, *rows))


def _run(data: bytes) -> Run:
    settings, _, rows = data.partition(b"\n")
    return run_of(FOLDER, settings_of(FOLDER / RUN_FILE, settings), {FOLDER / "certificates-0.jsonl": rows})


def _report(data: bytes) -> None:
    """What `hf-smoothing report` writes of a run."""
    run = _run(data)
    check_method(run)
    thresholds = default_thresholds([run])
    radii_of(thresholds, [run])
    for common, members in comparable([run]).items():
        captioned([measure(one, thresholds) for one in members], common, notes_of(members, thresholds)).encode("utf-8")


def _log(data: bytes) -> None:
    run = published_log_of(LOG, data)
    measure(run, default_thresholds([run]))


def _label_map(data: bytes) -> None:
    class_map(NAMES, ID2LABEL, label_map=label_map_of(data, "label_map.json"))


def _config(file: str) -> Any:
    parser = verbs_of(build_parser())["certify"]
    return lambda data: take_pairs(parser, file, config_of(data, file))


def _objective(data: bytes) -> None:
    find_objective("consistency", OBJECTIVES, read_settings(data.decode("utf-8", "surrogateescape")))


def _mixture(data: bytes) -> None:
    NoiseMixture.parse(data.decode("utf-8", "surrogateescape"))


def _analysis(data: bytes) -> None:
    record_of(Path("analysis/one.json"), data)


def targets() -> dict[str, Target]:
    """The parsers by name."""
    runs = run_seeds()
    config = {
        "sigma": 0.25,
        "n": 1000,
        "model": "folder",
        "dataset": "cifar10",
        "targets": [0.0, 0.5],
        "label-aware": True,
    }
    lines = "sigma: 0.25\nn: 1000\nmodel: folder\ntargets: [0.0, 0.5]\nlabel_aware: true\nmode: targets\n"
    mixtures = ["clean", "0.5", "[0.25, 1]", '{"sigmas": [0, 1], "clean": 0.25, "distribution": "uniform"}']
    logs = "\n".join([HEADER, *LINES, ""])
    classes = [b'{"0": 2, "3": 3, "seven up": "LABEL_7"}']
    record = [b'{"settings": {"seed": 0}, "images": 5}']
    return {
        "published logs": Target(_log, [logs.encode(), logs.encode("utf-16")], (RunError,), LOG.name, share=20),
        "run folders": Target(_run, runs, (RunError,), FOLDER.name, share=20),
        "reports of run folders": Target(_report, [*runs[:4], runs[5]], (RunError,), FOLDER.name, share=10),
        "label maps": Target(_label_map, classes, (ValueError,), "label", share=40),
        "configuration files, JSON": Target(_config("options.json"), [json.dumps(config).encode()], (ValueError,), "options.json", share=30),
        "configuration files, YAML": Target(_config("options.yaml"), [lines.encode()], (ValueError,), "options.yaml", share=1),
        "noise mixtures": Target(_mixture, [text.encode() for text in mixtures], (ValueError,), "", share=40),
        "settings of objectives": Target(_objective, [b'{"copies": 2, "weight": 10.0}'], (ValueError,), "objective", share=20),
        "records of an analysis": Target(_analysis, record, (RunError,), "one.json", share=20),
    }  # fmt: skip
