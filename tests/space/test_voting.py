"""The votes of the page are those of the library: same seed, same certificate; and what is claimed on the way stays true."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from examples.space.voting import answers, first_copies, side_by_side, standings
from hf_smoothing import certify


IMAGE = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def bright(bias: float):
    """Which of three classes: dark, bright, or never."""

    def classify(pixels):
        score = pixels.mean(dim=(1, 2, 3)) - bias
        return torch.stack([-score, score, torch.full_like(score, -100.0)], dim=1)

    return classify


def run(bias: float, **options):
    settings = {"sigma": 0.5, "n": 2_000, "seed": 5, "seconds": 0.0, **options}
    return list(standings(bright(bias), IMAGE, **settings))


@pytest.mark.parametrize("bias", [0.3, 0.45, 0.47, 0.49, 0.5])
def test_the_last_certificate_is_that_of_certify(bias):
    last = run(bias)[-1]
    wanted = certify(bright(bias), IMAGE[None], sigma=0.5, n=2_000, seed=5)[0]
    assert last.finished and last.certificate is not None
    assert dataclasses.replace(last.certificate, seconds=0.0) == dataclasses.replace(wanted, seconds=0.0)
    assert last.counts == tuple(np.sum(wanted.counts_by_look, axis=0))
    assert last.drawn == sum(last.counts) == wanted.draws <= last.most == 2_100


def test_votes_and_claims_only_grow():
    found = run(0.45)
    assert len(found) > 3
    assert not any(standing.finished for standing in found[:-1])
    assert all(np.all(np.subtract(b.counts, a.counts) >= 0) for a, b in itertools.pairwise(found))
    assert found[0].certificate is None  # the draws of the selection claim nothing
    radii = [standing.certificate.radius for standing in found if standing.certificate is not None]
    assert radii == sorted(radii) and radii[-1] > 0.0


def test_a_claim_on_the_way_is_what_the_rule_says_at_a_complete_look():
    """Between two looks the claim of the earlier one stands."""
    for standing in run(0.45):
        if standing.certificate is not None:
            counts = standing.certificate.counts_by_look
            assert standing.certificate.draws == sum(map(sum, counts)) <= standing.drawn
            assert standing.certificate.noise_kind == "grid"


def test_a_coin_abstains():
    last = run(float(IMAGE.float().mean() / 255))[-1]
    assert last.certificate is not None and last.certificate.abstained and last.certificate.radius == 0.0


def test_the_copies_shown_are_the_first_that_vote():
    copies = first_copies(IMAGE, sigma=0.5, seed=5, count=100)
    votes = np.bincount(answers(bright(0.49), copies), minlength=3)
    certificate = certify(bright(0.49), IMAGE[None], sigma=0.5, n=2_000, seed=5)[0]
    assert tuple(votes) == certificate.counts_by_look[0]  # the selection stage is 100 draws
    assert float(copies.max()) > 1.0  # not clamped


def test_two_certifications_take_turns_and_both_end():
    runs = [iter(run(0.3)), iter(run(0.45))]
    found = list(side_by_side(runs))
    assert found[0][0] is not None and found[0][1] is None
    assert [standing.finished for standing in found[-1]] == [True, True]
    assert [standing.counts for standing in found[-1]] == [run(bias)[-1].counts for bias in (0.3, 0.45)]
    assert len(found) == len(run(0.3)) + len(run(0.45))


def test_another_seed_gives_other_votes():
    assert run(0.49)[-1].counts != run(0.49, seed=6)[-1].counts
