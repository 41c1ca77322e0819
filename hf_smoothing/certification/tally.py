"""How far a run is, in draws: the measure of its time, since images need very different numbers of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hf_smoothing.certification.certificates import Certificate, Votes
from hf_smoothing.records import Run
from hf_smoothing.statistics import Outcomes, outcomes


class Tally:
    """Counts images and draws of a run while it is made.

    Args:
        before: What is recorded already.
        images: Number of images in all, None of a stream without an end that is known.
        most: Largest number of draws that an image can need.
        label_aware: Whether the run tests true labels, so that its rows are no certificates.
    """

    def __init__(self, before: Run, images: int | None, most: int, label_aware: bool) -> None:
        self.images, self.most, self.label_aware = images, most, label_aware
        self._begun = {index: int(row["draws"]) for index, row in before.partials.items()}
        self._finished = sum(int(row["draws"]) for row in before.rows.values())
        self.outcomes = outcomes_of(before)

    @property
    def draws(self) -> int:
        """Number of draws that are made."""
        return self._finished + sum(self._begun.values())

    @property
    def total(self) -> int | None:
        """Number of draws in all: what open images will need is guessed from the mean of the finished ones, or is the most before there are any."""
        if self.images is None:
            return None
        done = self.outcomes.images
        mean = self._finished / done if done else float(self.most)
        begun = sum(max(mean, drawn) for drawn in self._begun.values())
        return round(self._finished + begun + mean * max(self.images - done - len(self._begun), 0))

    def see(self, touched: Sequence[Votes], finished: Sequence[Certificate]) -> int:
        """Take note of a round; returns its number of draws."""
        before = self.draws
        self._begun |= {votes.index: votes.drawn for votes in touched}
        for certificate in finished:
            self._finished += self._begun.pop(certificate.index)
        new = outcomes([c.prediction for c in finished], [c.radius for c in finished])
        self.outcomes = Outcomes(*(old + more for old, more in zip(self.outcomes, new, strict=True)))
        return self.draws - before

    def facts(self) -> dict[str, Any]:
        """What is shown beside: images, and how many of them are certified and abstained on."""
        done = self.outcomes
        images = f"{done.images}" if self.images is None else f"{done.images}/{self.images}"
        if self.label_aware:
            return {"images": images, "reached": done.certified}
        return {"images": images, "certified": done.certified, "abstained": done.abstained}


def outcomes_of(run: Run) -> Outcomes:
    """How many finished images of a run came out how."""
    rows = run.rows.values()
    return outcomes([row["prediction"] for row in rows], [row["radius"] for row in rows])


def outcome_text(run: Run) -> str:
    """What a run has shown of its images, in words.

    Args:
        run: Run from `read_run`.
    """
    found = outcomes_of(run)
    if run.settings.get("label_aware"):
        return (
            f"{found.certified} reach a radius above 0 for their true class (label-aware evaluation: no certificates)"
        )
    parts = {
        "certified with a radius above 0": found.certified,
        "answered with radius 0": found.answered - found.certified,
        "abstained": found.abstained,
    }
    return ", ".join(f"{count} {what}" for what, count in parts.items() if count)
