"""How far a run is: draws made and to make, and what the counts of a run mean."""

from pathlib import Path

import numpy as np
import pytest

from hf_smoothing.certification import certify_dataset
from hf_smoothing.certification.certificates import Certificate, Votes
from hf_smoothing.certification.tally import Tally, outcome_text, outcomes_of
from hf_smoothing.records import Run, read_run
from hf_smoothing.statistics import ABSTAIN
from tests.support.classifiers import RUN, Ranges, random_dataset


def certificate(index, prediction=1, radius=0.5, draws=40):
    return Certificate(index, prediction, radius, 0.9, 0.5, 0.001, draws, ())


def votes(index, drawn):
    return Votes(index, counts_by_look=[np.array([drawn])], drawn=drawn)


def empty(**settings):
    return Run(Path("run"), settings)


def test_a_fixed_number_of_draws_is_counted_exactly():
    tally = Tally(empty(), 3, 100, False)
    assert (tally.draws, tally.total) == (0, 300)
    assert tally.see([votes(0, 60)], []) == 60
    assert (tally.draws, tally.total) == (60, 300)
    assert tally.see([votes(0, 100), votes(1, 20)], [certificate(0, draws=100)]) == 60
    assert (tally.draws, tally.total) == (120, 300)
    assert tally.facts() == {"images": "1/3", "certified": 1, "abstained": 0}


def test_what_is_left_is_guessed_from_finished_images():
    tally = Tally(empty(), 4, 1_000, False)
    tally.see([votes(0, 40), votes(1, 60)], [certificate(0, draws=40), certificate(1, ABSTAIN, 0.0, draws=60)])
    assert tally.total == 4 * 50
    tally.see([votes(2, 300)], [])
    assert tally.total == 40 + 60 + 300 + 50
    assert tally.facts() == {"images": "2/4", "certified": 1, "abstained": 1}


def test_a_resumed_run_counts_what_was_there():
    rows = {0: {"prediction": 1, "radius": 0.5, "draws": 40}, 1: {"prediction": ABSTAIN, "radius": 0.0, "draws": 20}}
    tally = Tally(Run(Path("run"), {}, rows, {2: {"draws": 10}}), 3, 1_000, False)
    assert (tally.draws, tally.total) == (70, 90)
    assert tally.see([votes(2, 30)], [certificate(2, draws=30)]) == 20
    assert tally.facts() == {"images": "3/3", "certified": 2, "abstained": 1}


def test_a_stream_has_no_total():
    tally = Tally(empty(), None, 100, False)
    tally.see([votes(0, 100)], [certificate(0, draws=100)])
    assert tally.total is None and tally.facts()["images"] == "1"


@pytest.mark.parametrize(
    ("rows", "settings", "text"),
    [
        (
            [(1, 0.5), (2, 0.0), (ABSTAIN, 0.0)],
            {},
            "1 certified with a radius above 0, 1 answered with radius 0, 1 abstained",
        ),
        ([(1, 0.5)], {}, "1 certified with a radius above 0"),
        ([(1, 0.0), (2, 0.0)], {"deterministic": True}, "2 answered with radius 0"),
        ([(1, 0.5), (ABSTAIN, 0.0)], {"label_aware": True}, "1 reach a radius above 0 for their true class"),
    ],
)
def test_counts_mean_what_they_say(rows, settings, text):
    run = empty(**settings)
    run.rows.update({index: {"prediction": c, "radius": r} for index, (c, r) in enumerate(rows)})
    assert outcome_text(run).startswith(text)
    found = outcomes_of(run)
    assert found.answered + found.abstained == found.images == len(rows)
    assert found.certified <= found.answered


def test_the_last_line_of_a_run_agrees_with_its_record(tmp_path, capsys):
    certify_dataset(Ranges(), random_dataset(6), tmp_path, **{**RUN, "progress": True})
    rows = read_run(tmp_path).rows.values()
    certified, abstained = sum(r["radius"] > 0 for r in rows), sum(r["prediction"] == ABSTAIN for r in rows)
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.endswith(f"images {len(rows)}/{len(rows)}, certified {certified}, abstained {abstained}")
    assert f"{sum(r['draws'] for r in rows):,} of {sum(r['draws'] for r in rows):,} draws" in line
