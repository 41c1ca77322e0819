"""The figures of the networks with deterministic l-infinity certificates, from the records that lie beside their cards."""

from pathlib import Path
from typing import Any

from examples.studies.verdicts import listed
from hf_smoothing.interval.search import BACKWARD
from hf_smoothing.records import read_json, read_run
from hf_smoothing.reports import measure
from hf_smoothing.reports.tables import table as report_table
from hf_smoothing.statistics import exact_text, radius_text


LINF = {
    "cnn7-linf-cifar10": [0.0, 0.0086274, 0.0172549, 0.0258823, 0.0345098],
    "cnn7-linf-cifar10-8-255": [0.0, 0.0086274, 0.0172549, 0.0258823, 0.0345098],
    "cnn7-linf-cifar10-2-255": [0.0, 0.0039215, 0.0078431],
    "cnn7-linf-mnist": [0.0, 0.1, 0.2, 0.3, 0.4],
}
"""The networks, with the radii of their tables; on CIFAR-10 quarters of 8.8/255 and halves of 2/255."""

WORDS = {
    "none": "intervals certify {:.1f}% of the images",
    "crown-ibp": "with CROWN-IBP it is {:.1f}%",
    "crown": "with CROWN {:.1f}%",
    "optimised": "with optimised bounds {:.1f}%",
}


def linf_table(root: Path, name: str) -> str:
    """Certified accuracy under l-infinity perturbations, and what each kind of bounds adds to it."""
    run = _run(root, name)
    body = report_table([measure(run, LINF[name], name)])
    dearest = run.settings["rule"].get("backward", "none")
    if dearest == "none":
        return body
    largest = run.settings["rule"]["largest"]
    reached = [row for row in run.rows.values() if row["prediction"] == row["label"] and row["radius"] >= largest]
    said, certified = [], 0
    for backward in BACKWARD[: 1 + BACKWARD.index(dearest)]:
        certified += sum(row["backward"] == backward for row in reached)
        said.append(WORDS[backward].format(100 * certified / len(run.rows)))
    return f"{body}\n\nAt {exact_text(largest)} {listed(said)}."


def linf_attack(root: Path, name: str) -> str:
    """What an attack inside the radii came to."""
    found = read_json(root / "model_cards" / name / "records" / "linf" / "attack.json")
    broke = "none" if found["broken"] == 0 else str(found["broken"])
    return f"PGD of {found['steps']} steps with {found['restarts']} restarts inside {found['certificates']:,} of these radii broke {broke}:"


def linf_figures(root: Path, name: str) -> dict[str, Any]:
    """The figures of a network as plain values, accuracies in %."""
    measured = measure(_run(root, name), thresholds=LINF[name])
    shares = {
        "certified_accuracy": measured.curve.accuracy,
        "lower": measured.curve.lower,
        "upper": measured.curve.upper,
    }
    return {
        "images": measured.curve.num_images,
        "norm": "linf",
        "deterministic": True,
        "bounds": measured.settings["rule"].get("backward", "none"),
        "radii": LINF[name],
        **{key: [round(100 * float(share), 1) for share in some] for key, some in shares.items()},
        "acr": float(radius_text(measured.average_radius, "linf")),
    }


def _run(root: Path, name: str) -> Any:
    return read_run(root / "model_cards" / name / "records" / "linf")
