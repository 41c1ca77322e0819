"""Fifty kills and more, at random moments and with torn bytes: whatever happens, the rows are those of a run left in peace."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_smoothing.certification import certify_dataset
from hf_smoothing.records import read_run
from tests.support.classifiers import KINDS, random_dataset, results
from tests.support.processes import printed, run_python


HERE = Path(__file__).parent
COUNT = 10
ENOUGH = 25
"""Kills of each kind."""


def kills(script: str, folder: Path, kind: str, seed: int) -> int:
    return int(printed(run_python(HERE / script, folder, kind, COUNT, seed)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_killed_run_ends_in_the_rows_of_an_undisturbed_one(tmp_path, kind):
    classifier, arguments = KINDS[kind]
    whole = certify_dataset(classifier, random_dataset(COUNT), tmp_path / "whole", **arguments)
    assert whole.settings["noise_kind"] == "grid"
    total, runs = 0, 0
    while total < ENOUGH:
        # In turns: killed between batches by themselves, and at any moment by their parent.
        script = "killed_run.py" if runs % 2 and kind != "spending" else "killed_anywhere.py"
        folder = tmp_path / f"run-{runs}"
        total += kills(script, folder, kind, seed=runs)
        runs += 1
        assert results(read_run(folder)) == results(whole)
        assert read_run(folder).partials == {}
        assert runs < 40, "kills must come in time to be a test"
    print(f"{total} kills in {runs} runs")
