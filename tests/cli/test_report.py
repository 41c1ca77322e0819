"""`hf-smoothing report` on run folders written by hand, so that every figure is known."""

import re
import sys
from decimal import Decimal

import matplotlib.image
import numpy as np
import pytest

from hf_smoothing.certification.rules import make_rule
from hf_smoothing.cli import main
from hf_smoothing.records import read_run
from hf_smoothing.reports import report, table
from hf_smoothing.reports.measured import names_of
from hf_smoothing.statistics import interval
from hf_smoothing.units import diameter
from tests.support.written_runs import CURVE, LINF, SEQUENTIAL, SETTINGS, short_hash
from tests.support.written_runs import written_run as run


def cells(text, line=0):
    lines = [row for row in text.splitlines() if row.startswith("| ")]
    return dict(
        zip(
            *([cell.strip() for cell in row.strip("|").split("|")] for row in (lines[0], lines[1 + line])), strict=True
        )
    )


def png_size(file):
    assert file.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    return matplotlib.image.imread(file).shape


def test_figures_by_hand(tmp_path, capsys):
    assert main(["report", str(run(tmp_path / "a")), "--output-dir", str(tmp_path / "out")]) == 0
    row = cells(capsys.readouterr().out)
    lower, upper = interval([2], 4, 0.95)
    assert row["r = 0"] == f"50.0 ({100 * lower[0]:.1f}-{100 * upper[0]:.1f})"
    assert (
        row["r = 0.25"].startswith("50.0 (")
        and row["r = 0.5"].startswith("25.0 (")
        and row["r = 1"].startswith("0.0 (")
    )
    assert (row["model"], row["sigma"], row["abstained"], row["images"]) == ("tiny", "0.5", "25.0", "4")


def test_the_average_radius_is_rounded_down(tmp_path):
    # (0.9999 + 0.25) / 4 = 0.312475; and 3.9999 / 4 = 0.999975, which rounds to 0.99998.
    rows = [(0, 0, 0.9999), (1, 1, 0.25), (2, -1, 0.0), (3, 1, 0.7)]
    assert cells(report([run(tmp_path / "a", rows, **LINF)]))["ACR"] == "0.31247"
    high = [(0, 0, 0.9999), (0, 0, 1.0), (0, 0, 1.0), (0, 0, 1.0)]
    assert cells(report([run(tmp_path / "b", high, **LINF)]))["ACR"] == "0.99997"


def test_a_radius_at_the_head_of_a_column_is_not_rounded_up(tmp_path):
    radius = 0.24999999
    heads = [head for head in cells(report([run(tmp_path / "a")], thresholds=[radius])) if head.startswith("r = ")]
    assert Decimal(heads[0].removeprefix("r = ")) <= Decimal(radius)


def test_the_report_is_written_with_a_valid_picture(tmp_path, capsys):
    out = tmp_path / "deep" / "out"
    assert main(["report", str(run(tmp_path / "a")), "--output-dir", str(out), "--thresholds", "0", "0.5"]) == 0
    printed = capsys.readouterr().out
    written = (out / "report.md").read_text()
    assert written in printed
    assert f"Written to {out / 'report.md'}" in printed
    picture = re.search(r"!\[.*\]\((.*)\)", written).group(1)
    height, width, channels = png_size(out / picture)
    assert height > 300 and width > 500 and channels in (3, 4)
    assert [head for head in cells(written) if head.startswith("r =")] == ["r = 0", "r = 0.5"]


