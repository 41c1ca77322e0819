"""Runs written by hand, so that every figure of a report is known."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_smoothing import statistics
from hf_smoothing.records import FORMAT
from hf_smoothing.records.finished import hash_of_images
from hf_smoothing.records.recount import claims_of
from hf_smoothing.records.rows import terms_of


SETTINGS: dict[str, Any] = {
    "method": "randomized-smoothing", "norm": "l2", "rule": {"name": "fixed-n", "n0": 100, "n": 1000}, "sigma": 0.5,
    "alpha": 0.001, "bound": "one-sided", "label_aware": False, "noise_kind": "gaussian", "noise_dtype": "float32", "noise_drawn_by": "torch",
    "threat_model": "any", "dtype": "float32", "channels_last": False, "compile": False, "device_kind": "cpu", "resolution": [3, 16, 16],
    "num_images": 4, "seed": 0, "model": {"id": "tiny"}, "dataset": {"id": "toys", "split": "test", "sha256": "0123456789abcdef"}, "versions": {},
    "informative": {}, "created": "2026-01-01T00:00:00+00:00",
}  # fmt: skip
ROWS = [(0, 0, 0.985), (1, 1, 0.25), (2, -1, 0.0), (3, 1, 0.7)]  # label, prediction, radius


def written_run(folder: Path, rows: Sequence[tuple[int, int, float]] = ROWS, **changes: Any) -> Path:
    """A run folder with these rows.

    Of randomized smoothing each radius is the smallest at least as large that its rule gives for some votes, or the largest of all (of error spending the
    largest target up to it). The hash of the data set that is given stands for its images: two with the same one have the same.
    """
    folder.mkdir(parents=True)
    settings = {"format": FORMAT} | SETTINGS | changes
    images = settings["dataset"].get("sha256", "")
    by_index = {}
    for index, (label, prediction, radius) in enumerate(rows):
        said = {"index": index, "label": label, "prediction": prediction, "radius": radius}
        counted = _counted(settings, label, prediction, radius) if settings["method"] == SETTINGS["method"] else {}
        by_index[index] = said | counted | {"seconds": 0.1, "image_sha256": image_sha256(index, images)}
    settings["dataset"] = {key: value for key, value in settings["dataset"].items() if key != "sha256"}
    if len(rows) == settings["num_images"]:
        settings["dataset"]["sha256"] = hash_of_images(by_index)
    (folder / "run.json").write_text(json.dumps(settings))
    (folder / "certificates-0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in by_index.values()))
    return folder


def image_sha256(index: int, images: str) -> str:
    """What a row says of its image."""
    return f"{images[:8]}{index:08x}"


def _counted(settings: Mapping[str, Any], label: int, prediction: int, radius: float) -> dict[str, Any]:
    """What votes give: the prediction, or an abstention where a label-aware run can give no other."""
    decided = {"rule", "sigma", "alpha", "bound", "label_aware", "resolution", "total_variation"} & settings.keys()
    votes, claims = _every_vote(json.dumps({key: settings[key] for key in sorted(decided)}))
    aware = settings["label_aware"]
    targets = settings["rule"].get("targets", ())
    if "spending" in settings["rule"]["name"]:
        radius = max((target for target in targets if target <= radius), default=0.0)
    fits = claims.answered & (claims.radius >= radius - 1e-9)
    place = int(fits.argmax()) if fits.any() else len(votes) - 1
    if prediction == statistics.ABSTAIN or (aware and prediction != label):
        prediction, place = statistics.ABSTAIN, 0
    top = label if aware or prediction == statistics.ABSTAIN else prediction
    looks = [{str(top if winner else top + 1): count for winner, count in look.items()} for look in votes[place]]
    given = float(claims.radius[place])
    return {
        "prediction": prediction, "radius": radius if abs(given - radius) < 1e-9 else given, "p_lower": float(claims.p_lower[place]),
        **({} if claims.p_upper is None else {"p_upper": float(claims.p_upper[place])}),
        "certified_targets": list(targets[: int(claims.reached[place])]), "draws": sum(sum(look.values()) for look in looks), "counts_by_look": looks,
    }  # fmt: skip


@functools.cache
def _every_vote(settings: str) -> tuple[list[list[dict[int, int]]], statistics.Claims]:
    """The votes of an image with every count of its class (1) against another (0), the fewest first, and what they give."""
    decided = {**SETTINGS, **json.loads(settings)}
    rule = decided["rule"]
    steps = np.diff([0, *rule.get("looks", [rule["n"]])])
    least = rule["n"] // 2 + 1 if not rule["n0"] and not decided["label_aware"] else 0
    votes = []
    for count in range(least, rule["n"] + 1):
        first = [int(step * count / rule["n"]) for step in steps[:-1]]
        shares = zip(steps, [*first, count - sum(first)], strict=True)
        looks = [{1: share, 0: int(step) - share} for step, share in shares]
        votes.append([*([{1: rule["n0"], 0: 0}] if rule["n0"] else []), *looks])
    return votes, claims_of(decided, votes, [1] * len(votes), terms_of(decided))


def short_hash(count: int = 4, images: str = "0123456789abcdef") -> str:
    """What a caption says of the first images of such a data set."""
    return hash_of_images({index: {"image_sha256": image_sha256(index, images)} for index in range(count)})[:8]


LINF: dict[str, Any] = {
    "method": "interval-bounds", "norm": "linf", "deterministic": True, "sigma": None,
    "rule": {"name": "interval bounds", "covers_run": True, "largest": 1.0, "tolerance": 1e-8},
}  # fmt: skip
"""What is other in a run of interval bounds, whose radii are as they are given."""
SEQUENTIAL: dict[str, Any] = {
    "name": "sequential, union bound",
    "n0": 100,
    "n": 1000,
    "targets": [0.0, 0.25],
    "looks": [20, 1000],
}
CURVE = SEQUENTIAL | {"targets": [round(0.05 * k, 12) for k in range(25)]}
"""The whole curve of sigma 0.5: 1,000 draws certify less than 1.25."""
