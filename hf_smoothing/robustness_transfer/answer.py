"""The answer that the page of an analysis begins with: one sentence, and rows for four questions."""

from __future__ import annotations

from collections.abc import Sequence

from hf_smoothing.robustness_transfer.findings import (
    CKA_DIFFERENCE,
    Robustness,
    closeness,
    epsilon_text,
    frequency_lean,
    robustness,
    universal,
    unmatched,
    verdict_of,
)
from hf_smoothing.robustness_transfer.records import Records
from hf_smoothing.robustness_transfer.words import in_words
from hf_smoothing.statistics import Paired


def main_attack(found: Sequence[Robustness]) -> Robustness | None:
    """The comparison that is answered for: PGD in l-infinity where it was made, else the first."""
    return min(found, key=lambda one: (one.attack != "pgd", one.norm != "linf"), default=None)


def answer(records: Records) -> str:
    """Whether the finetuned network is less robust than the standard one, and by how much; "" if it was not attacked."""
    found = robustness(records)
    one = main_attack(found)
    if one is None:
        return ""
    cause = unmatched(records)
    if one.verdict == "few" and cause:
        return f"Not determined: {cause}: no comparison at matched accuracy."
    agree = sum(other.verdict == one.verdict for other in found if other is not one)
    others = (
        f" The same holds under {agree} of {len(found) - 1} other attack{'s' if len(found) > 2 else ''}."
        if len(found) > 1 and one.verdict != "few"  # that others have no verdict either is no agreement
        else ""
    )
    said = in_words("answer", one.verdict, few="too few images for a verdict")
    by = "" if one.difference is None or one.verdict == "few" else f", {in_points(one.difference)} of accuracy"
    largest = epsilon_text(one.norm, one.epsilons[-1])
    return f"{said}{by}: {one.attack} ({one.norm}), mean over radii up to {largest}, on the images that both get right without an attack.{others}"


def questions(records: Records) -> list[list[str]]:
    """Rows of question, evidence with its interval, and verdict; of what was measured."""
    rows = []
    one, cause = main_attack(robustness(records)), unmatched(records)
    few = "too few images right in both" if cause else "too few images"
    if one is not None:
        rows.append([
            "Is it less robust, at matched accuracy?", _evidence(one.difference, f" on {one.matched_images} images", cause),
            in_words("is it less robust?", one.verdict, few=few),
        ])  # fmt: skip
    for fooled in universal(records):
        rows.append([
            f"Do {fooled.norm} perturbations of the pretrained network fool it more?", _evidence(fooled.carried, " beyond a random one"),
            in_words("is it more?", verdict_of(fooled.carried)),
        ])  # fmt: skip
    if (close := closeness(records)) is not None:
        rows.append([
            "Does it see more as the pretrained network does?", f"CKA higher by more than {CKA_DIFFERENCE} in {close.count()}; no interval",
            close.verdict,
        ])  # fmt: skip
    lean = frequency_lean(records, at_matched_accuracy=True)
    if lean is not None or (cause and any(key.kind == "frequency" for key in records)):
        verdict = few if lean is None or cause else in_words("is it more?", verdict_of(lean))
        rows.append([
            "Does it rely more on high than on low frequencies, at matched accuracy?",
            _evidence(lean, " on high frequencies alone, less the same on low ones", cause), verdict,
        ])  # fmt: skip
    return rows


def in_points(found: Paired) -> str:
    """`-5.0 [-7.8, -2.1] points`."""
    return f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}] points"


def _evidence(found: Paired | None, where: str, cause: str = "") -> str:
    """The difference, or why there is none."""
    return cause or ("none matched" if found is None else f"finetuned - standard: {in_points(found)}{where}")
