"""What all figures share."""

from __future__ import annotations

import itertools

import matplotlib.image
import numpy as np
import pytest

from hf_smoothing.drawing import (
    FLOOR,
    floor,
    legend_above,
    legend_entries,
    new_figure,
    plain,
    points,
    save,
    series,
    shifts,
)


def test_a_figure_is_twice_the_width_at_which_it_is_read(tmp_path):
    figure, panels = new_figure(2.0, 1, 3)
    assert panels.shape == (1, 3)
    file = save(figure, tmp_path / "deep" / "one.png")
    assert matplotlib.image.imread(file).shape[:2] == (400, 1700)


@pytest.mark.parametrize(
    "name", ["_hidden", "__", "$x$", r"a$\frac$b", r"$\nosuch{", "one $", r"\$", "a_b", "100 %", "\udcff"]
)
def test_a_name_is_shown_as_it_is(name, tmp_path):
    """In legends, titles, axes and ticks alike: no formula, and no entry that is left out."""
    figure, panels = new_figure(2.0)
    points(panels[0, 0], [0.0], [1], [0], [2], label=name, style=series(0))
    panels[0, 0].set(title=plain(name), xlabel=plain(name), xticks=[0], xticklabels=[plain(name)])
    legend_above(figure, panels[0, 0], 1)
    save(figure, tmp_path / "one.png")
    (text,) = figure.legends[0].get_texts()
    shown = [text, panels[0, 0].title, panels[0, 0].xaxis.label, panels[0, 0].get_xticklabels()[0]]
    for one in shown:
        drawn, math = one._preprocess_math(one.get_text())
        assert not math and drawn.removeprefix("\u200b") == name.replace("\udcff", "?")


def test_series_differ_in_line_and_marker_and_not_in_colour_alone():
    for one, other in itertools.combinations([series(k) for k in range(7)], 2):
        assert one["linestyle"] != other["linestyle"] and one["marker"] != other["marker"]
        assert one["color"] != other["color"]


def test_every_value_has_its_interval_at_its_place():
    figure, panels = new_figure(2.0)
    points(panels[0, 0], [0.0, 0.5], [40, 20], [30, 12], [50, 31], label="m", style=series(0), shift=0.1)
    (container,) = panels[0, 0].containers
    line, _, (bars,) = container.lines
    assert line.get_xydata().tolist() == [[0.1, 40.0], [0.6, 20.0]]
    assert [bar.tolist() for bar in bars.get_segments()] == [[[0.1, 30.0], [0.1, 50.0]], [[0.6, 12.0], [0.6, 31.0]]]
    assert line.get_marker() == "o" and line.get_linewidth() < 1
    save(figure, "/dev/null")


@pytest.mark.parametrize("places", [[0.0, 0.25, 0.5], [0.0, 1.0, 1.1], [0.5]])
def test_series_beside_a_place_stay_nearer_to_it_than_to_the_next(places):
    moved = shifts(5, places)
    assert len(set(moved)) == 5 and np.isclose(moved.sum(), 0.0)
    gap = min(np.diff(places)) if len(places) > 1 else 0.2
    assert 2 * max(abs(moved)) < 0.6 * gap
    assert shifts(1, places).tolist() == [0.0]


def test_the_floor_is_in_the_legend_and_the_legend_above_the_panels():
    figure, panels = new_figure(4.0, 2)
    for panel in panels[:, 0]:
        points(panel, [0.0, 0.5], [40, 20], [30, 12], [50, 31], label="m", style=series(0))
        floor(panel, 14.0)
    assert legend_entries(panels[0, 0])[1] == ["m", FLOOR]
    assert panels[0, 0].get_lines()[-1].get_ydata() == [14.0, 14.0]
    legend_above(figure, panels[0, 0], 2)
    figure.canvas.draw()
    (legend,) = figure.legends
    assert legend.get_window_extent().y0 >= panels[0, 0].get_window_extent().y1


def test_no_series_stands_at_a_negative_radius():
    _, panels = new_figure(2.0)
    places, moved = [0.0, 0.25, 0.5], shifts(3, [0.0, 0.25, 0.5])
    reach = float(abs(moved).max())
    for number, shift in enumerate(moved):
        points(
            panels[0, 0],
            places,
            [1] * 3,
            [0] * 3,
            [2] * 3,
            label="m",
            style=series(number),
            shift=float(shift),
            reach=reach,
        )
    found = np.array([container.lines[0].get_xdata() for container in panels[0, 0].containers])
    assert found.min() == 0.0 and len(set(found[:, 0])) == 3  # beside one another there as well
    assert np.allclose(found[:, 1:], np.array(places[1:]) + moved[:, None])
