"""What happens when a visitor chooses, moves or presses something: from events to parts of the page, without Gradio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL.Image import Image

from examples.space import page
from examples.space.pictures import Chosen, UnusableFileError, read_file, sample
from examples.space.voting import Standing, answers, first_copies, side_by_side, standings
from hf_smoothing import Framing
from hf_smoothing.noise import fresh_seed
from hf_smoothing.pixels import to_unit_pixels
from hf_smoothing.types import Classifier


COPIES = 8
"""Noisy copies that are shown."""


class Parts(NamedTuple):
    """What of the page is new; None leaves a part as it is.

    Attributes:
        picture: The image and its noisy copies.
        panels: The classifiers with their votes and certificates.
        status: A sentence, which is also read aloud.
    """

    picture: str | None = None
    panels: str | None = None
    status: str | None = None


@dataclass(frozen=True)
class Asked:
    """The classifiers of the page.

    Attributes:
        robust, clean: Classifiers with the same classes.
        names: Names of their classes.
        framing: How an image becomes their pixels.
    """

    robust: Classifier
    clean: Classifier
    names: Mapping[int, str]
    framing: Framing

    @property
    def both(self) -> tuple[Classifier, Classifier]:
        """In the order of the page."""
        return self.robust, self.clean


@dataclass
class Visit:
    """What is kept of one visitor.

    Attributes:
        chosen: The image; None after a file that cannot be used.
        turn: Grows with everything the visitor does; a certification ends when it is no longer the one it began with.
        found: Latest votes of each classifier.
    """

    chosen: Chosen | None = None
    turn: int = 0
    found: tuple[Standing | None, ...] = (None, None)

    def next_turn(self) -> int:
        """End the certification in progress, if there is one."""
        self.turn += 1
        return self.turn


def choose(visit: Visit, asked: Asked, image: Image, name: str, sigma: float) -> Parts:
    """The visitor takes an image that the page offers."""
    visit.chosen = sample(image, name, asked.framing)
    return move(visit, asked, sigma)


def upload(visit: Visit, asked: Asked, path: str | Path, sigma: float) -> Parts:
    """The visitor takes an image of their own; a file that cannot be used gets a word instead."""
    try:
        visit.chosen = read_file(path, asked.framing)
    except UnusableFileError as error:
        visit.next_turn()
        visit.chosen = None
        return Parts(page.word(str(error)), "", "")
    return move(visit, asked, sigma)


def move(visit: Visit, asked: Asked, sigma: float) -> Parts:
    """The image at another noise level, before any vote."""
    visit.next_turn()
    if visit.chosen is None:
        return Parts()
    visit.found = (None, None)
    copies = first_copies(visit.chosen.pixels, sigma=sigma, seed=fresh_seed(None), count=COPIES)
    return Parts(page.seen(visit.chosen, copies, sigma), _panels(visit, asked, visit.chosen), "")


def certify(visit: Visit, asked: Asked, sigma: float, n: int) -> Iterator[Parts]:
    """Certify the image with fresh noise, and show after each round what is known; until the visitor does something else.

    Args:
        visit: Whose image; its `turn` may be changed by another thread.
        asked: The classifiers.
        sigma, n: As in `hf_smoothing.certify`.
    """
    turn = visit.next_turn()
    if (chosen := visit.chosen) is None:
        yield Parts(status="Choose an image first.")
        return
    seed = fresh_seed(None)  # with a known one an image could be chosen against the noise
    copies = first_copies(chosen.pixels, sigma=sigma, seed=seed, count=COPIES)
    votes = [answers(classifier, copies) for classifier in asked.both]
    visit.found = (None, None)
    yield Parts(page.seen(chosen, copies, sigma, votes, asked.names), _panels(visit, asked, chosen), "Certifying.")
    runs = [standings(classifier, chosen.pixels, sigma=sigma, n=n, seed=seed) for classifier in asked.both]
    for found in side_by_side(runs):
        if visit.turn != turn:
            return
        visit.found = found
        yield Parts(panels=_panels(visit, asked, chosen))
    yield Parts(status=page.summary(page.ABOUTS, visit.found, asked.names))


def stop(visit: Visit, asked: Asked) -> Parts:
    """End the certification; what was certified so far stands."""
    visit.next_turn()
    if visit.chosen is None or all(found is None or found.finished for found in visit.found):
        return Parts()
    return Parts(panels=_panels(visit, asked, visit.chosen, stopped=True), status="Stopped.")


def _panels(visit: Visit, asked: Asked, chosen: Chosen, stopped: bool = False) -> str:
    pixels = to_unit_pixels(chosen.pixels[None])
    clean = [asked.names[answers(classifier, pixels)[0]] for classifier in asked.both]
    return page.panels(page.ABOUTS, clean, asked.names, chosen.pixels.shape, visit.found, stopped=stopped)
