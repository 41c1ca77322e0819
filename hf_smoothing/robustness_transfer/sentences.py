"""What the findings of an analysis say, one paragraph per section of its page."""

from __future__ import annotations

import numpy as np

from hf_smoothing.robustness_transfer.findings import (
    CKA_DIFFERENCE,
    FEW,
    FEW_FOR_CKA,
    closeness,
    frequency_gap,
    radius_text,
    robustness,
    universal,
    unmatched,
    verdict_of,
)
from hf_smoothing.robustness_transfer.records import Records


def sentences(records: Records) -> dict[str, str]:
    """One paragraph per section: what was found, by which criterion."""
    said: dict[str, str] = {}
    tested, cause = robustness(records), unmatched(records)
    if tested:
        words = {
            "less": "less robust than the standard one",
            "more": "more robust than the standard one",
            "as": "not significantly different from the standard one",
            "few": f"not judged, since {cause}," if cause else f"not judged, with fewer than {FEW} such images,",
        }
        groups: dict[str, list[str]] = {}
        for one in tested:
            groups.setdefault(one.verdict, []).append(f"{one.attack} ({one.norm})")
        parts = [f"{words[verdict]} under {', '.join(names)}" for verdict, names in groups.items()]
        said["robustness"] = (
            "At matched accuracy, that is on the images which both get right without an attack, the finetuned network is "
            + "; ".join(parts)
            + ". Criterion: the paired difference of the areas under the two curves has p < 0.05; each attack is one of "
            f"{len(tested)} comparisons, uncorrected."
        )
    for fooled in universal(records):
        verdict = {
            "more": "fools the finetuned network more often than the standard one: a sign that it has kept what fools the pretrained network",
            "less": "fools the finetuned network less often than the standard one",
            "as": "shows no significant difference in how often it fools the finetuned and the standard network",
            "few": f"was tried on too few images (fewer than {FEW}) to say whether it fools the finetuned network more often than the standard one",
        }[verdict_of(fooled.carried)]
        said[f"universal {fooled.norm}"] = (
            f"A perturbation crafted on the pretrained network ({fooled.norm}, radius {radius_text(fooled.norm, fooled.epsilon)}) {verdict}, over and above what a random one of "
            f"its size does (difference {100 * fooled.carried.value:+.1f} points, 95% interval {100 * fooled.carried.low:+.1f} to "
            f"{100 * fooled.carried.high:+.1f}). A network that is fooled more easily by anything would show the same: compare the other rows."
        )
    apart, images = closeness(records)
    if len(apart) and images < FEW_FOR_CKA:
        said["similarity"] = f"CKA of {images} images is too noisy for a verdict, which takes at least {FEW_FOR_CKA}."
    elif len(apart):
        said["similarity"] = (
            f"In {int((apart > CKA_DIFFERENCE).sum())} of {len(apart)} layers the finetuned network sees clean images more as the pretrained one does "
            f"than the standard network (CKA higher by more than {CKA_DIFFERENCE}; the largest difference is {apart[np.abs(apart).argmax()]:+.2f})."
        )
    gaps = {part: frequency_gap(records, part, at_matched_accuracy=True) for part in ("low", "high")}
    texts = []
    for part, gap in gaps.items():
        if gap is not None:
            word = {
                "more": "right more often than",
                "less": "right less often than",
                "as": "not significantly more or less often right than",
                "few": f"not judged, on fewer than {FEW} images, against",
            }[verdict_of(gap)]
            texts.append(
                f"on {part} frequencies alone the finetuned network is {word} the standard one ({100 * gap.value:+.1f} points, 95% interval "
                f"{100 * gap.low:+.1f} to {100 * gap.high:+.1f})"
            )
    if cause and any(key.kind == "frequency" for key in records):
        said["frequency"] = f"Not judged at matched accuracy: {cause}."
    elif texts:
        said["frequency"] = (
            f"Mean over the radii, on the images that both get right unfiltered: {'; '.join(texts)}. A difference counts if p < 0.05, paired over images."
        )
    return said
