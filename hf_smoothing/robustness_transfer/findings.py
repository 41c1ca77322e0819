"""From the records of an analysis to figures and to what they say: everything here is counting."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hf_smoothing.attacks import ATTACKS
from hf_smoothing.robustness_transfer.records import Key, Records, from_bits, pair_of
from hf_smoothing.robustness_transfer.robustness import NORMS, area_of_each, area_under_curve, decline_ratio, matched
from hf_smoothing.statistics import Paired, interval, paired_difference


CKA_DIFFERENCE = 0.05
"""Differences of CKA below this are called none: it has no interval here."""
FEW = 30
"""Fewer images than this give no verdict."""
FEW_FOR_CKA = 100
"""The same for CKA, which has no interval here."""


@dataclass(frozen=True)
class Robustness:
    """Two networks under one attack.

    Attributes:
        attack, norm, epsilons: Attack, norm and radii.
        accuracy: Role -> rows of (accuracy, low, high) for each radius, with 95% intervals.
        decline: Role -> decline ratio at each radius.
        area: Role -> mean accuracy over the radii.
        matched: Role -> accuracy at each radius among the images that both get right without an attack.
        matched_images: Number of these images.
        difference: Finetuned - standard of the area, matched and paired image by image.
    """

    attack: str
    norm: str
    epsilons: list[float]
    accuracy: dict[str, list[tuple[float, float, float]]]
    decline: dict[str, list[float]]
    area: dict[str, float]
    matched: dict[str, list[float]]
    matched_images: int
    difference: Paired | None

    @property
    def verdict(self) -> str:
        """ "less", "more", "as" or "few": how robust the finetuned network is beside the standard one, at matched accuracy."""
        return verdict_of(self.difference)


def verdict_of(difference: Paired | None) -> str:
    """ "less" or "more" where p < 0.05, "as" where there is no significant difference, "few" where there are too few images to say."""
    if difference is None or difference.num_images < FEW:
        return "few"
    if not difference.p_value < 0.05:
        return "as"
    return "less" if difference.value < 0.0 else "more"


def robustness(records: Records) -> list[Robustness]:
    """One entry per attack and norm, from the records of the finetuned and the standard network (and the pretrained, if it is there)."""
    found = []
    attacked = {(key.norm, key.attack) for key in records if key.kind == "attack" and key.subject == "finetuned"}
    for norm, attack in [pair for pair in itertools.product(NORMS, ATTACKS) if pair in attacked]:
        keys = {role: Key("attack", role, attack, norm) for role in ("pretrained", "finetuned", "standard")}
        curves = {role: _curve(records, key) for role, key in keys.items()}
        known = {role: curve for role, curve in curves.items() if curve is not None}
        if "standard" not in known:
            continue
        epsilons = records[keys["finetuned"]]["epsilons"]
        pair = matched([known["finetuned"], known["standard"]])
        areas = [area_of_each(epsilons, curve) for curve in pair]
        accuracy = {role: [share(row) for row in curve] for role, curve in known.items()}
        found.append(
            Robustness(
                attack, norm, epsilons, accuracy,
                decline={role: [decline_ratio(rows[0][0], row[0]) for row in rows] for role, rows in accuracy.items()},
                area={role: area_under_curve(epsilons, [row[0] for row in rows]) for role, rows in accuracy.items()},
                matched={role: [float(row.mean()) if row.size else float("nan") for row in curve] for role, curve in zip(("finetuned", "standard"), pair, strict=True)},
                matched_images=pair[0].shape[1],
                difference=paired_difference(areas[0], areas[1]) if pair[0].shape[1] > 1 else None,
            )
        )  # fmt: skip
    return found


def _curve(records: Records, key: Key) -> NDArray[np.bool_] | None:
    return np.array([from_bits(row) for row in records[key]["right"]]) if key in records else None


def share(flags: NDArray[np.bool_]) -> tuple[float, float, float]:
    """A share with its exact 95% interval (Clopper-Pearson)."""
    low, high = interval([int(flags.sum())], len(flags), 0.95)
    return float(flags.mean()), float(low[0]), float(high[0])


@dataclass(frozen=True)
class Universal:
    """Perturbations of one norm crafted on each network and added to the images of each.

    Attributes:
        norm, epsilon: Norm and epsilon of the perturbations.
        fooled: A dictionary (source, target) -> share of changed answers, with its 95% interval; of the sources that were measured.
        carried: By how much more the pretrained network's perturbation than a random one of its size fools the finetuned network, minus
            the same for the standard network; paired.
    """

    norm: str
    epsilon: float
    fooled: dict[tuple[str, str], tuple[float, float, float]]
    carried: Paired


def universal(records: Records) -> list[Universal]:
    """One entry per norm."""
    found = []
    for norm in NORMS:
        sources = ("pretrained", "finetuned", "standard", "random")
        rows = {role: records.get(Key("universal", role, norm=norm)) for role in sources}
        if rows["random"] is None or rows["pretrained"] is None:
            continue
        flags = {
            (source, target): np.array(from_bits(text))
            for source, record in rows.items() if record
            for target, text in record["changed"].items()
        }  # fmt: skip
        gains = [
            flags["pretrained", target].astype(float) - flags["random", target] for target in ("finetuned", "standard")
        ]
        carried = paired_difference(*gains)
        found.append(
            Universal(
                norm, rows["pretrained"]["epsilon"], {pair: share(values) for pair, values in flags.items()}, carried
            )
        )
    return found


def alike(records: Records, kind: str) -> dict[tuple[str, str], list[float]]:
    """CKA of layers of the same number from the front, for each pair of networks, on one kind of image."""
    pairs = records.get(Key("similarity", kind), {})
    return {pair_of(pair): np.diagonal(np.array(record["cka"])).tolist() for pair, record in pairs.items()}


def epsilon_text(norm: str, epsilon: float) -> str:
    """As people write it: l-infinity radii in steps of 255.

    >>> epsilon_text("linf", 0.5 / 255), epsilon_text("l2", 1.5)
    ('0.5/255', '1.5')
    """
    return f"{255 * epsilon:.4g}/255" if norm == "linf" else f"{epsilon:.4g}"


def decimals(value: float, places: int = 2) -> str:
    """A number as tables and figures show it: "-" where there is none.

    >>> decimals(0.256), decimals(-0.001), decimals(float("nan"))
    ('0.26', '0.00', '-')
    """
    return f"{round(value, places) + 0.0:.{places}f}" if np.isfinite(value) else "-"


@dataclass(frozen=True)
class Closeness:
    """Layer by layer from the front: is the finetuned network closer to the pretrained one than the standard network is?

    Attributes:
        apart: By how much CKA with the pretrained network is higher for the finetuned one, float64 (layers,); nan where either has no number.
        images: Number of images.
    """

    apart: NDArray[np.float64]
    images: int

    @property
    def higher(self) -> int:
        """Number of layers in which it is higher by more than `CKA_DIFFERENCE`."""
        return int((self.apart > CKA_DIFFERENCE).sum())

    @property
    def unknown(self) -> int:
        """Number of layers without a number, where one of the networks gives all images the same."""
        return int(np.isnan(self.apart).sum())

    def count(self) -> str:
        """In how many layers it is higher, such as "1 of 5 layers (4 without a number)"."""
        without = f" ({self.unknown} without a number)" if self.unknown else ""
        return f"{self.higher} of {len(self.apart)} layer{'s' if len(self.apart) > 1 else ''}{without}"

    @property
    def verdict(self) -> str:
        """ "yes" and "no" of all layers, "in part" of some; layers without a number decide nothing."""
        if self.images < FEW_FOR_CKA:
            return "too few images"
        if self.higher:
            return "yes" if self.higher == len(self.apart) else "in part"
        return "not determined" if self.unknown else "no"


def closeness(records: Records) -> Closeness | None:
    """What CKA on clean images says; None where it was not measured for both networks."""
    curves = alike(records, "clean")
    near, far = curves.get(("pretrained", "finetuned"), []), curves.get(("pretrained", "standard"), [])
    # Networks may differ in depth.
    apart = np.array([x - y for x, y in zip(near, far, strict=False)], dtype=np.float64)
    counts = [record.get("images", 0) for record in records.get(Key("similarity", "clean"), {}).values()]
    return Closeness(np.where(np.isfinite(apart), apart, np.nan), min(counts, default=0)) if len(apart) else None


def right_unattacked(records: Records, role: str) -> NDArray[np.bool_] | None:
    """Which images a network gets right without an attack; None if it was not attacked."""
    found = [record for key, record in records.items() if key.kind == "attack" and key.subject == role]
    return np.array(from_bits(found[0]["right"][0])) if found and found[0]["epsilons"][0] == 0.0 else None


def unmatched(records: Records) -> str:
    """Why there is no comparison at matched accuracy, if there were enough images but few are right in both networks; otherwise ""."""
    finetuned, standard = (right_unattacked(records, role) for role in ("finetuned", "standard"))
    if finetuned is None or standard is None or len(finetuned) != len(standard):
        return ""
    both, images = int((finetuned & standard).sum()), len(finetuned)
    if images < FEW or both >= FEW:
        return ""
    shares = ", ".join(
        f"{role} {round(100 * float(right.mean()), 1):g}%"
        for role, right in (("finetuned", finetuned), ("standard", standard))
    )
    few = "none" if not both else f"only {both:,}"
    return (
        f"{few} of {images:,} images {'is' if both < 2 else 'are'} right in both networks without an attack ({shares})"
    )


def frequency_gap(records: Records, part: str, *, at_matched_accuracy: bool = False) -> Paired | None:
    """Finetuned - standard of the accuracy on the "low" or the "high" part of the spectrum, mean over the radii, paired over images.

    Args:
        records: Records of the analysis.
        part: Part of the spectrum.
        at_matched_accuracy: Take the images that both get right unfiltered; all images where it was not measured which these are.

    Returns:
        None where it was not measured, or fewer than two images are left.
    """
    found = _on_part(records, part, at_matched_accuracy)
    return None if found is None else paired_difference(found[0], found[1])


def frequency_lean(records: Records, *, at_matched_accuracy: bool = False) -> Paired | None:
    """`frequency_gap` on high less that on low frequencies: above 0 where the finetuned network relies more on high ones, not where it is better at both.

    Args:
        records, at_matched_accuracy: As of `frequency_gap`.
    """
    low, high = (_on_part(records, part, at_matched_accuracy) for part in ("low", "high"))
    # Sums of accuracies: a difference is compared with their rounding.
    return None if low is None or high is None else paired_difference(high[0] + low[1], high[1] + low[0])


def _on_part(records: Records, part: str, at_matched_accuracy: bool) -> list[NDArray[np.float64]] | None:
    """Accuracy of the finetuned and of the standard network on each image, float64 (images,)."""
    sides = [records.get(Key("frequency", role)) for role in ("finetuned", "standard")]
    if None in sides:
        return None
    means = [np.mean([from_bits(entry["right"]) for entry in side[part]], axis=0) for side in sides]  # type: ignore[index]
    right = [right_unattacked(records, role) for role in ("finetuned", "standard")]
    if at_matched_accuracy and right[0] is not None and right[1] is not None and len(right[0]) == len(means[0]):
        means = [mean[right[0] & right[1]] for mean in means]
    return means if len(means[0]) > 1 else None
