"""A run of interval bounds in the form of the verification competition (VNN-COMP): a network, properties, and a list of both."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from hf_smoothing.certification.classifiers import classifier_device
from hf_smoothing.certification.identity import check_network_of_run
from hf_smoothing.interval.classifier import classify_function, interval_classifier
from hf_smoothing.interval.export.claims import Claim, claimed_pixels, claims_of, covers_run_of, subject_of
from hf_smoothing.interval.export.graph import require_onnx
from hf_smoothing.interval.export.network import run_graph, to_onnx
from hf_smoothing.interval.export.proof import prove_claims
from hf_smoothing.interval.export.properties import box_inside, vnnlib_text
from hf_smoothing.interval.margins import box_around, logits_of
from hf_smoothing.interval.trace import Trace
from hf_smoothing.records import Run, check_writable, write_json
from hf_smoothing.statistics import round_down
from hf_smoothing.types import ImageDataset


if TYPE_CHECKING:
    from onnx import ModelProto


NETWORK, PROPERTIES, INSTANCES, FACTS = "network.onnx", "vnnlib", "instances.csv", "export.json"


@dataclass(frozen=True)
class Exported:
    """What `export_run` wrote.

    Attributes:
        path: The folder.
        claims: The claims, by index.
        left_out: How many images have no claim in the folder, by reason.
        covers_run: Whether the claims are about float32 runs of the network, not real arithmetic alone.
    """

    path: Path
    claims: tuple[Claim, ...]
    left_out: dict[str, int]
    covers_run: bool


def export_run(
    classifier: nn.Module,
    dataset: ImageDataset,
    run: Run,
    output_dir: str | os.PathLike[str],
    *,
    indices: Sequence[int] | None = None,
    max_claims: int | None = None,
    radius: float | None = None,
    timeout: float = 300.0,
) -> Exported:
    """Write the network of a run as ONNX, each claim as VNN-LIB, and `instances.csv`, so that any verifier can check the certificates.

    Guarantee: every claim holds for this network by bounds that were computed again. The box of a property lies within the ball of its claim,
    whether its decimals are read exactly, in float64 or in float32. The ONNX
    file was run on every exported image: its logits lie within the bounds on float32 runs of the network, and its class is that of the claim.

    Args:
        classifier, dataset: Classifier and data set of the run.
        run: A run of `certify_dataset_linf`, from `read_run`.
        output_dir: A new or empty folder.
        indices, max_claims, radius: Which claims, see `claims_of`.
        timeout: Seconds per claim that `instances.csv` grants a verifier.

    Raises:
        ModuleNotFoundError: Without onnx and onnxscript.
        OSError: If the folder cannot be written.
        RunError: If the run holds no such claims, or those of another network, for which they do not hold.
        UnsupportedOperationError: If the network cannot be written as verifiers read it; the message says why.
        ValueError: On arguments out of range, a folder with files in it, or if the run's images are not those of the data set.

    Source: the formats: Brix et al. (2023), *First three years of the international verification of neural networks competition*, arXiv 2301.05815.
    """
    require_onnx()
    covers_run = covers_run_of(run)
    check_network_of_run(interval_classifier(classifier), run)
    claims, left_out = claims_of(run, indices=indices, max_claims=max_claims, radius=radius)
    if not (math.isfinite(timeout) and timeout > 0.0):
        raise ValueError(f"`timeout` must be a positive number of seconds, got {timeout}.")
    folder = Path(output_dir)
    check_empty(folder)
    prove_claims(classifier, dataset, run, claims)
    model = to_onnx(classifier, run.settings["resolution"])
    for claim in claims:
        _check_file(model, classifier, dataset, run, claim)
    _write(folder, model, dataset, run, claims, covers_run)
    facts = {
        "covers_run": covers_run,
        "left_out": left_out,
        "network_sha256": hashlib.sha256((folder / NETWORK).read_bytes()).hexdigest(),
        **{key: run.settings[key] for key in ("rule", "model", "dataset")},
        "claims": [{**asdict(claim), "file": _file(claim)} for claim in claims],
    }
    write_json(folder / FACTS, facts)
    lines = (f"{NETWORK},{_file(claim)},{timeout:g}\n" for claim in claims)
    (folder / INSTANCES).write_text(
        "".join(lines), encoding="ascii"
    )  # the last file, so that it says that all are there
    return Exported(folder, tuple(claims), left_out, covers_run)


def check_empty(folder: Path) -> None:
    """Refuse a folder of an export that cannot be written, or has files in it.

    Raises:
        OSError: If it cannot be written.
        ValueError: If it has files in it.
    """
    check_writable(folder)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"An export needs a new or empty folder, got {folder} with files in it. Choose another one.")


def _write(
    folder: Path, model: ModelProto, dataset: ImageDataset, run: Run, claims: Sequence[Claim], covers_run: bool
) -> None:
    (folder / PROPERTIES).mkdir(parents=True)
    (folder / NETWORK).write_bytes(model.SerializeToString())
    num_labels = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    for claim in claims:
        remarks = (
            f"Image {claim.index}: class {claim.prediction} within l-infinity radius {round_down(claim.radius, 9)}, pixels in [0, 1].",
            f"hf_smoothing claims it of {subject_of(covers_run)}. unsat confirms the claim, sat refutes it.",
            "X: pixels by channel, row and column. Y: logits.",
        )
        lower, upper = box_inside(claimed_pixels(dataset, run, claim), claim.radius)
        text = vnnlib_text(lower, upper, claim.prediction, num_labels, remarks)
        (folder / _file(claim)).write_text(text, encoding="ascii")


def _file(claim: Claim) -> str:
    return f"{PROPERTIES}/image-{claim.index}.vnnlib"


def _check_file(model: ModelProto, classifier: nn.Module, dataset: ImageDataset, run: Run, claim: Claim) -> None:
    """Run the file on the image of a claim: whatever the order of its sums, its logits must be where a float32 run of the network can be."""
    pixels = claimed_pixels(dataset, run, claim)
    logits = run_graph(model, pixels)
    trace = Trace(outward=True, cover_run=True, tolerant=True)
    box = box_around(pixels.to(classifier_device(classifier)), 0.0, trace, dtype=torch.float32, separate=True)
    bounds = logits_of(classify_function(classifier), box)
    trace.forget()
    if logits.shape != bounds.shape or not bool(
        ((logits >= bounds.lower.cpu()) & (logits <= bounds.upper.cpu())).all()
    ):
        raise ValueError(
            f"The ONNX file gives other logits for image {claim.index} than the network, by more than the rounding of a float32 run. Does the network depend on "
            "values of pixels in its code, on how often it was called, or on random numbers?"
        )
    if (answer := int(logits.argmax())) != claim.prediction:
        raise ValueError(
            f"Image {claim.index} is claimed to have class {claim.prediction}, and a float32 run of the file answers {answer}: the claim is of real arithmetic alone. "
            "Certify without cover_run=False."
        )
