"""Which claims of a run can be put to another verifier, and what each says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from hf_smoothing.certification.images import whole_numbers
from hf_smoothing.certification.rows import recorded_pixels
from hf_smoothing.data.selection import spread
from hf_smoothing.interval.export.properties import STEPS
from hf_smoothing.interval.search import exact_pixels
from hf_smoothing.records import Run, RunError
from hf_smoothing.types import ImageDataset
from hf_smoothing.units import check_radius, check_whole


@dataclass(frozen=True)
class Claim:
    """One claim of a run: no image of [0, 1] pixels within the radius gets another class.

    Attributes:
        index: Index of the image in the data set.
        label: Its label, None if unknown. No claim depends on it.
        prediction: The class that wins everywhere in the ball.
        radius: Radius of the ball, in [0, 1] pixel units.
    """

    index: int
    label: int | None
    prediction: int
    radius: float


def covers_run_of(run: Run) -> bool:
    """Whether the claims of a run are about float32 runs of the network, not real arithmetic alone.

    Raises:
        RunError: If it holds no claims that a verifier of a float32 network could confirm.
    """
    settings = run.settings
    if settings.get("method") != "interval-bounds":
        raise RunError(
            f"{run.path} must hold deterministic certificates, got the method {settings.get('method')}: those are about a vote over noise, right with probability "
            "1 - alpha, and a verifier reads networks alone. Certify by interval bounds."
        )
    dtype = settings["model"].get("weights_dtype") or "float32"
    if dtype != "float32":
        raise RunError(
            f"{run.path} holds claims about a network in {dtype}, and an ONNX file for verifiers is a float32 network: its weights or constants would be "
            "other numbers, so the claims would not cover it. Call float() and certify that network."
        )
    return bool(settings["rule"]["covers_run"])


def subject_of(covers_run: bool) -> str:
    """What claims are about, in words."""
    return "float32 runs" if covers_run else "real arithmetic"


def claims_of(
    run: Run, *, indices: Sequence[int] | None = None, max_claims: int | None = None, radius: float | None = None
) -> tuple[list[Claim], dict[str, int]]:
    """The claims of a run, and how many images have none, by reason.

    Args:
        run: The run.
        indices: Images to look at; all of the run by default.
        max_claims: Maximum number of claims, evenly spread over those found.
        radius: One radius for all claims, in [0, 1] pixel units, in place of each image's own.

    Raises:
        RunError: If there is no claim at all.
        ValueError: On arguments out of range, or images that the run does not have.
    """
    if max_claims is not None and check_whole(max_claims, "max_claims") < 1:
        raise ValueError(f"`max_claims` must be at least 1, got {max_claims}.")
    if radius is not None and not check_radius(radius, "linf", "radius") >= 1 / STEPS:
        raise ValueError(f"`radius` must be at least 1/{STEPS}, the grid of the exported boxes, got {radius}.")
    if indices is not None:
        indices = whole_numbers(indices)
        if twice := sorted({index for index in indices if indices.count(index) > 1}):
            raise ValueError(
                f"`indices` must name an image once, got {', '.join(map(str, twice[:5]))} more than once."
            )
    if indices is not None and (unknown := [index for index in indices if index not in run.rows]):
        raise ValueError(
            f"`indices` must name images that {run.path} has certified, got {', '.join(map(str, unknown[:5]))}. Its rows name them as 'index'."
        )
    chosen = sorted(run.rows if indices is None else indices)
    left_out: dict[str, int] = {}
    claims = []
    for index in chosen:
        row = run.rows[index]
        own = float(row["radius"])
        if why := _why_not(own, radius):
            left_out[why] = left_out.get(why, 0) + 1
        else:
            claims.append(Claim(index, row.get("label"), row["prediction"], own if radius is None else radius))
    if indices is None and (missing := (run.images_asked or 0) - len(chosen)) > 0:
        left_out["not certified yet"] = missing
    if not claims:
        reasons = ", ".join(f"{count} {why}" for why, count in left_out.items()) or "it has no finished image"
        raise RunError(f"{run.path} has no claim to export: {reasons}. Certify it, or ask for a smaller radius.")
    if max_claims is not None and max_claims < len(claims):
        left_out["beyond the maximum number of claims"] = len(claims) - max_claims
        claims = [claims[place] for place in spread(max_claims, len(claims))]
    return claims, left_out


def _why_not(own: float, radius: float | None) -> str:
    if not own > 0.0:
        return "without a certificate"
    if radius is not None and own < radius:
        return f"certified below the radius {radius:g}"
    return "" if own >= 1 / STEPS else f"with a radius below 1/{STEPS}, too small to be written"


def claimed_pixels(dataset: ImageDataset, run: Run, claim: Claim) -> Tensor:
    """The image of a claim as the run certified it, float64 (1, channels, height, width).

    Raises:
        ValueError: If it is not in the data set.
    """
    return exact_pixels(recorded_pixels(dataset, run, claim.index)[None])
