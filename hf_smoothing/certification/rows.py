"""Votes and certificates as lines of a run folder."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from torch import Tensor

from hf_smoothing.certification.certificates import Certificate, Counts, Pending, Votes
from hf_smoothing.certification.images import Seen, pixels_in, seen_of
from hf_smoothing.certification.rules import Rule
from hf_smoothing.records import Row, Run, RunError, RunWriter
from hf_smoothing.types import ImageDataset, Item


PARTIAL_SECONDS = 5.0
"""Default of `RowKeeper.partial_seconds`."""


class RowKeeper:
    """Writes what a run comes to know: finished images at once, the votes of unfinished ones every few seconds.

    Args:
        writer: Writer of this rank.
        rule: Rule of the run.
        share: The pair (rank, number of ranks): all ranks know all votes, and each writes down the images whose turn
            is its own.
        partial_seconds: Seconds between two savings of unfinished images; 0 saves after every round. A kill loses at most this much work
            on them, give or take one round.
    """

    def __init__(
        self,
        writer: RunWriter,
        rule: Rule,
        share: tuple[int, int] = (0, 1),
        partial_seconds: float = PARTIAL_SECONDS,
    ) -> None:
        self.writer, self.rule, self.share, self.partial_seconds = writer, rule, share, partial_seconds
        self._turns: dict[int, int] = {}
        self._turn = itertools.count()
        self._unsaved: dict[int, Votes] = {}
        self._saved = time.monotonic()

    def in_turn(self, pending: Iterable[Pending]) -> Iterator[Pending]:
        """Pass on images, the same in the same order on every rank, and give each its turn."""
        for item in pending:
            self._turns[item.votes.index] = next(self._turn)
            yield item

    def keep(self, touched: Sequence[Votes]) -> list[Certificate]:
        """Take note of votes that have changed; returns the certificates that are finished now."""
        finished = []
        for votes in touched:
            mine = self._turns[votes.index] % self.share[1] == self.share[0]
            if self.rule.wanted(votes) == votes.drawn:
                finished.append(self.rule.decide(votes))
                self._unsaved.pop(votes.index, None)
                if mine:
                    self.writer.append(certificate_row(finished[-1], votes.image_sha256))
            elif mine:
                self._unsaved[votes.index] = votes
        if time.monotonic() - self._saved >= self.partial_seconds:
            for votes in self._unsaved.values():
                self.writer.append(_partial_row(votes))
            self._unsaved.clear()
            self._saved = time.monotonic()
        return finished


def certificate_row(certificate: Certificate, image_sha256: str | None = None) -> Row:
    """A finished line of a run folder."""
    row: Row = {
        "index": certificate.index,
        "label": certificate.label,
        "prediction": certificate.prediction,
        "radius": certificate.radius,
        "p_lower": certificate.p_lower,
        "p_upper": certificate.p_upper,
        "certified_targets": list(certificate.certified_targets),
        "draws": certificate.draws,
        "counts_by_look": [_sparse(np.asarray(look)) for look in certificate.counts_by_look],
        "seconds": round(certificate.seconds, 4),
        "image_sha256": image_sha256,
    }
    unused = [key for key in ("p_upper", "image_sha256") if row[key] is None]
    return {key: value for key, value in row.items() if key not in unused}


def _partial_row(votes: Votes) -> Row:
    return {
        "index": votes.index,
        "label": votes.label,
        "partial": True,
        "draws": votes.drawn,
        "num_labels": len(votes.counts_by_look[0]),
        "counts_by_look": [_sparse(look) for look in votes.counts_by_look],
        "seconds": round(votes.seconds, 4),
        "image_sha256": votes.image_sha256,
    }


def restored_votes(index: int, item: Item, partial: Row | None) -> Votes:
    """The votes that an image starts with: none, or those of its partial row."""
    seen = seen_of(item)
    votes = Votes(index, seen.label, image_sha256=seen.image_sha256)
    if partial is not None:
        votes.counts_by_look = [_dense(look, partial["num_labels"]) for look in partial["counts_by_look"]]
        votes.drawn, votes.seconds = partial["draws"], partial["seconds"]
    return votes


def recorded_pixels(dataset: ImageDataset, run: Run, index: int) -> Tensor:
    """The pixels of an image of a run, as the data set gives them.

    Raises:
        ValueError: If they are not those that the row names.
    """
    try:
        item = dataset[index]
    except IndexError:
        item = None
    if item is not None:
        pixels_in(item, index)
    if item is None or seen_of(item).image_sha256 != run.rows[index].get("image_sha256"):
        raise ValueError(
            f"The data set does not hold the images of {run.path}: image {index} is another one or missing. Pass the data set that was "
            "certified, with the same split."
        )
    pixels: Tensor = item["pixel_values"]
    return pixels


def check_same_image(index: int, seen: Seen, recorded: Row, whose: str, run: str = "this run") -> None:
    """Refuse an image that is not the one of its row, or has another label.

    Args:
        index: Index of the image.
        seen: What it is now.
        recorded: Its row, partial or not.
        whose: What holds the image, such as "data set".
        run: What holds the row.

    Raises:
        RunError: The message says which of the two differs.
    """
    if seen.image_sha256 != recorded.get("image_sha256"):
        raise RunError(
            f"Image {index} of the {whose} is not the one that {run} has certified. Resume with the same {whose}, or use another output folder."
        )
    if seen.label != recorded.get("label"):
        here, there = ("no label" if one is None else f"label {one}" for one in (seen.label, recorded.get("label")))
        raise RunError(
            f"Image {index} of the {whose} is the one that {run} has certified, but the label changed: it has {here} here and {there} there. Resume with the "
            "labels that the run has, or use another output folder."
        )


def _sparse(counts: Counts) -> dict[str, int]:
    return {str(k): int(counts[k]) for k in np.flatnonzero(counts)}


def _dense(counts: Mapping[str, int], num_labels: int) -> Counts:
    dense = np.zeros(num_labels, dtype=np.int64)
    for label, count in counts.items():
        dense[int(label)] = count
    return dense
