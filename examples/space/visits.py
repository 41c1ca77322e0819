"""What happens when a visitor chooses, moves or presses something: from events to parts of the page, without Gradio.

Each function takes the time of its event, `when`, by the visitor's clock; an event that a later one overtook changes nothing.
"""

from __future__ import annotations

import math
import threading
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


Found = tuple[Standing | None, ...]
NONE: Found = (None, None)


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


NOTHING_NEW = Parts()


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
        found: Latest votes of each classifier.
        certifying: Whether a certification is under way.
        latest: When the visitor last did something, by the visitor's clock; a certification that began earlier ends.
        shown: The whole page as it should be.
    """

    chosen: Chosen | None = None
    found: Found = NONE
    certifying: bool = False
    latest: float = -math.inf
    shown: Parts = NOTHING_NEW


_LOCK = threading.Lock()


def _overtaken(visit: Visit, when: float) -> bool:
    """Whether the visitor has done something else since; if not, this is the latest."""
    with _LOCK:
        if when < visit.latest:
            return True
        visit.latest = when
        return False


def _show(visit: Visit, when: float, parts: Parts, found: Found = NONE, certifying: bool = False) -> Parts:
    """New parts of the page; all of it as it should be where the event was overtaken, since the two answers may arrive in any order."""
    with _LOCK:
        if visit.latest == when:
            merged = (old if new is None else new for old, new in zip(visit.shown, parts, strict=True))
            visit.shown, visit.found, visit.certifying = Parts(*merged), found, certifying
            return parts
        return visit.shown


def choose(visit: Visit, asked: Asked, image: Image, name: str, sigma: float, when: float) -> Parts:
    """The visitor takes an image that the page offers."""
    if _overtaken(visit, when):
        return visit.shown
    visit.chosen = sample(image, name, asked.framing)
    return move(visit, asked, sigma, when)


def upload(visit: Visit, asked: Asked, path: str | Path, sigma: float, when: float) -> Parts:
    """The visitor takes an image of their own; a file that cannot be used gets a word instead."""
    if _overtaken(visit, when):
        return visit.shown
    try:
        visit.chosen = read_file(path, asked.framing)
    except UnusableFileError as error:
        visit.chosen = None
        return _show(visit, when, Parts(page.word(str(error)), "", ""))
    return move(visit, asked, sigma, when)


def move(visit: Visit, asked: Asked, sigma: float, when: float) -> Parts:
    """The image at another noise level, before any vote."""
    if _overtaken(visit, when) or visit.chosen is None:
        return visit.shown
    copies = first_copies(visit.chosen.pixels, sigma=sigma, seed=fresh_seed(None), count=COPIES)
    return _show(visit, when, Parts(page.seen(visit.chosen, copies, sigma), _panels(asked, visit.chosen), ""))


def certify(visit: Visit, asked: Asked, sigma: float, n: int, when: float) -> Iterator[Parts]:
    """Certify the image with fresh noise, and show after each round what is known; until the visitor does something else.

    Args:
        visit: Whose image; another thread may change it meanwhile.
        asked: The classifiers.
        sigma, n: As in `hf_smoothing.certify`.
        when: Time of the event.
    """
    if _overtaken(visit, when):
        return
    if (chosen := visit.chosen) is None:
        yield _show(visit, when, Parts(status="Choose an image first."))
        return
    seed = fresh_seed(None)  # with a known seed, an image could be chosen against the noise
    copies = first_copies(chosen.pixels, sigma=sigma, seed=seed, count=COPIES)
    votes = [answers(classifier, copies) for classifier in asked.both]
    picture = page.seen(chosen, copies, sigma, votes, asked.names)
    yield _show(visit, when, Parts(picture, _panels(asked, chosen), "Certifying."), certifying=True)
    runs = [standings(classifier, chosen.pixels, sigma=sigma, n=n, seed=seed) for classifier in asked.both]
    found = NONE
    for found in side_by_side(runs):
        yield _show(visit, when, Parts(panels=_panels(asked, chosen, found)), found, certifying=True)
        if visit.latest != when:
            yield visit.shown  # what was under way may have arrived last
            return
    yield _show(visit, when, Parts(status=page.summary(found, asked.names)), found)


def stop(visit: Visit, asked: Asked, when: float) -> Parts:
    """End the certification; what was certified so far stands, and one that was complete gets its last word."""
    if _overtaken(visit, when) or visit.chosen is None or not visit.certifying:
        return visit.shown
    found = visit.found
    complete = all(one is not None and one.finished for one in found)
    panels = _panels(asked, visit.chosen, found, stopped=True)
    return _show(
        visit, when, Parts(panels=panels, status=page.summary(found, asked.names) if complete else "Stopped.")
    )


def _panels(asked: Asked, chosen: Chosen, found: Found = NONE, stopped: bool = False) -> str:
    pixels = to_unit_pixels(chosen.pixels[None])
    clean = [asked.names[answers(classifier, pixels)[0]] for classifier in asked.both]
    return page.panels(chosen, clean, found, asked.names, stopped=stopped)
