"""What the page says: certificates as certificates, estimates as estimates, figures never rounded up."""

import dataclasses
import re
from html.parser import HTMLParser

import pytest
import torch

from examples.space import page
from examples.space.pictures import Chosen
from examples.space.voting import Standing
from hf_smoothing.certification import Certificate
from hf_smoothing.statistics import ABSTAIN


NAMES = {0: "cat", 1: "dog <& co>"}
IMAGE = Chosen(torch.zeros(3, 32, 32, dtype=torch.uint8), "About it.")
CERTIFICATE = Certificate(
    0, 1, 0.50096, 0.9, 0.25, 0.001, 933, ((10, 90), (100, 733)), threat_model="perturbed images that are 8-bit"
)
NOTHING = dataclasses.replace(CERTIFICATE, prediction=ABSTAIN, radius=0.0, draws=120)
COUNTING = Standing((30, 70), 100, 1_100, None, False)
SO_FAR = Standing((150, 850), 1_000, 1_100, CERTIFICATE, False)
CERTIFIED = Standing((110, 823), 933, 1_100, CERTIFICATE, True)
ABSTAINED = Standing((60, 60), 120, 1_100, NOTHING, True)


class Balanced(HTMLParser):
    """Fails where a tag is left open or closed wrongly."""

    def __init__(self):
        super().__init__()
        self.open, self.words = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def text(markup: str) -> str:
    parser = Balanced()
    parser.feed(markup)
    parser.close()
    assert not parser.open
    return re.sub(r"\s+", " ", " ".join(parser.words))


def panels(*standings, **options) -> str:
    return text(page.panels(IMAGE, ("cat", "dog <& co>"), standings, NAMES, **options))


def test_before_the_first_vote_the_answers_without_noise_are_shown():
    shown = panels(None, None)
    assert shown.count("No votes yet.") == 2
    assert "Without noise it answers cat ." in shown and "Without noise it answers dog <& co> ." in shown
    assert "controlled comparisons" in shown  # what the clean classifier is


def test_running_votes_are_an_estimate_and_no_certificate():
    shown = panels(COUNTING, None)
    assert "Running estimate, not a certificate: dog <& co> has 70.0% of the 100 votes so far." in shown
    assert "Votes are being counted: nothing is certified yet" in shown
    assert "Certified:" not in shown and "l2 radius" not in shown


def test_what_is_certified_so_far_is_named_so():
    shown = panels(SO_FAR, None)
    assert "dog <& co> within l2 radius 0.500 is certified so far" in shown
    assert "Running estimate, not a certificate" in shown and "Certified:" not in shown
    stopped = panels(SO_FAR, COUNTING, stopped=True)
    assert stopped.count("Stopped early") == 2 and "Estimate, not a certificate" in stopped
    assert "being counted" not in stopped and "will be made" not in stopped


def test_a_certificate_says_all_of_it():
    shown = panels(CERTIFIED, None)
    assert "Certified: dog <& co> within l2 radius 0.500" in shown  # 0.50096, rounded down
    for figure in ("127.7", "0.00903", "2.30", "≤ 0.001", "933", "0.25"):  # 255 r; r / sqrt(3,072); 255 of those
        assert figure in shown
    assert "It covers perturbed images that are 8-bit." in shown and "estimate" not in shown


@pytest.mark.parametrize("radius", [0.5, 0.123456789, 1.0, 3.999999])
def test_radii_are_rounded_down(radius):
    rows = page.certificate_rows(dataclasses.replace(CERTIFICATE, radius=radius), (3, 32, 32))
    values = [float(value) for _, value in rows[:4]]
    exact = [radius, 255 * radius, radius / 3072**0.5, 255 * radius / 3072**0.5]
    for value, limit, digit in zip(values, exact, (1e-3, 1e-1, 1e-5, 1e-2), strict=True):
        assert limit - 1.001 * digit <= value <= limit


def test_a_radius_below_one_grey_level_covers_nothing():
    small = dataclasses.replace(CERTIFICATE, radius=0.003)
    assert "no other 8-bit image is covered" in panels(dataclasses.replace(CERTIFIED, certificate=small), None)


def test_an_abstention_claims_nothing():
    shown = panels(ABSTAINED, None)
    assert "Abstained: no certificate" in shown and "After 120 noisy copies" in shown
    assert "l2 radius" not in shown


@pytest.mark.parametrize(("label", "wrong"), [("cat", True), ("dog <& co>", False), (None, False)])
@pytest.mark.parametrize("standing", [CERTIFIED, SO_FAR])
def test_a_certified_class_that_is_wrong_is_named_so(label, wrong, standing):
    shown = text(page.panels(dataclasses.replace(IMAGE, label=label), ("cat", "cat"), (standing, None), NAMES))
    assert ("That class is wrong: the label is cat." in shown) == wrong


def test_bars_are_shares_of_the_votes():
    markup = page.panels(IMAGE, ("cat", "cat"), (COUNTING, None), NAMES)
    assert re.findall(r"width:([\d.]+)%", markup) == ["30.0", "70.0"]
    assert re.search(r'class=first><th scope="row">dog', markup)


def test_the_summary_is_one_sentence_per_classifier():
    said = page.summary((CERTIFIED, ABSTAINED), NAMES)
    assert said == "Robust classifier: dog <& co> within l2 radius 0.500. Clean classifier: abstained."


CHOSEN = Chosen(torch.zeros(3, 4, 4, dtype=torch.uint8), "<b>.png, 4 x 4 pixels.")


def test_the_picture_shows_what_is_certified_and_its_copies():
    copies = torch.zeros(2, 3, 4, 4)
    before = text(page.seen(CHOSEN, copies, 0.5))
    assert "<b>.png, 4 x 4 pixels." in before and "2 noisy copies at sigma 0.5" in before and "vote" not in before
    markup = page.seen(CHOSEN, copies, 0.5, [[0, 1], [1, 1]], NAMES)
    assert markup.count("<img ") == markup.count("alt=") == 3
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", markup)
    assert captions[1:] == ["cat<br>dog &lt;&amp; co&gt;", "dog &lt;&amp; co&gt;<br>dog &lt;&amp; co&gt;"]


def test_a_word_is_an_alert_and_harmless():
    assert page.word("<script>") == '<div class="space"><p class="word" role="alert">&lt;script&gt;</p></div>'
