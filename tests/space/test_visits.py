"""What a visitor does and what the page answers, without a browser."""

import copy
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from examples.space import visits
from examples.space.voting import Standing
from hf_smoothing import Framing


def brightness(bias: float):
    def classify(pixels):
        score = pixels.mean(dim=(1, 2, 3)) - bias
        return torch.stack([-score, score], dim=1)

    return classify


ASKED = visits.Asked(brightness(0.2), brightness(0.9), {0: "dark", 1: "bright"}, Framing(8))
CLOCK = itertools.count()
GREY = Image.fromarray(np.full((8, 8, 3), 128, dtype=np.uint8))


@pytest.fixture
def visit():
    made = visits.Visit()
    parts = visits.choose(made, ASKED, GREY, "grey", 0.25, next(CLOCK))
    assert "Its label is grey" in parts.picture and "No votes yet." in parts.panels and parts.status == ""
    return made


def test_a_certification_shows_votes_then_both_certificates(visit):
    first, *rounds, last = visits.certify(visit, ASKED, 0.25, 1_000, next(CLOCK))
    assert first.status == "Certifying." and first.picture.count("<figcaption>bright<br>dark</figcaption>") == 8
    assert all(parts.picture is parts.status is None for parts in rounds)
    assert "Running estimate" in rounds[0].panels
    assert "Certified: bright within" in rounds[-1].panels and "Certified: dark within" in rounds[-1].panels
    assert last.picture is last.panels is None
    assert last.status.startswith("Robust classifier: bright within l2 radius 0.5")


def test_each_certification_draws_fresh_noise(visit):
    pictures = [next(visits.certify(visit, ASKED, 0.25, 1_000, next(CLOCK))).picture for _ in range(2)]
    assert pictures[0] != pictures[1]


def test_stop_keeps_what_is_certified_so_far(visit):
    running = visits.certify(visit, ASKED, 0.25, 100_000, next(CLOCK))
    next(parts for parts in running if parts.panels and "is certified so far" in parts.panels)
    stopped = visits.stop(visit, ASKED, next(CLOCK))
    assert stopped.status == "Stopped." and "Stopped early: bright within l2 radius" in stopped.panels
    # What comes late shows the page as it should be.
    assert list(running) == [visit.shown] and visit.shown.panels == stopped.panels
    assert next(visits.certify(visit, ASKED, 0.25, 1_000, next(CLOCK))).status == "Certifying."


@pytest.mark.parametrize("rounds", range(1, 5))
def test_wherever_it_is_stopped_the_page_says_so_to_the_end(visit, rounds, monkeypatch):
    """Before the first votes; with one classifier finished and the other not begun, or not finished; with both finished, before the last word."""
    counted = {ASKED.robust: [(20, True)], ASKED.clean: [(10, False), (20, True)]}

    def standings(classifier, *_, **__):
        return (Standing((drawn, 0), drawn, 20, None, finished) for drawn, finished in counted[classifier])

    monkeypatch.setattr(visits, "standings", standings)
    running = visits.certify(visit, ASKED, 0.25, 1_000, next(CLOCK))
    for _ in range(rounds):
        assert next(running).status in ("Certifying.", None)
    complete = rounds == 4
    stopped = visits.stop(visit, ASKED, next(CLOCK))
    assert stopped.status == ("Robust classifier: abstained. Clean classifier: abstained." if complete else "Stopped.")
    assert "No votes yet" not in stopped.panels and "being counted" not in stopped.panels
    assert stopped.panels.count("Stopped before the first votes.") == max(0, 3 - rounds)
    list(running)
    assert visit.shown.status == stopped.status and visit.shown.panels == stopped.panels
    assert visits.stop(visit, ASKED, next(CLOCK)) == visit.shown


@pytest.mark.parametrize("what", ["move", "choose", "certify"])
def test_whatever_comes_next_ends_a_certification(visit, what):
    running = visits.certify(visit, ASKED, 0.25, 100_000, next(CLOCK))
    for _ in range(3):
        next(running)
    if what == "certify":
        again = visits.certify(visit, ASKED, 0.25, 1_000, next(CLOCK))
        next(again)
    elif what == "move":
        assert "at sigma 0.5" in visits.move(visit, ASKED, 0.5, next(CLOCK)).picture
    else:
        visits.choose(visit, ASKED, GREY, "another", 0.25, next(CLOCK))
    assert visit.found == (None, None)
    assert list(running) == [visit.shown] and "No votes yet." in visit.shown.panels


def test_stop_without_a_certification_changes_nothing(visit):
    before = visit.shown
    assert visits.stop(visit, ASKED, next(CLOCK)) == before
    list(visits.certify(visit, ASKED, 0.25, 1_000, next(CLOCK)))
    assert "Certified" in visits.stop(visit, ASKED, next(CLOCK)).panels


def test_a_wrong_file_gets_a_word_and_no_certificate(visit, tmp_path):
    (tmp_path / "bad.png").write_text("only renamed")
    parts = visits.upload(visit, ASKED, tmp_path / "bad.png", 0.25, next(CLOCK))
    assert "bad.png is not an image" in parts.picture and parts.panels == ""
    assert list(visits.certify(visit, ASKED, 0.25, 1_000, next(CLOCK))) == [
        visits.Parts(status="Choose an image first.")
    ]
    assert visits.move(visit, ASKED, 0.5, next(CLOCK)) == visits.stop(visit, ASKED, next(CLOCK)) == visit.shown
    GREY.resize((20, 30)).save(tmp_path / "good.png")
    assert "good.png, 20 x 30 pixels." in visits.upload(visit, ASKED, tmp_path / "good.png", 0.25, next(CLOCK)).picture


def test_visitors_do_not_share_what_they_chose(visit):
    other = copy.deepcopy(visit)
    visits.choose(other, ASKED, GREY, "another", 0.25, next(CLOCK))
    assert other.chosen.about != visit.chosen.about and other.latest > visit.latest


def test_events_that_were_overtaken_change_nothing(visit, tmp_path):
    early, late = next(CLOCK), next(CLOCK)
    running = visits.certify(visit, ASKED, 0.5, 1_000, late)
    next(running)
    before, chosen = visit.shown, visit.chosen
    GREY.save(tmp_path / "good.png")
    assert visits.move(visit, ASKED, 0.25, early) == visits.stop(visit, ASKED, early) == before
    assert visits.choose(visit, ASKED, GREY, "another", 0.5, early) == before
    assert visits.upload(visit, ASKED, tmp_path / "good.png", 0.5, early) == before
    assert list(visits.certify(visit, ASKED, 0.25, 1_000, early)) == []
    assert visit.chosen is chosen and visit.latest == late and visit.shown == before
    assert "Certified" in list(running)[-2].panels
