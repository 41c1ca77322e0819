"""The images that a run has no row of yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hf_smoothing.certification.certificates import Pending
from hf_smoothing.certification.images import Fingerprint, check_unchanged, checked_items, is_stream
from hf_smoothing.certification.noise_kinds import choose_noise, off_grid
from hf_smoothing.certification.rows import other_image, restored_votes
from hf_smoothing.pixels import UnreadableImageError, to_unit_pixels
from hf_smoothing.records import Run, RunError
from hf_smoothing.types import Images


_SAME_STREAM = "Resume with the same stream in the same order, with the same labels, or use another output folder."


class MissingImages:
    """The images that are not finished, with the votes they already have.

    They end before one that cannot be read, so that those before it are finished first.

    Args:
        dataset, chosen: Data set and indices of the run.
        before: What it has recorded so far.
        noise_kind: Kind of noise that the images must be fit for.
        hashes: `image_hash` of the images that were read before.
        read: What is to see each image as it is read, and has seen those that `read_recorded` has read; None where nothing is.

    Attributes:
        unreadable: The error of the image that ended them, or None.
        total: How many images the data set or stream gave, finished ones among them; None before its end was reached.

    Raises:
        RunError: On reading them, if a stream is not the one that was recorded.
        ValueError: On an image off the grid of its noise, or another one than was read before.
    """

    def __init__(
        self,
        dataset: Images,
        chosen: Sequence[int] | None,
        before: Run,
        noise_kind: str,
        hashes: Mapping[int, str],
        read: Fingerprint | None = None,
    ) -> None:
        self.dataset, self.chosen, self.before, self.noise_kind = dataset, chosen, before, noise_kind
        self.hashes, self.read = hashes, read
        self.unreadable: UnreadableImageError | None = None
        self.total: int | None = None

    def __iter__(self) -> Iterator[Pending]:
        try:
            yield from self._pending()
        except UnreadableImageError as error:
            self.unreadable = error

    def _pending(self) -> Iterator[Pending]:
        rows, partials = self.before.rows, self.before.partials
        streamed = is_stream(self.dataset)
        # A stream is read from its start, to see that it is the same.
        todo = self.chosen if streamed else [index for index in self.chosen or () if index not in rows]
        unseen = rows.keys() | partials.keys() if streamed else set()
        given = 0
        for index, item in checked_items(self.dataset, todo):
            given += 1
            if self.read is not None:
                self.read.add(index, item)
            recorded = rows.get(index, partials.get(index))
            votes = restored_votes(index, item, None if index in rows else recorded)
            check_unchanged(index, str(votes.image_sha256), self.hashes)
            unseen.discard(index)
            if recorded is not None and recorded.get("image_sha256") != votes.image_sha256:
                kind = "stream" if streamed else "data set"
                raise RunError(f"Image {index} of the {kind} {other_image(index, item, recorded)}. {_SAME_STREAM}")
            if index in rows:
                continue
            pixels = to_unit_pixels(item["pixel_values"][None], f"image {index}")[0]
            if self.noise_kind == "grid":
                choose_noise("grid", off_grid(pixels, f"image {index} lies"))  # the noise was chosen by the first
            yield Pending(votes, pixels)
        if unseen:
            raise RunError(f"The stream ended before image {max(unseen)}, which this run has recorded. {_SAME_STREAM}")
        self.total = given
