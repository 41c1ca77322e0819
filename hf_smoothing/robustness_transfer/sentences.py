"""What the findings of an analysis say, one paragraph per section of its page."""

from __future__ import annotations

import numpy as np

from hf_smoothing.robustness_transfer.findings import (
    CKA_DIFFERENCE,
    FEW,
    FEW_FOR_CKA,
    Closeness,
    closeness,
    epsilon_text,
    frequency_gap,
    frequency_lean,
    robustness,
    universal,
    unmatched,
    verdict_of,
)
from hf_smoothing.robustness_transfer.records import Records
from hf_smoothing.robustness_transfer.words import in_words


def sentences(records: Records) -> dict[str, str]:
    """One paragraph per section: what was found, by which criterion."""
    said: dict[str, str] = {}
    tested, cause = robustness(records), unmatched(records)
    if tested:
        few = f"since {cause}" if cause else f"with fewer than {FEW} such images"
        groups: dict[str, list[str]] = {}
        for one in tested:
            groups.setdefault(one.verdict, []).append(f"{one.attack} ({one.norm})")
        parts = [
            f"{in_words('robustness', verdict, few=few)} under {', '.join(names)}" for verdict, names in groups.items()
        ]
        said["robustness"] = (
            "At matched accuracy, that is on the images which both get right without an attack, the finetuned network is "
            + "; ".join(parts)
            + ". Criterion: the paired difference of the areas under the two curves has p < 0.05"
            + (f"; each attack is one of {len(tested)} comparisons, uncorrected." if len(tested) > 1 else ".")
        )
    perturbed = universal(records)
    agree = all(verdict_of(fooled.carried) == "more" for fooled in perturbed)
    sign = "a sign that it has kept what fools the pretrained network" + ("" if agree else ", in this norm alone")
    for fooled in perturbed:
        verdict = in_words("universal", verdict_of(fooled.carried), few=f"fewer than {FEW}", sign=sign)
        said[f"universal {fooled.norm}"] = (
            f"A perturbation crafted on the pretrained network ({fooled.norm}, radius {epsilon_text(fooled.norm, fooled.epsilon)}) {verdict}, over and above what a random one of "
            f"its size does (difference {100 * fooled.carried.value:+.1f} points, 95% interval {100 * fooled.carried.low:+.1f} to "
            f"{100 * fooled.carried.high:+.1f}). A network that is fooled more easily by anything would show the same: compare the other rows."
        )
    if (close := closeness(records)) is not None:
        said["similarity"] = _similarity(close)
    gaps = {part: frequency_gap(records, part, at_matched_accuracy=True) for part in ("low", "high")}
    texts = []
    for part, gap in gaps.items():
        if gap is not None:
            word = in_words("frequencies of a part", verdict_of(gap), few=f"fewer than {FEW} images")
            texts.append(
                f"on {part} frequencies alone the finetuned network is {word} the standard one ({100 * gap.value:+.1f} points, 95% interval "
                f"{100 * gap.low:+.1f} to {100 * gap.high:+.1f})"
            )
    if cause and any(key.kind == "frequency" for key in records):
        said["frequency"] = f"Not judged at matched accuracy: {cause}."
    elif texts:
        said["frequency"] = (
            f"Mean over the radii, on the images that both get right unfiltered: {'; '.join(texts)}.{_lean(records)} A difference counts if p < 0.05, paired over "
            "images."
        )
    return said


def _similarity(close: Closeness) -> str:
    if close.images < FEW_FOR_CKA:
        return f"CKA of {close.images} images is too noisy for a verdict, which takes at least {FEW_FOR_CKA}."
    known = close.apart[np.isfinite(close.apart)]
    largest = f"; the largest difference is {known[np.abs(known).argmax()]:+.2f}" if len(known) else ""
    return (
        f"In {close.count()} the finetuned network sees clean images more as the pretrained one does than the standard network (CKA higher by more than "
        f"{CKA_DIFFERENCE}{largest})."
    )


def _lean(records: Records) -> str:
    """Whether the finetuned network relies more on high frequencies, which it does not where it is better at both alike."""
    lean = frequency_lean(records, at_matched_accuracy=True)
    if lean is None or verdict_of(lean) == "few":
        return ""
    word = in_words("high frequencies", verdict_of(lean))
    return (
        f" The difference on high frequencies less that on low ones is {100 * lean.value:+.1f} points, 95% interval {100 * lean.low:+.1f} to "
        f"{100 * lean.high:+.1f}: {word}."
    )
