"""Each claim is proved again, for the network that is exported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hf_smoothing.certification.classifiers import classifier_device, run_dtype
from hf_smoothing.interval.classifier import classify_function
from hf_smoothing.interval.export.claims import Claim, claimed_pixels
from hf_smoothing.interval.export.properties import box_inside
from hf_smoothing.interval.margins import box_between
from hf_smoothing.interval.search import NAMES, bounded, trace_for
from hf_smoothing.records import Run, RunError
from hf_smoothing.types import ImageDataset


AT_ONCE = 16
"""Claims that are bounded together."""


@torch.no_grad()
def prove_claims(classifier: nn.Module, dataset: ImageDataset, run: Run, claims: Sequence[Claim]) -> None:
    """Refuse claims that do not hold for a network: each is bounded once more, as it was certified.

    A run knows its network by its weights and one answer, so it may be that of another one with the same answer there. The boxes are those
    that are written (`box_inside`) for the radius that was certified, a little within the ball: bounds at the very radius may be 0.

    Args:
        classifier: The network, in eval mode.
        dataset, run, claims: Data set, run, and claims of it.

    Raises:
        RunError: The message names the image of the first claim that does not hold.
    """
    classify, device, rule = classify_function(classifier), classifier_device(classifier), run.settings["rule"]
    dtype = run_dtype(classifier)
    for backward, group in _groups(run, claims):
        boxes = [box_inside(claimed_pixels(dataset, run, claim), run.rows[claim.index]["radius"]) for claim in group]
        lower, upper = (torch.cat(ends).to(device) for ends in zip(*boxes, strict=True))
        classes = torch.tensor([claim.prediction for claim in group], device=device)
        trace = trace_for(backward, rule.get("steps", 0), rule["covers_run"])
        box = box_between(lower, upper, trace, dtype=dtype, separate=True)
        for claim, worst in zip(group, bounded(classify, box, classes).worst.tolist(), strict=True):
            if not worst >= 0.0:
                raise RunError(
                    f"The claim of image {claim.index} must hold for the network that is exported, but by the bounds that certified it ({backward}) another class "
                    f"may win by {-worst:.3g}: the network is another one than the run certified. Certify this network."
                )


def _groups(run: Run, claims: Sequence[Claim]) -> Iterator[tuple[str, Sequence[Claim]]]:
    """Claims that the same kind of bounds certified, a few at a time; rows of older runs do not say which, so their tightest is taken."""
    kinds: dict[str, list[Claim]] = {}
    for claim in claims:
        kind = run.rows[claim.index].get("backward") or _kind_of(run.settings["rule"])
        kinds.setdefault(kind, []).append(claim)
    for kind, found in kinds.items():
        for start in range(0, len(found), AT_ONCE):
            yield kind, found[start : start + AT_ONCE]


def _kind_of(rule: Mapping[str, Any]) -> str:
    """The tightest bounds of a run; the first runs said it in the name of their rule alone."""
    named = (kind for kind, text in NAMES.items() if str(rule.get("name")).startswith(f"{text}, for"))
    return str(rule.get("backward") or next(named, "none"))
