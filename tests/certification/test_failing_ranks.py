"""An error, an argument or an image of one rank alone ends a run on all of them, and the next run on these ranks is what it is on one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hf_smoothing.certification import ranks
from hf_smoothing.certification.completion import telling_what_is_kept
from hf_smoothing.pixels import UnreadableImageError
from hf_smoothing.records import read_run
from tests.certification.failing_ranks import FAILING, METHODS, OTHER, WRONG
from tests.support.processes import printed, run_python


WORDS = {kind: words for kind, (_, words) in WRONG.items()}
REFUSED = [
    (method, kind, on, words)
    for method in METHODS
    for kind, words in (WORDS | {kind: words for kind, (_, words) in OTHER[method].items()}).items()
    for on in (0, 1)
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    # A rank that waits for another forever is found by the time that this takes.
    printed(run_python(Path(__file__).parent / "failing_ranks.py", folder, timeout=200, ACCELERATE_USE_CPU="true"))
    return folder


@pytest.fixture(scope="module")
def said(home):
    """What each case came to on each rank."""
    return [json.loads((home / f"said-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize(("method", "step", "on"), FAILING)
def test_a_step_that_fails_on_one_rank_ends_the_run_on_all(said, method, step, on):
    name = f"{method} {step} {on}"
    assert said[on][name] == f"OSError: {step}"
    assert said[1 - on][name].startswith(f"RankError: Rank {on} of this run failed: OSError: {step}")
    kept = "images are done and kept in" in said[1 - on][name]
    assert kept == (step in ("work", "append"))
    assert [one[f"after {method} {step}"] for one in said] == ["True", "True"]


@pytest.mark.parametrize(("method", "kind", "on", "words"), REFUSED)
def test_ranks_that_differ_are_refused_and_leave_no_folder(said, home, method, kind, on, words):
    name = f"{method} {kind} {on}"
    for one in said:
        assert re.match(r"(ValueError|UnreadableImageError|RankError): ", one[name])
        assert re.search(words, one[name])
    assert not (home / name).exists()


@pytest.mark.parametrize("method", METHODS)
def test_ranks_that_were_refused_certify_the_same_afterwards(said, method):
    assert [one[f"after wrong {method}"] for one in said] == ["True", "True"]


@pytest.mark.parametrize("method", METHODS)
def test_ranks_may_have_copies_of_network_and_images_of_their_own(said, home, method):
    assert [one[f"own copies {method}"] for one in said] == ["5", "5"]
    assert read_run(home / f"own copies {method}").settings["model"]["id"] == "/local/0/model"


def test_what_a_rank_has_kept_is_not_told_to_the_others(home):
    told = pytest.raises(UnreadableImageError, match="5 of 5 images are done")
    with told as raised, telling_what_is_kept(home / "smoothing", 5):
        raise UnreadableImageError(3, None, "Image 3 is damaged.")
    assert ranks._text(raised.value) == "UnreadableImageError: Image 3 is damaged."


@pytest.mark.parametrize("on", [0, 1])
def test_a_rank_with_images_left_is_not_left_waiting(said, on):
    for one in said:
        ends = [9 if rank == on else 5 for rank in (0, 1)]
        assert (
            f"rank 0: the stream ended after {ends[0]} images; rank 1: the stream ended after {ends[1]}"
            in one[f"smoothing grown {on}"]
        )
        assert one[f"resumed smoothing grown {on}"] == "9"
        assert re.search(
            rf"do not read the same images \(.*rank {on}: Image 4 is damaged\.", one[f"smoothing last {on}"]
        )
        assert one[f"resumed smoothing last {on}"] == "5"
