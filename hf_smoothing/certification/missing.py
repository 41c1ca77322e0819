"""The images that a run has no row of yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from hf_smoothing.certification.alike import trouble_reading
from hf_smoothing.certification.certificates import Pending
from hf_smoothing.certification.images import Seen, check_unchanged, checked_items, is_stream, reading_facts
from hf_smoothing.certification.noise_kinds import choose_noise, off_grid
from hf_smoothing.certification.rows import check_same_image, restored_votes
from hf_smoothing.certification.survey import unreadable_now
from hf_smoothing.pixels import UnreadableImageError, to_unit_pixels
from hf_smoothing.records import Run, RunError
from hf_smoothing.types import Images


class MissingImages:
    """The images that are not finished, with the votes they already have.

    They end before one that cannot be read, so that those before it are finished first.

    Args:
        dataset, chosen: Data set and indices of the run.
        before: What it has recorded so far.
        noise_kind: Kind of noise that the images must be fit for.
        seen: The images that were read before.
        begin: Called once, before the first of them is given.

    Attributes:
        unreadable: The error of the image that ended them, or None.
        total: How many images the data set or stream gave, finished ones among them; None before its end was reached.

    Raises:
        RunError: On reading them, if one is not what was recorded.
        ValueError: On an image off the grid of its noise, or another one than was read before.
    """

    def __init__(
        self,
        dataset: Images,
        chosen: Sequence[int] | None,
        before: Run,
        noise_kind: str,
        seen: Mapping[int, Seen],
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        self.dataset, self.chosen, self.before, self.noise_kind = dataset, chosen, before, noise_kind
        self.seen, self.begin = seen, begin
        self.unreadable: UnreadableImageError | None = None
        self.total: int | None = None

    def trouble(self) -> str:
        """Why the images may be others than those of another rank, in words; "" if nothing is known."""
        if self.unreadable is not None:
            return str(self.unreadable)
        if left_out := trouble_reading(self.dataset, self.chosen):
            return left_out
        ended = self.total is not None and is_stream(self.dataset)
        return f"the stream ended after {self.total} images" if ended else ""

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
        given, begun = 0, False
        for index, item in checked_items(self.dataset, todo):
            given += 1
            recorded = rows.get(index, partials.get(index))
            votes = restored_votes(index, item, None if index in rows else recorded)
            now = Seen(str(votes.image_sha256), votes.label)
            check_unchanged(index, now, self.seen)
            unseen.discard(index)
            if recorded is not None:
                check_same_image(index, now, recorded, "stream" if streamed else "data set")
            if index in rows:
                continue
            pixels = to_unit_pixels(item["pixel_values"][None], f"image {index}")[0]
            if self.noise_kind == "grid":
                choose_noise("grid", off_grid(pixels, f"image {index} lies"))  # the noise was chosen by the first
            if not begun:
                self.begin()
                begun = True
            yield Pending(votes, pixels)
        if gone := unseen.intersection(reading_facts(self.dataset, None).get("unreadable", ())):
            raise unreadable_now(min(gone), "stream", f"the run in {self.before.path}")
        if unseen:
            raise RunError(
                f"The stream ended before image {max(unseen)}, which this run has recorded. Resume with the same stream in the same order, or use another "
                "output folder."
            )
        self.total = given
