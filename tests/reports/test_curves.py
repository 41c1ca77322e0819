"""The picture of a run: at its targets, or as a curve where every radius was decided."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from hf_smoothing.drawing import FLOOR
from hf_smoothing.records import read_run
from hf_smoothing.reports import measure, report
from hf_smoothing.reports.curves import figure_of
from hf_smoothing.statistics import interval
from tests.support.written_runs import CURVE, ROWS, SEQUENTIAL, written_run


@pytest.fixture
def drawn(monkeypatch):
    """The panels of the figures that are written."""
    panels = []
    save = Figure.savefig

    def watched(figure, *args, **options):
        panels.extend(figure.axes)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", watched)
    return panels


def bars_of(container):
    """(radius, lower, upper) of every marker."""
    return [(bar[0][0], bar[0][1], bar[1][1]) for bar in container.lines[2][0].get_segments()]


def test_a_run_with_targets_is_drawn_at_them_and_nowhere_else(tmp_path, drawn):
    report([written_run(tmp_path / "a", rule=SEQUENTIAL)], output_dir=tmp_path)
    (panel,) = drawn
    (container,) = panel.containers
    # Images certified at 0.985 and 0.25 of four; no marker at 0.985, where the draws happened to stop.
    assert container.lines[0].get_xydata().tolist() == [[0.0, 50.0], [0.25, 50.0]]
    lower, upper = interval([2], 4, 0.95)
    for bar, radius in zip(bars_of(container), (0.0, 0.25), strict=True):
        assert bar == pytest.approx((radius, 100 * lower[0], 100 * upper[0]))
    assert not panel.collections[1:]  # the bars, and no band
    assert panel.get_xlim()[1] < 0.27 and panel.get_ylim() == (0.0, 100.0)
    assert "markers: targets" in panel.get_xlabel()


def test_the_floor_of_large_class_numbers_takes_no_memory(tmp_path, drawn):
    report([written_run(tmp_path / "a", [(9 * 10**11, 0, 0.3)] * 3 + [(1, 1, 0.2)])], output_dir=tmp_path)
    assert drawn[0].get_lines()[-1].get_ydata() == [75.0, 75.0]


def test_every_run_is_in_every_legend_whatever_its_name(tmp_path, drawn):
    """Markers, curves and histograms; a name that is no formula of matplotlib's stops no report."""
    names = ["_under", "$\\nosuch{$", "$a$"]
    folders = [
        written_run(tmp_path / "a", rule=SEQUENTIAL),
        written_run(tmp_path / "b", rule=CURVE),
        written_run(tmp_path / "c"),
    ]
    for folder, name in zip(folders, names, strict=True):
        panels = len(drawn)
        report([folder], names=[name], output_dir=tmp_path / "out", html=True)
        legends = [
            legend for panel in drawn[panels:] for legend in (panel.get_legend(), *panel.figure.legends) if legend
        ]
        assert legends and all(
            any(name in text.get_text().replace("\\$", "$") for text in legend.get_texts()) for legend in legends
        )


@pytest.mark.parametrize("rule", [None, CURVE], ids=["fixed", "curve"])
def test_a_run_that_decided_every_radius_keeps_its_curve_and_band(rule, tmp_path, drawn):
    run = read_run(written_run(tmp_path / "a", **({"rule": rule} if rule else {})))
    report([run.path], output_dir=tmp_path)
    (first, second), (panel,) = (run.rows[index]["radius"] for index in (0, 1)), drawn
    assert not panel.containers and len(panel.collections) == 1
    x, y = panel.get_lines()[0].get_xydata().T
    assert len(x) == 400 and x[0] == 0.0 and x[-1] > first
    np.testing.assert_array_equal(y, np.where(x <= second, 50.0, np.where(x <= first, 25.0, 0.0)))
    assert "targets" not in panel.get_xlabel()


def test_markers_of_several_runs_stand_side_by_side(tmp_path, drawn):
    folders = [written_run(tmp_path / name, rule=SEQUENTIAL, model={"id": name}) for name in "abc"]
    report(folders, output_dir=tmp_path)
    places = [bars_of(container)[1][0] for container in drawn[0].containers]
    assert len(set(places)) == 3 and places[1] == 0.25
    assert max(abs(np.array(places) - 0.25)) < 0.1
    left, right = drawn[0].get_xlim()
    assert all(left < bar[0] < right for container in drawn[0].containers for bar in bars_of(container))


def test_a_target_that_no_draws_can_certify_is_not_drawn(tmp_path, drawn):
    report([written_run(tmp_path / "a", rule=SEQUENTIAL | {"targets": [0.0, 0.25, 3.0]})], output_dir=tmp_path)
    assert [bar[0] for bar in bars_of(drawn[0].containers[0])] == [0.0, 0.25]


def test_the_floor_is_the_most_frequent_class(tmp_path, drawn):
    assert [label for label, _, _ in ROWS] == [0, 1, 2, 3]
    rows = [(1, 0, 0.3), *ROWS[1:]]
    report([written_run(tmp_path / "a", rows)], output_dir=tmp_path)
    panel = drawn[0]
    assert panel.get_lines()[-1].get_ydata() == [50.0, 50.0]
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["tiny, sigma 0.5", "one class for all"]


def test_the_floor_does_not_depend_on_the_order_of_the_runs(tmp_path):
    whole = read_run(written_run(tmp_path / "z", [(label, label, 0.5) for label in (0, 1, 2, 0)]))
    begun = read_run(written_run(tmp_path / "a", [(0, 0, 0.5)]))
    for order in ([whole, begun], [begun, whole]):
        panel = figure_of([measure(run) for run in order]).axes[0]
        assert [line.get_ydata()[0] for line in panel.get_lines() if line.get_label() == f"_{FLOOR}"] == [50.0]
