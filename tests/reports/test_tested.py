"""What a run did not look for is unknown, never 0: table, curve, histogram, card and notes have one answer to how far it looked."""

from __future__ import annotations

import re

import pytest
import torch

from hf_smoothing import certify_dataset
from hf_smoothing.records import read_run
from hf_smoothing.reports import columns, measure, report, tested
from hf_smoothing.reports.card_results import certified_shares
from hf_smoothing.reports.curves import figure_of
from hf_smoothing.reports.remarks import by_row
from hf_smoothing.reports.tables import cells
from hf_smoothing.statistics import max_radius
from tests.support.published import log
from tests.support.tiny import data
from tests.support.written_runs import CURVE, LINF, SEQUENTIAL, SETTINGS, written_run


SPENDING = {"name": "sequential, error spending"}
KINDS = {
    "fixed": {},
    "fixed, of a small sigma": {"sigma": 0.12},
    "fixed, on the grid": {"noise_kind": "grid", "total_variation": 1e-6},
    "runner-up": {"bound": "runner-up"},
    "targets": {"rule": SEQUENTIAL},
    "targets without 0": {"rule": SEQUENTIAL | {"targets": [0.25, 0.5]}},
    "targets, error spending": {"rule": SEQUENTIAL | SPENDING},
    "label-aware targets": {"rule": SEQUENTIAL | {"n0": 0}, "label_aware": True},
    "a target out of reach": {"rule": SEQUENTIAL | {"targets": [0.0, 0.25, 3.0]}},
    "curve": {"rule": CURVE},
    "curve, error spending": {"rule": CURVE | SPENDING},
    "label-aware curve": {"rule": CURVE | {"n0": 0}, "label_aware": True},
    "tiny images": {"resolution": [1, 1, 1], "sigma": 1.0},
    "interval": LINF | {"rule": LINF["rule"] | {"largest": 0.1}},
    "interval, all pixels": LINF,
}
"""What is other in the settings of a run, by its kind."""


def looked_for(folder, changes):
    """A run in which one image of four has the largest radius that its kind allows, another half of it, and two have none; and that radius."""
    most = tested.Tested.of(SETTINGS | changes).up_to
    rows = [(0, 0, most), (1, 1, most / 2), (2, 2, 0.0), (3, 1, 0.0)]
    return read_run(written_run(folder, rows, **changes)), most


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_said_of_radii_that_were_not_looked_for(kind, tmp_path):
    """Neither in a table nor in a figure, nor in what the Hub shows, in the company of a run that went further."""
    run, most = looked_for(tmp_path / "a", KINDS[kind])
    longer = dict(KINDS[kind])
    if "largest" in longer.get("rule", {}):
        longer["rule"] = longer["rule"] | {"largest": 1.0}
    other, further = looked_for(tmp_path / "b", longer | ({} if run.settings["norm"] == "linf" else {"sigma": 2.0}))
    radii = sorted({0.0, most / 2, most, *([(most + further) / 2, further] if further > most else [])})
    measured = [measure(one, radii) for one in (run, other)]

    head, row, _ = cells(measured)
    shown = dict(zip(radii, row[head.index("sigma") + 1 :], strict=False))
    assert [radius for radius, cell in shown.items() if cell == "-"] == [radius for radius in radii if radius > most]
    assert shown[most].startswith("25.0 (")
    assert max(radius for radius, _ in certified_shares(measured[0])) <= most

    panel = figure_of(measured).axes[0]
    drawn = panel.containers[0].lines[0] if measured[0].tested.chosen else panel.get_lines()[0]
    x, y = drawn.get_xdata(), drawn.get_ydata()
    step = 0.0 if measured[0].tested.chosen is None else 0.02 * further  # markers stand beside their targets
    assert x[-1] == pytest.approx(min(most, 1.02 * further), abs=step) and y[-1] == 25.0
    assert len(x) > 1 and 0.0 not in y


@pytest.mark.parametrize("kind", KINDS)
def test_an_axis_ends_where_the_last_run_stopped_looking(kind, tmp_path):
    run, most = looked_for(tmp_path / "a", KINDS[kind])
    panel = figure_of([measure(run)]).axes[0]
    if measure(run).tested.chosen is None:
        assert panel.get_xlim() == (0.0, most)
        assert panel.get_xlabel().endswith("\na curve ends at the largest radius that was tested")
    else:
        assert panel.get_xlim()[1] <= 1.03 * most and "curve" not in panel.get_xlabel()


def test_a_curve_falls_to_0_where_a_run_looked_and_found_nothing(tmp_path):
    run = read_run(written_run(tmp_path / "a", [(0, 0, 0.01)] * 4, **KINDS["interval"]))
    panel = figure_of([measure(run)]).axes[0]
    x, y = panel.get_lines()[0].get_xydata().T
    assert (y[0], y[-1]) == (100.0, 0.0) and 0.01 < x[-1] < 0.011
    assert "ends" not in panel.get_xlabel()


