"""The metric of `evaluate` gives the figures of the statistics, in batches as well, and refuses bad columns."""

import math
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import evaluate
import numpy as np
import pandas
import pytest
import torch

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


def compute(metric, columns):
    return metric.compute(**columns)


def add_batch(metric, columns):
    metric.add_batch(**columns)
    return metric.compute()


def add(metric, columns):
    for prediction, reference, radius in zip(*(columns[name] for name in COLUMNS), strict=True):
        metric.add(prediction=prediction, reference=reference, radii=radius)
    return metric.compute()


def add_by_plural_names(metric, columns):
    for row in zip(*(columns[name] for name in COLUMNS), strict=True):
        metric.add(**dict(zip(COLUMNS, row, strict=True)))
    return metric.compute()


CALLS = [compute, add_batch, add, add_by_plural_names]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("made", [list, np.asarray, torch.tensor], ids=["list", "numpy", "torch"])
@pytest.mark.parametrize(
    ("column", "values", "got"),
    [
        ("predictions", [0.93, 1.7], "0.93"),  # shares in the place of classes
        ("predictions", [0.0, 1.0], "0.0"),
        ("references", [0.0, 1.5], "0.0"),
        ("references", [math.nan, 1.0], "nan"),
        ("predictions", [True, False], "True"),
        ("radii", [True, False], "True"),
    ],
)
def test_columns_of_another_kind_are_refused_and_never_cut(call, made, column, values, got, metric):
    columns = {"predictions": [0, 1], "references": [0, 1], "radii": [0.25, 0.5], column: made(values)}
    with pytest.raises(
        ValueError, match=rf"`{column}` must be (integer class indices|numbers), got .*{got}.* Pass pred"
    ):
        call(metric, columns)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("predictions", ["0", "1"]),
        ("references", [0, None]),
        ("references", [0, 1.5]),
        ("radii", ["0.25", "0.5"]),
        ("radii", [0.25, None]),
        ("predictions", [torch.tensor(0.5), torch.tensor(1.0)]),
    ],
)
def test_columns_of_text_and_gaps_are_refused(call, column, values, metric):
    columns = {"predictions": [0, 1], "references": [0, 1], "radii": [0.25, 0.5], column: values}
    with pytest.raises(ValueError, match=rf"`{column}` must be (integer class indices|numbers), got .* Pass pred"):
        call(metric, columns)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "made",
    [
        tuple,
        lambda values: np.asarray(values).astype(np.int16 if isinstance(values[0], int) else np.float32),
        lambda values: torch.tensor(values, dtype=None if isinstance(values[0], int) else torch.float32),
        lambda values: [torch.tensor(value) for value in values],
    ],
    ids=["tuple", "numpy", "torch", "list of tensors"],
)
def test_columns_of_any_integer_type_are_taken(call, made, metric):
    columns = {"predictions": [0, -1, 2], "references": [0, 1, 1], "radii": [0.25, 0.0, 0.5]}
    assert call(metric, {name: made(values) for name, values in columns.items()})["certified_accuracy"][0] == 1 / 3


@pytest.mark.parametrize("call", CALLS[:2])
def test_filtered_columns_of_a_table_are_taken(call, metric):
    """Their numbers of rows begin anywhere."""
    table = pandas.DataFrame(
        {"predictions": [9, 0, -1, 2], "references": [9, 0, 1, 1], "radii": [0.9, 0.25, 0.0, 0.5]}
    )[1:]
    columns = {name: table[name] for name in COLUMNS}
    assert call(metric, columns)["certified_accuracy"][0] == 1 / 3


@pytest.mark.parametrize("call", CALLS[:2])
@pytest.mark.parametrize("column", ["predictions", "references", "radii"])
@pytest.mark.parametrize("made", [np.asarray, torch.tensor, list, lambda values: [np.asarray(one) for one in values]])
def test_columns_of_columns_are_refused_with_the_cure(call, column, made, metric):
    columns = {"predictions": [0, 1], "references": [0, 1], "radii": [0.25, 0.5], column: made([[0], [1]])}
    with pytest.raises(
        ValueError,
        match=rf"`{column}` must have one entry for each image, got some of shape \(2, 1\). Pass one column",
    ):
        call(metric, columns)


