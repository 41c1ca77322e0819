"""A label-aware run says that it is one, measures accuracy only, and nothing for deployment can ask for it."""

from __future__ import annotations

import inspect

import pytest

from hf_smoothing import SmoothedClassifier, certify, certify_dataset, predict
from hf_smoothing.certification import SequentialRule
from hf_smoothing.statistics import ABSTAIN
from tests.support.classifiers import Constant, Linear, random_dataset, random_images


# --- Label-aware evaluation


def measured(tmp_path, classifier, dataset, **options):
    return certify_dataset(
        classifier, dataset, tmp_path / "run", sigma=0.25, n=200, progress=False, copies_per_batch=64, label_aware=True, **options
    )  # fmt: skip


def test_label_aware_is_recorded_and_never_returns_another_class(tmp_path):
    dataset = random_dataset(9, num_labels=3)  # labels 0, 1, 2 in turn
    run = measured(tmp_path, Constant(1), dataset)
    assert run.settings["label_aware"] is True
    assert run.settings["rule"]["n0"] == 0
    for index, row in run.rows.items():
        assert row["label"] == index % 3
        assert row["prediction"] == (1 if row["label"] == 1 else ABSTAIN)
        # A wrong image is given up at the first look.
        assert row["label"] == 1 or (row["draws"], row["radius"], row["certified_targets"]) == (20, 0.0, [])
    assert {row["prediction"] for row in run.rows.values()} == {1, ABSTAIN}


def test_label_aware_measures_what_it_should_of_mixed_votes(tmp_path):
    run = measured(tmp_path, Linear(), [{**item, "labels": item["labels"] % 2} for item in random_dataset(12)])
    assert all(row["prediction"] in (row["label"], ABSTAIN) for row in run.rows.values())
    assert any(row["prediction"] != ABSTAIN for row in run.rows.values())


def test_other_runs_say_that_they_do_not_know_the_label(tmp_path):
    run = certify_dataset(
        Constant(1), random_dataset(3), tmp_path, sigma=0.25, n=100, progress=False, copies_per_batch=64
    )
    assert run.settings["label_aware"] is False
    assert {row["prediction"] for row in run.rows.values()} == {1}


@pytest.mark.parametrize("label", [None, 7, -1])
def test_label_aware_needs_labels(tmp_path, label):
    items = random_dataset(2)
    dataset = [
        {"pixel_values": item["pixel_values"], **({} if label is None else {"labels": label})} for item in items
    ]
    with pytest.raises(ValueError, match="[Ll]abel"):
        measured(tmp_path, Constant(1), dataset)


def test_label_aware_selects_nothing(tmp_path):
    with pytest.raises(ValueError, match="no selection draws, got n0 = 100. Leave n0 out"):
        measured(tmp_path, Constant(1), random_dataset(1), n0=100)
    with pytest.raises(ValueError, match="0 when measuring label-aware"):
        SequentialRule(0.5, (0.0,), n0=10, label_aware=True)


@pytest.mark.parametrize("function", [certify, predict, SmoothedClassifier.certify, SmoothedClassifier.predict])
def test_nothing_for_deployment_knows_labels(function):
    assert not [name for name in inspect.signature(function).parameters if "label" in name]


def test_nothing_for_deployment_takes_labels():
    for function in (certify, predict):
        with pytest.raises(TypeError, match="label_aware"):
            function(Constant(), random_images(1), sigma=0.5, label_aware=True)