def test_several_sigmas_share_a_table(tmp_path):
    folders = [run(tmp_path / str(sigma), sigma=sigma, model={"id": f"m{sigma}"}) for sigma in (0.5, 1.0)]
    text = report(folders, output_dir=tmp_path / "out")
    assert text.count("| model") == 1
    assert [cells(text, line)["sigma"] for line in (0, 1)] == ["0.5", "1"]
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"report.md", "certified_accuracy.png"}


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": {"id": "toys", "split": "test", "sha256": "fedcba98"}},
        {"dataset": {"id": "toys", "split": "train", "sha256": "0123456789abcdef"}},
        {"rule": {"name": "fixed-n", "n0": 100, "n": 2000}},
        {"alpha": 0.01},
        {"num_images": 5},
        {"resolution": [3, 32, 32]},
        LINF,
        {"bound": "runner-up"},
        {"label_aware": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_runs_that_cannot_be_compared_are_shown_apart(change, tmp_path, capsys):
    folders = [str(run(tmp_path / "a")), str(run(tmp_path / "b", **change))]
    assert main(["report", *folders, "--output-dir", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert text.count("| model") == 2
    assert re.search(r"2 tables that must not be compared: \w.* / .*\.\n", text)
    assert {file.name for file in (tmp_path / "out").glob("*.png")} == {
        "certified_accuracy_1.png",
        "certified_accuracy_2.png",
    }


def test_what_sets_tables_apart_is_named(tmp_path):
    rule = SETTINGS["rule"] | {"n": 500}
    data = SETTINGS["dataset"] | {"sha256": "f" * 64}
    others = [run(tmp_path / "b", alpha=0.01, rule=rule), run(tmp_path / "c", dataset=data)]
    assert (
        f"compared: alpha: 0.001 / 0.01; n: 1000 / 500; images: {short_hash()} / {short_hash(4, data['sha256'])}.\n"
        in report([run(tmp_path / "a"), *others])
    )
    rows = [(0, 0, 0.9), (1, 1, 0.25), (7, -1, 0.0), (3, 1, 0.7)]
    assert "; labels of idx 2: 2 / 7.\n" in report([tmp_path / "a", run(tmp_path / "d", rows, dataset=data)])


NAMES = ["cat", "dog", "eel", "fox"]
SWAPPED = [NAMES[1], NAMES[0], *NAMES[2:]]


@pytest.mark.parametrize(
    ("names", "labels", "said"),
    [
        ((NAMES, SWAPPED), (0, 1), None),
        ((NAMES, ["Dog", "001.cat", "eel"]), (0, 1), None),
        ((NAMES, SWAPPED), (0, 0), "labels of idx 0: 0 (cat) / 0 (dog)"),
        ((NAMES, ["ant", "cat", "cow", "fox"]), (0, 0), "labels of idx 0: 0 (cat) / 0 (ant)"),
        ((NAMES, ["ant", "cat", "cow", "fox"]), (1, 1), "labels of idx 0: 1 (dog) / 1 (cat)"),
        ((["2", "0", "1"], ["0", "1", "2"]), (0, 2), None),
        ((["crane", "dog", "crane"], ["crane", "crane", "dog"]), (0, 0), None),
        ((NAMES, None), (0, 0), None),
        ((NAMES, None), (0, 1), "labels of idx 0: 0 (cat) / 1"),
        ((None, None), (0, 1), "labels of idx 0: 0 / 1"),
    ],
)
def test_labels_are_compared_by_name_where_both_runs_have_names(names, labels, said, tmp_path):
    """Models that order their classes differently give a label different numbers; right is decided within each run."""
    folders = [
        run(tmp_path / name, [(label, label, 0.5)], num_images=1, informative={"class_names": own} if own else {})
        for name, own, label in zip("ab", names, labels, strict=True)
    ]
    text = report(folders)
    assert text.count("| model") == (2 if said else 1) and (said or "") in text
    assert text.count("| 100.0") == 6, "two runs at three radii"


def test_label_aware_runs_say_so(tmp_path):
    assert "LABEL-AWARE" in report([run(tmp_path / "a", label_aware=True)])


def test_unfinished_runs_say_so(tmp_path):
    text = report([run(tmp_path / "a", num_images=10)])
    assert cells(text)["images"] == "4 of 10 (unfinished)" and "no random sample" in text
    assert "no random sample" not in report([run(tmp_path / "b")])


def test_a_run_without_rows_is_explained(tmp_path, capsys):
    folder = run(tmp_path / "a")
    (folder / "certificates-0.jsonl").write_text("")
    assert main(["report", str(folder), "--output-dir", str(tmp_path / "out")]) == 2
    assert "has no finished image yet" in capsys.readouterr().err


def test_rows_that_lack_something_are_explained(tmp_path, capsys):
    folder = run(tmp_path / "a")
    (folder / "certificates-0.jsonl").write_text('{"index": 3, "label": 1, "prediction": 1}\n')
    assert main(["report", str(folder), "--output-dir", str(tmp_path / "out")]) == 2
    assert (
        "row of image 3 is not one of this run: certified_targets, counts_by_look, draws, image_sha256, p_lower, radius, seconds are missing"
        in capsys.readouterr().err
    )


def test_names(tmp_path, capsys):
    folders = [str(run(tmp_path / name)) for name in ("a", "b")]
    assert main(["report", *folders, "--names", "first", "second", "--output-dir", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert [cells(text, line)["model"] for line in (0, 1)] == ["first", "second"]
    assert main(["report", *folders, "--names", "only", "--output-dir", str(tmp_path)]) == 2
    assert "one entry per run, got 1 for 2 runs" in capsys.readouterr().err


@pytest.mark.parametrize("radii", [["-0.5"], ["nan"]])
def test_bad_radii_are_explained(radii, tmp_path, capsys):
    assert main(["report", str(run(tmp_path / "a")), f"--thresholds={radii[0]}", "--output-dir", str(tmp_path)]) == 2
    assert "--thresholds must be finite and >= 0" in capsys.readouterr().err


def test_everything_abstained(tmp_path):
    text = report([run(tmp_path / "a", [(0, -1, 0.0)] * 4)], output_dir=tmp_path / "out")
    assert cells(text)["abstained"] == "100.0" and cells(text)["ACR"] == "0.000"
    png_size(tmp_path / "out" / "certified_accuracy.png")


@pytest.mark.parametrize(
    "other", [LINF, LINF | {"rule": LINF["rule"] | {"largest": 0.0078431}}, {"resolution": [1, 1, 1]}]
)
def test_each_table_has_the_radii_of_its_own_runs(other, tmp_path):
    """Radii of one group are none that somebody gave for another, where they may not even be possible."""
    first = run(tmp_path / "a", rule=SEQUENTIAL | {"targets": [0.0, 0.25, 1.1]}, num_images=4)
    second = run(tmp_path / "b", [(0, 0, 0.005), (1, 1, 0.0), (2, -1, 0.0), (3, 1, 0.0)], **other)
    text = report([first, second])
    alone = [report([folder]) for folder in (first, second)]
    tables = [[line for line in one.splitlines() if line.startswith("| model")] for one in (text, *alone)]
    assert tables[0] == tables[1] + tables[2] and len(tables[0]) == 2
    with pytest.raises(ValueError, match="`thresholds`"):
        report([first, second], thresholds=[0.0, 2.0])


@pytest.mark.parametrize("html", [[], ["--html"]])
def test_without_matplotlib_there_is_all_but_the_picture(html, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    folders = [str(run(tmp_path / "a")), str(run(tmp_path / "b", alpha=0.01))]
    assert main(["report", *folders, *html, "--output-dir", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert out.count("| model") == 2 and "curves beside it" not in out
    assert out.count("pip install 'hf_smoothing[plots]'") == 1
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"report.md", *(["report.html"] if html else [])}
    for file in (tmp_path / "out").iterdir():
        text = file.read_text(encoding="utf-8")
        assert "50.0 (6.8-93.2)" in text and "[plots]" in text and ".png" not in text


def test_small_radii_are_printed_with_the_digits_that_they_need(tmp_path):
    """In the table, its notes and the list of images alike; rounded down."""
    rule = LINF["rule"] | {"largest": 0.0078439}
    rows = [(0, 0, 0.0078439), (1, 1, 0.0039218), (2, 2, 0.0), (3, 1, 0.0)]
    text = report(
        [run(tmp_path / "a", rows, **LINF | {"rule": rule})], thresholds=[0.0, 0.01], output_dir=tmp_path, html=True
    )
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for shown in (text, page):
        assert "the largest radius that was looked for is 0.0078439." in shown
    assert cells(text)["ACR"] == "0.00294"
    assert "<td>0.00784</td>" in page and "<td>0.00392</td>" in page


def test_a_table_needs_the_same_radii(tmp_path):
    from hf_smoothing.records import read_run
    from hf_smoothing.reports import measure

    folder = read_run(run(tmp_path / "a"))
    with pytest.raises(ValueError, match="same radii"):
        table([measure(folder, [0.0]), measure(folder, [0.5])])


def test_a_picture_of_a_dozen_logs_leaves_room_for_the_curves(tmp_path, monkeypatch):
    """Whole paths in the legend would crush the axes: the names are cut to what differs, and stand beside the plot."""
    from matplotlib.figure import Figure

    seen = []
    save = Figure.savefig

    def watched(figure, *args, **options):
        save(figure, *args, **options)
        axes = figure.axes[0]
        seen.append(
            (
                figure,
                axes.get_window_extent(),
                axes.get_legend().get_window_extent(),
                axes.get_legend_handles_labels()[1],
            )
        )

    monkeypatch.setattr(Figure, "savefig", watched)
    folder = tmp_path / "certification_output" / "cifar10"
    for k in range(12):
        place = folder / f"method-{k}-with-a-long-name-of-its-own" / "noise_0.50" / "test"
        place.mkdir(parents=True)
        (place / "sigma_0.50").write_text("idx\tlabel\tpredict\tradius\n0\t3\t3\t1.2\n1\t3\t3\t0.4\n")
    report(sorted(folder.glob("*/*/*/sigma_*")), output_dir=tmp_path / "out")
    figure, plot_box, legend_box, labels = seen[0]
    width = figure.get_window_extent().width
    assert plot_box.width > 0.45 * width
    assert legend_box.x0 >= plot_box.x1 and legend_box.x1 <= width + 3  # beside the plot, not over it, and not cut off
    assert len(set(labels)) == 12 and all("certification_output" not in label and len(label) < 45 for label in labels)
    assert png_size(tmp_path / "out" / "certified_accuracy.png")[1] >= 1700


@pytest.mark.parametrize(
    ("changes", "has", "lacks"),
    [
        ({}, [], ["†", "mode curve", "looked for"]),
        ({"bound": "runner-up"}, [], ["†", "mode curve"]),
        ({"rule": SEQUENTIAL}, ["targets of a run were decided", "use mode curve or fixed"], ["largest certified target"]),
        ({"rule": CURVE}, ["each sigma/10 = 0.05 up to 1.2, was decided", "slightly more", "by mode fixed"], ["mode curve", "targets of this run"]),
        (
            {"rule": SEQUENTIAL | {"name": "sequential, error spending"}},
            ["largest certified target", "use mode curve or fixed"],
            ["looked for"],
        ),
        ({"rule": SEQUENTIAL | {"n0": 0}, "label_aware": True}, ["use mode curve to measure", "LABEL-AWARE"], ["fixed to"]),
        ({"rule": CURVE | {"n0": 0}, "label_aware": True}, ["by targets of your own"], ["mode curve", "mode fixed"]),
        (
            LINF,
            ["No radius above 1 was looked for"],
            ["†", "mode curve", "Draws"],
        ),
    ],
    ids=["fixed", "runner-up", "targets", "curve", "spending", "label-aware", "label-aware curve", "interval"],
)  # fmt: skip
def test_the_note_fits_the_run(changes, has, lacks, tmp_path):
    text = report([run(tmp_path / "a", **changes)])
    for words in has:
        assert words in text
    for words in lacks:
        assert words not in text


def test_the_table_of_a_curve_shows_every_fifth_radius(tmp_path):
    heads = [head for head in cells(report([run(tmp_path / "a", rule=CURVE)])) if head.startswith("r = ")]
    assert heads == ["r = 0", "r = 0.25", "r = 0.5", "r = 0.75", "r = 1"]


@pytest.mark.parametrize(
    ("sigma", "targets"),
    [
        (1.0, [0.0, 0.1, 0.2, 0.3]),
        (0.25, [0.0, 0.025]),
        (2.5, [0.0, 0.25, 0.5, 0.75, 1.0]),
        (0.5, CURVE["targets"][:-1]),
    ],
)
def test_own_targets_that_begin_like_a_curve_are_targets(sigma, targets, tmp_path):
    """Between them and beyond them nothing was decided; and the whole curve, as mode curve makes it, is one."""
    rows = [(0, 0, targets[-1]), (1, 1, 0.0), (2, -1, 0.0), (3, 3, targets[1])]
    beyond = round(targets[-1] + 0.2 * sigma, 6)
    folder = run(tmp_path / "a", rows, sigma=sigma, rule=SEQUENTIAL | {"targets": targets})
    text = report([folder], thresholds=[*targets, beyond])
    assert cells(text)[f"r = {beyond:g}"] == "-" and "Not tested" in text
    assert "when the targets of a run were decided" in text and "of the curve" not in text
    assert [head for head in cells(report([folder])) if head.startswith("r = ")] == [f"r = {r:g}" for r in targets]
    for aware in (False, True):
        for shape in ((3, 16, 16), (1, 1, 2)):  # the second ends at the diameter of its images
            options = {"n": 1000, "label_aware": aware}
            whole = [r for r in make_rule(sigma, mode="curve", **options).targets if r <= diameter(shape)]
            folder = run(
                tmp_path / f"{aware} {shape[0]}", [(0, 0, 0.0)] * 4, sigma=sigma, label_aware=aware, resolution=list(shape),
                rule=SEQUENTIAL | {"n0": 0 if aware else 100, "targets": whole},
            )  # fmt: skip
            assert "every radius of the curve" in report([folder])


@pytest.mark.parametrize(
    ("changes", "radius", "message"), [({}, "64", "at most 27.71 apart"), (LINF, "8", "at most 1 for linf")]
)
def test_radii_of_a_table_in_grey_levels_are_refused(changes, radius, message, tmp_path, capsys):
    folder = run(tmp_path / "a", **changes)
    assert main(["report", str(folder), "--thresholds", radius, "--output-dir", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_an_impossible_row_never_becomes_a_figure(tmp_path, capsys):
    folder = run(tmp_path / "a")
    file = folder / "certificates-0.jsonl"
    file.write_text(re.sub('"radius": [0-9.]+', '"radius": 5.0', file.read_text(), count=1))
    assert main(["report", str(folder), "--output-dir", str(tmp_path)]) == 2
    assert "line 1: the row of image 0 is not one of this run: radius 5.0 is above 1.23" in capsys.readouterr().err
    more = run(tmp_path / "b", [(0, 0, 0.5)] * 32, num_images=12)
    assert main(["report", str(more), "--output-dir", str(tmp_path)]) == 2
    assert "has 32 finished images, but its run.json says 12" in capsys.readouterr().err


def test_a_note_of_runs_that_differ_in_their_targets_stands_once(tmp_path):
    other = SEQUENTIAL | {"targets": [0.0, 0.25, 0.5]}
    text = report([run(tmp_path / "a", rule=SEQUENTIAL), run(tmp_path / "b", rule=other, sigma=1.0)])
    assert text.count("† Draws stopped") == 1


def test_radii_beyond_the_largest_target_were_not_tested(tmp_path):
    """Draws stop once the targets are decided: what an image has beyond them is no figure. Between targets it is a lower one."""
    text = report([run(tmp_path / "a", rule=SEQUENTIAL)], thresholds=[0.0, 0.1, 0.25, 0.5, 3.0])
    found = cells(text)
    assert [found[f"r = {radius}"] for radius in ("0.5", "3")] == ["-", "-"]
    assert found["r = 0.1"].endswith("†") and not found["r = 0.25"].endswith(("†", "-"))
    assert (
        "- Not tested: 0.25 is the largest target at sigma 0.5; the largest radius that this run can certify at sigma 0.5 is 1.2"
        in text
    )
    assert "Not tested" not in report([run(tmp_path / "b", rule=SEQUENTIAL)], thresholds=[0.0, 0.1])


@pytest.mark.parametrize("rule", [SETTINGS["rule"], SEQUENTIAL])
def test_a_radius_that_no_draws_can_certify_was_not_tested(tmp_path, rule):
    text = report([run(tmp_path / "a", rule=rule)], thresholds=[0.0, 3.0])
    assert cells(text)["r = 3"] == "-" and cells(text)["r = 0"].startswith("50.0 (")
    assert "- Not tested: the largest radius that this run can certify at sigma 0.5 is 1.2" in text
    assert "Not tested" not in report([run(tmp_path / "b", rule=rule)], thresholds=[0.0, 0.25])


def test_lists_of_any_kind_are_taken_and_others_explained(tmp_path):
    folder = run(tmp_path / "a")
    text = report([folder], thresholds=[0.0, 0.25])
    for radii in ((0.0, 0.25), np.array([0.0, 0.25]), iter([0.0, 0.25])):
        assert report(iter([folder]), thresholds=radii) == text
    for wrong, error, said in (
        ({"paths": str(folder)}, TypeError, r"`paths` must be a list, got .*For one run pass \['"),
        ({"paths": folder}, TypeError, "`paths` must be a list"),
        ({"paths": []}, ValueError, "`paths` must name a run, got none"),
        ({"names": "a"}, TypeError, "`names` must be a list, got 'a'"),
        (
            {"thresholds": 0.25},
            TypeError,
            r"`thresholds` must be a list of radii, got 0.25. For one radius pass \[0.25\]",
        ),
        ({"thresholds": np.array(0.25)}, TypeError, "`thresholds` must be a list of radii"),
        ({"thresholds": []}, ValueError, "`thresholds` must hold a radius, got none"),
    ):
        with pytest.raises(error, match=said):
            report(**{"paths": [folder]} | wrong)


def test_two_networks_never_have_one_name(tmp_path):
    networks = [("a" * 64, 0.5), ("b" * 64, 0.5), ("a" * 64, 1.0), (None, 0.5)]
    folders = [
        run(tmp_path / str(number), sigma=sigma, model={"id": "net", "weights_sha256": weights})
        for number, (weights, sigma) in enumerate(networks)
    ]
    said = ["net (weights aaaaaaaa)", "net (weights bbbbbbbb)", "net (weights aaaaaaaa)", "net"]
    text = report(folders)
    assert [cells(text, line)["model"] for line in range(4)] == said
    assert cells(report(folders[:2], names=["mine", "mine"]), 1)["model"] == "mine (weights bbbbbbbb)"
    assert [cells(report([folders[0], folders[2]]), line)["model"] for line in (0, 1)] == ["net", "net"]


def test_networks_of_one_weight_that_answer_otherwise_stand_apart(tmp_path):
    """Another activation, or other constants of a normalisation, leave the weights; rounding on another device or in half precision leaves the network."""
    ways = [
        (0.0, {}),
        (0.001, {}),
        (0.04, {"dtype": "bfloat16"}),
        (0.04, {}),
        (0.5, {"dtype": "bfloat16"}),
        (0.3, {"resolution": [3, 8, 8]}),
    ]
    folders = [
        run(
            tmp_path / str(number),
            model={"id": "net", "weights_sha256": "a" * 64, "probe_logits": [[0.0, 1.0], [move, 1.0]]},
            **changes,
        )
        for number, (move, changes) in enumerate(ways)
    ]
    names = names_of([read_run(folder) for folder in folders])
    assert names[0] == names[1] == names[2] and names[5] == "net"
    assert len({names[0], names[3], names[4]}) == 3 and all(
        re.fullmatch(r"net \(answers \w{8}\)", one) for one in names[:5]
    )
    assert names_of([read_run(folder) for folder in folders[:3]]) == ["net"] * 3
    assert "net (answers" in report([folders[0], folders[3]])