@pytest.mark.parametrize("call", CALLS[:2])
@pytest.mark.parametrize(
    "made", [iter, lambda values: (value for value in values), lambda values: dict(enumerate(values)).values()]
)
def test_columns_that_are_read_once_are_taken(call, made, metric):
    columns = {"predictions": [0, -1, 2], "references": [0, 1, 1], "radii": [0.25, 0.0, 0.5]}
    assert call(metric, {name: made(values) for name, values in columns.items()})["certified_accuracy"][0] == 1 / 3


@pytest.mark.parametrize("call", CALLS[:2])
@pytest.mark.parametrize("column", ["predictions", "references", "radii"])
@pytest.mark.parametrize("value", [1, np.int64(1), np.asarray(1), torch.tensor(1)])
def test_one_number_is_no_column(call, column, value, metric):
    columns = {"predictions": [0], "references": [0], "radii": [0.25], column: value}
    with pytest.raises(ValueError, match=rf"`{column}` must have one entry for each image"):
        call(metric, columns)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("column", ["predictions", "references"])
@pytest.mark.parametrize("made", [np.uint8, np.uint16, torch.uint8])
def test_an_abstention_that_an_unsigned_column_has_lost_is_noticed(call, column, made, metric):
    """-1 becomes 255 in uint8: no abstention, and a class that nobody has."""
    lost = np.asarray([0, -1]).astype("uint8" if made is torch.uint8 else made)
    lost = torch.from_numpy(lost) if made is torch.uint8 else lost
    columns = {"predictions": [0, 1], "references": [0, 1], "radii": [0.25, 0.0], column: lost}
    with pytest.raises(ValueError, match=rf"`{column}` must be of a signed dtype, got (255|65535) as uint"):
        call(metric, columns)
    whole = {"predictions": [0, 1], "references": [0, 1], "radii": [0.25, 0.0], column: (lost * 0)}
    assert call(metric, whole)["abstention_rate"] == 0.0


def test_the_mathematics_needs_no_torch():
    script = """
        import sys
        import hf_smoothing.statistics, hf_smoothing.metrics
        hf_smoothing.metrics.certified_accuracy_path()
        assert not {"torch", "transformers", "datasets", "evaluate"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


WAYS = {
    "compute": lambda metric, columns: metric.compute(**columns),
    "add_batch": lambda metric, columns: metric.add_batch(**columns),
    "add": lambda metric, columns: metric.add(**{name if name == "radii" else name[:-1]: values if values is None else values[0] for name, values in columns.items()}),
}  # fmt: skip


@pytest.mark.parametrize("absent", [True, False])
@pytest.mark.parametrize("missing", [("predictions",), ("references",), ("radii",), ("predictions", "references")], ids=str)  # fmt: skip
@pytest.mark.parametrize("way", WAYS)
def test_columns_that_are_missing_are_named(metric, way, missing, absent):
    columns = {name: values for name, values in COLUMNS.items() if name not in missing}
    if not absent:
        columns |= dict.fromkeys(missing)
    with pytest.raises(ValueError, match=missing[0] if way == "add" else ".*".join(missing)) as caught:
        WAYS[way](metric, columns)
    assert re.search("none for|inputs are missing|must be .* got None", str(caught.value))


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("short", [[], [0], [0] * 7])
@pytest.mark.parametrize("way", ["compute", "add_batch"])
def test_columns_of_different_lengths_are_refused(metric, way, name, short):
    with pytest.raises(ValueError, match=f"one entry for each image, got .*{len(short)} {name}"):
        WAYS[way](metric, COLUMNS | {name: short})
    assert metric.compute(**COLUMNS)["num_images"] == 5  # nothing of the refused columns is left


def test_an_option_that_is_refused_costs_no_batch(metric):
    metric.add_batch(**COLUMNS)
    for wrong, error in (
        ({"thresholds": [-1]}, ValueError),
        ({"threshold": [0.5]}, TypeError),
        ({"sigma": 64}, ValueError),
    ):
        with pytest.raises(error):
            metric.compute(**wrong)
    assert metric.compute(n=1000)["num_images"] == 5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_radii_that_were_rounded_over_a_threshold_are_refused(metric, dtype):
    radii = torch.tensor([0.49995], dtype=dtype)
    for given in (radii, [*radii], *([radii.numpy(), [*radii.numpy()]] if dtype == torch.float16 else [])):
        with pytest.raises(ValueError, match=f"at least float32, got {dtype}".replace("torch.", "")):
            metric.compute(predictions=[0], references=[0], radii=given)
