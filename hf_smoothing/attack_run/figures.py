"""What an attack on a run found, and how much of it chance explains."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scipy import stats

from hf_smoothing.records import Run
from hf_smoothing.statistics import ABSTAIN, check_alpha


ATTACK_FILE = "attack.json"


@dataclass(frozen=True)
class Attacked:
    """What became of one certificate.

    Attributes:
        index: Index of the image within the run.
        certified: The class that the certificate promises.
        radius: Radius up to which it does.
        distance: Distance of the attacked image from the one that was certified in the norm of the certificate, after rounding to the grid where
            the noise is on it.
        answer: Answer of the certified classifier there, or `ABSTAIN` where `predict` cannot decide.
        draws: Number of draws that this answer took; 0 where the certificate is deterministic.
    """

    index: int
    certified: int
    radius: float
    distance: float
    answer: int
    draws: int

    @property
    def broken(self) -> bool:
        """True if the certified classifier gives another class than the certificate promises."""
        return self.answer not in (self.certified, ABSTAIN)


def allowed_failures(images: int, alpha: float, answers: int, alpha_of_answers: float) -> int:
    """The largest number of broken certificates that chance explains: with true-to-alpha certificates and answers more of them break in at most 1 of 1000 attacks.

    A broken certificate is false, or the answer to its attack is. The false ones are at most those among all images that were begun, each false with
    probability alpha at most: how many of these were certified, and which are attacked, may itself depend on which are false. An answer is
    wrong with probability `alpha_of_answers` at most, whatever is attacked. Both are binomial, each above its bound in at most 1 of 2000 attacks, and the bounds add up.

    Args:
        images: Number of images that the run has begun, abstentions and radii of 0 among them.
        alpha: Failure probability of a certificate; 0 where it is deterministic.
        answers: Number of certificates that were attacked.
        alpha_of_answers: Failure probability of an answer; 0 where it is deterministic.

    Raises:
        ValueError: If one that is not 0 is no failure probability.

    >>> allowed_failures(1000, 0.001, 200, 0.001)
    9
    """
    return _bound(images, alpha) + _bound(answers, alpha_of_answers)


def _bound(count: int, alpha: float) -> int:
    """What a binomial number is above with probability 1/2000 at most."""
    return int(stats.binom.ppf(1.0 - 0.0005, count, check_alpha(alpha))) if alpha else 0


def summary(found: Sequence[Attacked], run: Run, *, alpha: float, **how: Any) -> dict[str, Any]:
    """The figures of an attack, as plain JSON values.

    Args:
        found: Results of `attack_run`.
        run: The run that was attacked.
        alpha: Failure probability of the answers, for smoothing.
        how: Further settings of the attack, to be kept with its figures.

    Raises:
        ValueError: If no certificate was attacked.
    """
    if not found:
        raise ValueError("A summary needs certificates that were attacked, got none. Pass what attack_run returned.")
    promised, mistaken = (0.0, 0.0) if run.settings.get("deterministic") else (run.settings["alpha"], alpha)
    begun = len(run.rows) + len(run.partials)  # which of them have finished may depend on what they came to
    return {
        "certificates": len(found),
        "broken": sum(item.broken for item in found),
        "undecided": sum(item.answer == ABSTAIN for item in found),
        "images_begun": begun,
        "allowed_by_chance": allowed_failures(begun, promised, len(found), mistaken),
        "alpha_of_certificates": promised,
        "alpha_of_answers": mistaken,
        "mean_distance_over_radius": sum(item.distance / item.radius for item in found) / len(found),
        **how,
        "draws": sum(item.draws for item in found),
        "rows": [asdict(item) | {"broken": item.broken} for item in found],
    }


def write_summary(figures: dict[str, Any], run: Run) -> Path:
    """Keep the figures of an attack beside the rows of the run: as attack.json, or attack-2.json and so on where there are some already.

    Returns:
        The file.

    Raises:
        ValueError: If they are no JSON values; nothing is written.
    """
    try:
        text = json.dumps(figures, indent=1, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The figures of an attack must be JSON values, got others ({error}). Convert numbers of numpy or torch with .item()."
        ) from error
    for number in itertools.count(1):
        file = run.path / (ATTACK_FILE if number == 1 else f"attack-{number}.json")
        with contextlib.suppress(FileExistsError), open(file, "x", encoding="utf-8") as stream:
            stream.write(text)
            break
    return file