@pytest.mark.parametrize("largest", [1.0, 0.02])
def test_a_run_that_certified_nothing_is_drawn_as_far_as_it_looked(largest, tmp_path):
    changes = LINF | {"rule": LINF["rule"] | {"largest": largest}}
    run = read_run(written_run(tmp_path / "a", [(0, 1, 0.0)] * 4, **changes))
    assert figure_of([measure(run)]).axes[0].get_xlim() == (0.0, largest)


def test_a_published_log_does_not_say_how_far_it_looked(tmp_path):
    from hf_smoothing.reports import read_published_log

    run = read_published_log(log(tmp_path / "sigma_0.50"))
    m = measure(run, [0.0, 5.0])
    most = max(columns(run)[2])
    assert m.tested.up_to == float("inf") and cells([m])[1][3].startswith("0.0 (")
    assert figure_of([m]).axes[0].get_xlim() == pytest.approx((0.0, 1.02 * most))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("interval", "The largest radius that was looked for is 0.1: 1 of these images reaches it, and might have more."),
        ("fixed", f"The largest radius that this run can certify is {str(max_radius(1000, 0.001, 0.5))[:5]}: 1 of these"),
        ("fixed, on the grid", "The largest radius that this run can certify is 1.231: 1 of these"),
        ("curve", "Draws stopped at 1.2, the last radius of the curve: 1 of these"),
        ("targets", ""),
    ],
)  # fmt: skip
def test_a_histogram_says_which_images_might_have_more(kind, said, tmp_path):
    run, _ = looked_for(tmp_path / "a", KINDS[kind])
    report([run.path], output_dir=tmp_path, html=True)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"<p>{said}" in page if said else "might have more." not in page
    fewer = written_run(tmp_path / "b", [(0, 0, 0.0625)] * 4, **KINDS[kind])
    report([fewer], output_dir=tmp_path, html=True)
    assert "might have more." not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_notes_say_of_which_rows_they_are(tmp_path):
    """Also where the runs of a table have one name; not where a note is of all."""
    largest = [0.1, 0.02, 0.1]
    folders = [
        written_run(tmp_path / str(k), [(0, 0, 0.01)] * 4, **LINF | {"rule": LINF["rule"] | {"largest": one}})
        for k, one in enumerate(largest)
    ]
    text = report(folders, output_dir=tmp_path / "out", html=True)
    assert "\nRows 1 and 3: No radius above 0.1 was looked for" in text
    assert "\nRow 2: No radius above 0.02 was looked for" in text
    assert "\n- Row 2: Not tested: the largest radius that was looked for is 0.02.\n" in text
    assert "<p>Row 2: Not tested: " in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "\nNo radius above 0.1 was looked for" in report(folders[::2])
    sigmas = [written_run(tmp_path / f"s{sigma}", [(0, 0, 0.0)] * 4, sigma=sigma, rule=CURVE) for sigma in (0.5, 1.0)]
    text = report(sigmas)
    assert "\n† Row 1: Draws stopped when every radius" in text and "\n† Row 2: Draws stopped when the targets" in text
    begun = written_run(tmp_path / "begun", [(0, 0, 0.5), (1, 1, 0.0)])
    assert "\nRow 2: Unfinished: " in report([written_run(tmp_path / "whole", [(0, 0, 0.5), (1, 1, 0.0)] * 2), begun])
    assert by_row([[], ["a", "a"]]) == ["Row 2: a"] and by_row([["", "- a"]] * 2) == ["- a"]


def test_images_without_a_radius_are_named(tmp_path):
    """A run that left out what is answered wrong has the same figures as another, and no radius of 0 where none was looked for."""
    rows = [(0, 0, 0.05), (1, 1, 0.0), (2, 1, 0.0), (3, 3, 0.1)]
    folders = [
        written_run(tmp_path / str(k), rows, **LINF | {"rule": LINF["rule"] | {"largest": 0.1} | more})
        for k, more in enumerate(({}, {"only_right": True}))
    ]
    text = report(folders, output_dir=tmp_path, html=True)
    assert text.count("| model") == 1
    assert "\nRow 2: Images that the network answers wrong were given no radius.\n" in text
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    wrong = re.findall(r"<tr data-outcome='wrong'>(?:<td>[^<]*</td>){3}<td>([^<]*)</td>", page)
    assert wrong == ["0.00000", "-"]


@pytest.mark.parametrize("noise_kind", ["grid", "gaussian"])
@pytest.mark.parametrize("bound", ["one-sided", "runner-up"])
def test_the_end_of_a_run_is_the_radius_of_unanimous_votes(bound, noise_kind, tmp_path):
    """As the run computed it, to the last bit: its curve does not fall just before its end."""

    def constant(x):
        return torch.tensor([[1.0, 0.0]]).repeat(len(x), 1)

    run = certify_dataset(
        constant, data(2), tmp_path / "run", sigma=0.25, n=50, seed=0, mode="fixed", bound=bound, noise_kind=noise_kind,
        progress=False,
    )  # fmt: skip
    assert {row["radius"] for row in run.rows.values()} == {tested.Tested.of(run.settings).up_to}
