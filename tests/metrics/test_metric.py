"""The metric of `evaluate` gives the figures of the statistics, in batches as well, and refuses bad columns."""

import math
import subprocess
import sys
import textwrap
from pathlib import Path

import evaluate
import numpy as np
import pytest

from hf_smoothing import certified_accuracy_path
from hf_smoothing.metrics.certified_accuracy.certified_accuracy import CertifiedAccuracyMetric
from hf_smoothing.statistics import abstention_rate, average_certified_radius, certified_accuracy, interval


COLUMNS = {"predictions": [3, 3, -1, 5, 0], "references": [3, 3, 3, 3, 0], "radii": [0.5, 0.2, 0.0, 0.9, 1.25]}


@pytest.fixture
def metric(tmp_path, monkeypatch):
    # evaluate copies the script into its cache of modules and writes the columns into another.
    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", True)
    for name in ("HF_METRICS_CACHE", "HF_EVALUATE_CACHE", "HF_MODULES_CACHE"):
        if hasattr(evaluate.config, name):
            monkeypatch.setattr(evaluate.config, name, tmp_path)
    return evaluate.load(certified_accuracy_path(), cache_dir=str(tmp_path))


def test_the_folder_is_what_evaluate_wants():
    folder = Path(certified_accuracy_path())
    assert (folder / f"{folder.name}.py").is_file()


def test_figures_by_hand(metric):
    result = metric.compute(**COLUMNS, thresholds=[0.0, 0.25, 1.25, 1.3], n=1000)
    assert result["certified_accuracy"] == [0.6, 0.4, 0.2, 0.0]
    assert result["thresholds"] == [0.0, 0.25, 1.25, 1.3]
    assert result["smoothed_accuracy"] == 0.6
    assert result["average_certified_radius"] == pytest.approx((0.5 + 0.2 + 1.25) / 5)
    assert result["abstention_rate"] == 0.2
    assert result["num_images"] == 5
    assert result["n"] == 1000
    lower, upper = interval(np.array([3, 2, 1, 0]), 5, 0.95)
    assert result["lower"] == lower.tolist() and result["upper"] == upper.tolist()


def test_default_thresholds(metric):
    result = metric.compute(**COLUMNS)
    assert result["thresholds"] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert result["certified_accuracy"] == [0.6, 0.4, 0.4, 0.2, 0.2]
    assert result["n"] is None


def test_it_equals_the_direct_import_and_the_statistics(metric, tmp_path):
    random = np.random.default_rng(0)
    predictions = random.integers(-1, 4, 200)
    radii = np.where(predictions == -1, 0.0, random.random(200))
    references = random.integers(0, 4, 200)
    columns = {"predictions": predictions.tolist(), "references": references.tolist(), "radii": radii.tolist()}
    loaded = metric.compute(**columns, confidence=0.9)
    direct = CertifiedAccuracyMetric(cache_dir=str(tmp_path / "direct")).compute(**columns, confidence=0.9)
    assert loaded == direct
    expected = certified_accuracy(predictions, references, radii, [0.0, 0.25, 0.5, 0.75, 1.0], confidence=0.9)
    assert loaded["certified_accuracy"] == expected.accuracy.tolist()
    assert loaded["lower"] == expected.lower.tolist()
    assert loaded["average_certified_radius"] == average_certified_radius(predictions, references, radii)
    assert loaded["abstention_rate"] == abstention_rate(predictions)


def test_batches_add_up(metric):
    for row in zip(*COLUMNS.values(), strict=True):
        metric.add(**dict(zip(COLUMNS, row, strict=True)))
    assert metric.compute()["certified_accuracy"] == [0.6, 0.4, 0.4, 0.2, 0.2]


def test_radii_stay_in_double_precision(metric):
    radius = 0.1 + 1e-15
    columns = {"predictions": [0, 0], "references": [0, 0], "radii": [radius, 0.1]}
    result = metric.compute(**columns, thresholds=[0.1, radius])
    assert result["certified_accuracy"] == [1.0, 0.5]
    assert result["average_certified_radius"] == (radius + 0.1) / 2


def test_unequal_lengths_are_refused(metric):
    with pytest.raises(ValueError, match=r"(?i)mismatch|equal length"):
        metric.compute(predictions=[0, 1], references=[0], radii=[0.1, 0.2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"radii": [0.5, math.nan, 0.0, 0.9, 1.25]}, "`radii` must be >= 0 and not nan"),
        ({"radii": [0.5, -0.1, 0.0, 0.9, 1.25]}, "`radii` must be >= 0"),
        ({"radii": [0.5, 0.2, 0.3, 0.9, 1.25]}, "abstains must have radius 0.0"),
        ({"references": [3, 3, -1, 3, 0]}, "`references` must be classes >= 0"),
        ({"predictions": [3, 3, -2, 5, 0]}, "`predictions` must be classes >= 0"),
        ({"thresholds": [-0.5]}, "`thresholds` must be"),
        ({"thresholds": []}, "`thresholds` must be"),
        ({"confidence": 1.5}, "confidence"),
        ({"confidence": 0.05}, "failure probability: pass 0.95"),
        ({"radii": [0.5, math.inf, 0.0, 0.9, 1.25]}, "infinite, got inf"),
        ({"thresholds": [math.inf]}, "`thresholds` must be"),
        (
            {"sigma": 0.25, "n": 100},
            "A radius of 0.9 is above .* the largest that sigma = 0.25 and n = 100 can certify",
        ),
        ({"sigma": 64}, "`sigma` is in"),
        ({"alpha": 0.999}, "looks like the confidence"),
        ({"n": 0}, "`n` must be at least 1"),
        ({"n": 0.5}, "Pass a count"),
        ({"num_labels": 4}, "`predictions` must be below the number of classes, 4, got 5"),
    ],
)
def test_bad_input_is_refused(change, message, metric):
    with pytest.raises(ValueError, match=message):
        metric.compute(**(COLUMNS | change))


def test_the_mathematics_needs_no_torch():
    script = """
        import sys
        import hf_smoothing.statistics, hf_smoothing.metrics
        hf_smoothing.metrics.certified_accuracy_path()
        assert not {"torch", "transformers", "datasets", "evaluate"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)
