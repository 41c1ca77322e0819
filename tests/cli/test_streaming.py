"""`hf-smoothing certify --streaming` certifies the images of the list, and says what it cannot choose of a stream."""

from __future__ import annotations

import pytest

from hf_smoothing import read_run
from tests.support import commands
from tests.support.classifiers import results
from tests.support.commands import model_and_images


@pytest.fixture
def place(tmp_path):
    return model_and_images(tmp_path, count=12)


def certify(place, run, *options):
    return commands.certify(place / "model", place / "images", place / run, *options)


def test_streaming_from_the_command_line(place, capsys):
    choice = ("--max-images", "5", "--stride", "2")
    assert certify(place, "stream", "--streaming", *choice) == 0
    out = capsys.readouterr().out
    assert "5 images in " in out and "| model" in out and "None images" not in out
    assert certify(place, "list", *choice) == 0
    run = read_run(place / "stream")
    assert sorted(run.rows) == [0, 2, 4, 6, 8] and run.settings["num_images"] == 5
    assert results(run) == results(read_run(place / "list"))
    capsys.readouterr()
    assert certify(place, "stream", "--streaming", *choice) == 0
    assert certify(place, "stream", "--streaming", "--max-images", "5", "--stride", "1") == 2
    assert "dataset.stride was 2, is 1" in capsys.readouterr().err


def test_all_of_a_stream_from_the_command_line(place, capsys):
    assert certify(place, "run", "--streaming") == 0
    assert "12 images in " in capsys.readouterr().out
    assert certify(place, "other", "--streaming", "--stride", "2") == 2
    assert "--stride needs --max-images" in capsys.readouterr().err
    assert certify(place, "other", "--streaming", "--split", "train") == 2
    assert "has no split 'train'; it has ['test']" in capsys.readouterr().err
    assert certify(place, "other", "--streaming", "--max-images", "13") == 2
    assert "The stream ended after 12 images, but image 12 was asked for" in capsys.readouterr().err
