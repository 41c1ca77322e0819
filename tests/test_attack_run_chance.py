"""How many broken certificates chance explains is counted over all images of a run, since which are certified depends on which are false."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy import special, stats
from torch import nn

from hf_smoothing import certify_dataset
from hf_smoothing.attack_run import Attacked, allowed_failures, attack_run, summary


STEP = 1 / 255
IMAGES = [{"pixel_values": torch.full((1, 2, 2), 100, dtype=torch.uint8), "labels": 0}] * 300


class Halves(nn.Module):
    """Class 1 where the first pixel is above 100.5 / 255: images of 100 / 255 have a radius of half a step, and votes of almost a half."""

    def __init__(self):
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(100.5 * STEP))

    def forward(self, pixels):
        logit = 200.0 * (pixels[:, 0, 0, 0] - self.threshold)
        return torch.stack([-logit, logit], 1)


def is_true(row):
    return row["prediction"] == 0 and row["radius"] <= 0.5 * STEP


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Rarely certified images, and only those that bad luck has certified falsely."""
    options = {"sigma": 0.5, "alpha": 0.05, "n": 200, "n0": 1, "mode": "fixed", "seed": 1, "progress": False}
    return certify_dataset(Halves().eval(), IMAGES, tmp_path_factory.mktemp("run"), **options)


def certified(run):
    return [row for row in run.rows.values() if row["radius"] > 0.0]


def seen_through(run):
    """What an attack that never errs would find."""
    return [
        Attacked(row["index"], row["prediction"], row["radius"], row["radius"], row["prediction"] ^ (not is_true(row)), 1)
        for row in certified(run)
    ]  # fmt: skip


def test_a_certifier_that_keeps_alpha_is_not_accused(run):
    found = seen_through(run)
    false = sum(item.broken for item in found)
    assert len(found) == false > stats.binom.ppf(0.999, false, 0.051), "all of them, more than so many could explain"
    assert false <= stats.binom.ppf(0.999, 300, 0.05), "and no more than alpha allows"
    figures = summary(found, run, alpha=0.001)
    assert figures["broken"] == false <= figures["allowed_by_chance"] == allowed_failures(300, 0.05, false, 0.001)


@pytest.mark.parametrize("part", [1, 4])
def test_nor_if_some_of_its_certificates_are_attacked(run, part):
    found = seen_through(run)[:part]
    assert summary(found, run, alpha=0.001)["broken"] == part <= summary(found, run, alpha=0.001)["allowed_by_chance"]


def test_a_certifier_without_a_bound_is_accused(run):
    """The share of votes itself, as if it were the probability."""

    def careless(row):
        votes = row["counts_by_look"][-1]
        top = max(votes, key=votes.get)
        return row | {"prediction": int(top), "radius": 0.5 * float(special.ndtri(min(votes[top] / 200, 0.99)))}

    rows = {index: careless(row) for index, row in run.rows.items() if index < 40}
    false = replace(run, rows=rows)
    how = {"steps": 4, "copies": 32, "n": 5_000, "alpha": 0.001}
    figures = summary(attack_run(Halves().eval(), IMAGES, false, seed=3, progress=False, **how), false, **how)
    assert figures["certificates"] >= 30 and figures["broken"] > figures["allowed_by_chance"]
