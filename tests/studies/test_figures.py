"""What the figures of the studies draw, from records written by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from datasets import load_dataset
from matplotlib.figure import Figure

from examples.studies.command import DOCS
from examples.studies.figures import mean_interval
from examples.studies.labels import NAMES, file_of, one_class_for_all, write
from examples.studies.smoothing_transfer import gallery
from examples.studies.tradeoff import plot
from examples.studies.training_methods.figures import curves
from hf_smoothing.statistics import interval
from tests.support.image_folders import image_folder


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are written."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **options: figures.append(figure))
    return figures


def heights(container):
    return container.lines[0].get_ydata().tolist()


def test_the_interval_of_one_seed_is_exact_and_that_of_several_no_narrower():
    source = np.random.default_rng(0)
    right = source.random((3, 50, 4)) < [0.9, 0.5, 0.1, 0.0]
    for seed in right:
        lower, upper = interval(seed.sum(0), 50, 0.95)
        np.testing.assert_allclose(mean_interval(seed[None]), 100 * np.array([seed.mean(0), lower, upper]))
        np.testing.assert_allclose(mean_interval(np.array([seed] * 3)), mean_interval(seed[None]))
    mean, low, high = mean_interval(right)
    np.testing.assert_allclose(mean, 100 * right.mean((0, 1)))
    assert np.all(low <= mean) and np.all(mean <= high) and high[3] > 0.0
    spread = 1.96 * 100 * right.mean(0).std(0) / 50**0.5
    assert np.all(high - low >= 2 * spread)


def test_the_floor_is_that_of_the_embedded_images(tmp_path):
    labels = load_dataset(str(DOCS.parent / "examples" / "data"), split="test")["label"]  # every 20th of CIFAR-10
    assert one_class_for_all(DOCS, "cifar10", 500) == pytest.approx(100 * np.bincount(labels).max() / 500)
    digits = json.loads(file_of(DOCS).read_text())
    assert {name: len(found) for name, found in digits.items()} == dict.fromkeys(NAMES, 10_000)
    first = [int(digit) for digit in digits["mnist"][:100]]
    assert one_class_for_all(DOCS, "mnist", 100, spread=False) == pytest.approx(np.bincount(first).max())
    assert one_class_for_all(DOCS, "another", 100) is None
    for name in NAMES:
        image_folder(tmp_path / "data" / name, ["x", "y"], 6)
    write(tmp_path / "data", tmp_path)
    test = load_dataset(str(tmp_path / "data" / "mnist"), split="test")["label"]
    assert json.loads(file_of(tmp_path).read_text())["mnist"] == "".join(map(str, test))


def test_each_method_stands_beside_the_baseline_at_the_targets(tmp_path, drawn):
    config = {"baseline": "noise", "certification": {"up_to": 1}}
    radii = {"noise": {0: [0.3, 0.1, -1, -1], 1: [0.3, 0.3, -1, -1]}, "other": {0: [0.25, 0.2, 0.1, -1]}}
    found = {name: {seed: np.array(one) for seed, one in seeds.items()} for name, seeds in radii.items()}
    curves(config, found, 0.25, 11.2, tmp_path / "one.png")
    panel = drawn[0].axes[0]
    assert [heights(container) for container in panel.containers] == [[50.0, 37.5, 37.5], [75.0, 50.0, 25.0]]
    assert panel.get_title() == "other, one seed"
    names = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert names == ["noise, mean of 2 seeds", "the method", "one class for all"]
    assert panel.get_ylim()[0] == 0.0


def test_right_and_wrong_differ_in_a_mark(tmp_path, drawn):
    record = json.loads(gallery.file_of(DOCS).read_text())["cpu"]
    assert all(len(row) == len(record["png"]) == 8 for seen in record["predictions"].values() for row in seen)
    gallery.draw(record, tmp_path / "one.png")
    rows = np.array(drawn[0].axes).reshape(len(record["sigmas"]), 8)
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            texts = [text.get_text() for text in panel.texts if not text.get_text().endswith(":")]
            for text, seen in zip(texts, record["predictions"].values(), strict=True):
                assert text == f"{'✓' if seen[i][j] == record['labels'][j] else '✗'} {seen[i][j]}"
    colours = {text.get_text()[0]: text.get_color() for panel in rows.flatten() for text in panel.texts}
    assert colours["✓"] != colours["✗"]


def test_the_gallery_holds_the_images_of_the_data_set():
    record = json.loads(gallery.file_of(DOCS).read_text())["cpu"]
    embedded = load_dataset(str(DOCS.parent / "examples" / "data"), split="test")
    names = embedded.features["label"].names
    clean = gallery.noisy(record)[0].permute(0, 2, 3, 1).numpy()
    for place, (index, label) in enumerate(zip(record["images"], record["labels"], strict=True)):
        if index % 20 == 0:
            row = embedded[index // 20]
            assert names[row["label"]] == label
            np.testing.assert_allclose(clean[place], np.array(row["image"]) / 255, atol=1e-6)


def networks(*accuracies):
    found = [("adaptive", 0.5, accuracies[0]), *(("fixed", 0.9, accuracy) for accuracy in accuracies[1:])]
    return [
        {"kind": kind, "kappa": kappa, "seed": 0, "images": 100, "acr_percent": 20.0 + k, "right": {"0": right}}
        for k, (kind, kappa, right) in enumerate(found)
    ]


def test_a_crowd_of_good_networks_is_shown_again_beside_the_whole(tmp_path, drawn):
    plot(networks(96, 95, 94, 20), tmp_path / "one.png", floor_percent=12.6)
    whole, close = drawn[0].axes
    assert whole.get_xlim()[0] == 0.0 and whole.get_ylim() == (0.0, 100.0)
    assert [sum(len(heights(c)) for c in panel.containers) for panel in (whole, close)] == [4, 3]
    assert whole.get_lines()[-1].get_xydata().tolist() == [[12.6, 12.6]]
    plot(networks(96, 50, 20), tmp_path / "two.png", "cifar10")
    (alone,) = drawn[1].axes
    assert sum("published" in name for name in alone.get_legend_handles_labels()[1]) == 2
    (container, _) = alone.containers
    lower, upper = interval([96], 100, 0.95)
    (bar,) = container.lines[2][0].get_segments()
    assert bar[:, 1].tolist() == pytest.approx([100 * lower[0], 100 * upper[0]])
