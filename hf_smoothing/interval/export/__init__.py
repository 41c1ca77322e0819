"""Certified networks and their claims as files that other verifiers read: ONNX and VNN-LIB."""

from hf_smoothing.interval.export.claims import Claim, claims_of, covers_run_of, subject_of
from hf_smoothing.interval.export.folder import Exported, check_empty, export_run
from hf_smoothing.interval.export.graph import require_onnx
from hf_smoothing.interval.export.network import to_onnx
from hf_smoothing.interval.export.properties import box_inside, vnnlib_text


__all__ = [
    "Claim",
    "Exported",
    "box_inside",
    "check_empty",
    "claims_of",
    "covers_run_of",
    "export_run",
    "require_onnx",
    "subject_of",
    "to_onnx",
    "vnnlib_text",
]
