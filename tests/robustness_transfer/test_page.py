"""The page and the pictures of an analysis, from records that are made by hand."""

from __future__ import annotations

import itertools
import json
import re
import shutil

import numpy as np
import pytest
import torch

from hf_smoothing.records import RunError, write_json
from hf_smoothing.robustness_transfer import figures, page
from hf_smoothing.robustness_transfer.analysis import Analysis
from hf_smoothing.robustness_transfer.answer import answer, questions
from hf_smoothing.robustness_transfer.findings import frequency_gap, frequency_lean, robustness
from hf_smoothing.robustness_transfer.page import write_page
from hf_smoothing.robustness_transfer.records import SETTINGS, Key, bits, pair_key, read_analysis
from hf_smoothing.robustness_transfer.sentences import sentences
from hf_smoothing.robustness_transfer.settings import ROLES, AnalysisSettings
from hf_smoothing.statistics import interval
from tests.support.tiny import pixels, smoothed


@pytest.fixture
def folder(tmp_path):
    """An analysis of 100 images in which the finetuned network survives half as many attacks as the standard one."""
    (tmp_path / "records").mkdir()
    survivors = {"pretrained": (90, 40, 10), "finetuned": (90, 30, 10), "standard": (90, 60, 20)}
    for role, counts in survivors.items():
        right = [bits(np.arange(100) < count) for count in counts]
        record = {"epsilons": [0.0, 1 / 255, 2 / 255], "right": right}
        write_json(tmp_path / "records" / f"{Key('attack', role, 'pgd', 'linf')}.json", record)
    facts = {"parameters": dict.fromkeys(ROLES, 1234), "images": 100, "steps": 10, "seed": 0}
    about = {"paths": {"pretrained": "<b>bold</b>"}, "dataset": {"id": "pictures", "split": "test"}}
    write_json(tmp_path / SETTINGS, {"settings": facts, "about": about})
    return tmp_path


def test_the_page_says_what_the_records_say_and_needs_no_other_file(folder):
    text = write_page(folder).read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 1
    assert re.search(r"less robust than the standard one under pgd \(linf\)", text)
    assert "90.0 (82.4-95.1)" in text  # Clopper-Pearson of 90 of 100
    assert "&lt;b&gt;bold&lt;/b&gt;" in text and "<b>bold" not in text
    assert "Representation similarity" not in text  # not measured
    assert "http" not in text


def test_the_page_begins_with_the_answer(folder):
    about, records = read_analysis(folder)
    one = robustness(records)[0].difference
    assert answer(records).startswith(
        "Yes, the finetuned network is less robust than the one without pretraining, "
        f"{100 * one.value:+.1f} [{100 * one.low:+.1f}, {100 * one.high:+.1f}] points of accuracy: pgd (linf), mean over radii up to 2/255"
    )
    text = write_page(folder).read_text(encoding="utf-8")
    assert text.index("Yes, the finetuned network") < text.index("<table") < text.index("<h2>")
    assert text.count("At matched accuracy, that is") == 1  # no finding twice
    about["about"]["paths"]["finetuned"] = "/home/someone/runs/mine/model"
    write_json(folder / SETTINGS, about)
    text = write_page(folder).read_text(encoding="utf-8")
    assert "<td>mine/model</td>" in text and "someone" not in text


@pytest.mark.parametrize(
    ("finetuned", "said", "verdict"),
    [
        (60, "Not determined: no significant", "no significant difference"),
        (80, "No, the finetuned network is more", "no, more robust"),
    ],
)
def test_an_answer_says_no_more_than_its_interval(finetuned, said, verdict):
    def attacked(*counts):
        return {"epsilons": [0.0, 0.1], "right": [bits(np.arange(100) < count) for count in counts]}

    key = {role: Key("attack", role, "pgd", "linf") for role in ROLES}
    records = {key["finetuned"]: attacked(90, finetuned), key["standard"]: attacked(90, 60)}
    assert answer(records).startswith(said)
    assert [row[2] for row in questions(records)] == [verdict]
    assert answer({}) == "" and questions({}) == []


def test_the_four_questions_and_frequencies_at_matched_accuracy():
    right = {"finetuned": np.arange(400) < 300, "standard": np.arange(400) >= 100}  # 200 in common
    rng = np.random.default_rng(0)
    high = {"finetuned": rng.random(400) < 0.8, "standard": (rng.random(400) < 0.2) | (np.arange(400) >= 300)}
    low = {role: rng.random(400) < 0.5 for role in right}
    records = {
        **{Key("attack", role, "pgd", "linf"): {"epsilons": [0.0, 0.1], "right": [bits(flags)] * 2} for role, flags in right.items()},
        **{Key("frequency", role): {"low": [{"right": bits(low[role])}], "high": [{"right": bits(high[role])}]} for role in right},
        Key("similarity", "clean"): {
            pair_key("pretrained", "finetuned"): {"images": 400, "cka": [[0.9, 0.0], [0.0, 0.8]]},
            pair_key("pretrained", "standard"): {"images": 400, "cka": [[0.9, 0.0], [0.0, 0.5]]},
        },
        **{
            Key("universal", source, norm="linf"): {"epsilon": 0.03, "changed": {"finetuned": bits(rng.random(400) < share), "standard": "0" * 400}}
            for source, share in (("pretrained", 0.5), ("random", 0.1))
        },
    }  # fmt: skip
    matched, every = (frequency_gap(records, "high", at_matched_accuracy=one) for one in (True, False))
    both = right["finetuned"] & right["standard"]
    assert (matched.num_images, every.num_images) == (200, 400)
    assert matched.value == pytest.approx(high["finetuned"][both].mean() - high["standard"][both].mean())
    lean = frequency_lean(records, at_matched_accuracy=True)
    apart = {role: high[role][both].mean() - low[role][both].mean() for role in right}
    assert lean.value == pytest.approx(apart["finetuned"] - apart["standard"])
    assert [row[2] for row in questions(records)] == ["no significant difference", "yes", "in part", "yes"]
    assert "in 1 of 2 layers; no interval" in questions(records)[2][1]


def test_each_network_has_its_line_and_its_interval(folder):
    _, records = read_analysis(folder)
    figure = figures.robustness(robustness(records))
    (axes,) = figure.axes
    lines = {container.get_label(): container.lines[0] for container in axes.containers}
    assert list(lines) == list(ROLES)
    assert lines["standard"].get_xdata() == pytest.approx(
        [0.0, 1.0, 2.0], abs=0.08
    )  # in steps of 255, beside the others
    assert lines["standard"].get_ydata() == pytest.approx([90.0, 60.0, 20.0])
    assert len(axes.collections) == len(ROLES) == len(axes.containers)
    lower, upper = interval([90], 100, 0.95)
    bar = next(c for c in axes.containers if c.get_label() == "standard").lines[2][0].get_segments()[0]
    assert bar[:, 1] == pytest.approx([100 * lower[0], 100 * upper[0]])
    assert len({(line.get_marker(), line.get_linestyle()) for line in lines.values()}) == len(ROLES)


def test_every_label_of_a_figure_of_many_attacks_is_inside_it(folder):
    _, records = read_analysis(folder)
    kept = {(key.subject, norm): records[key] for key in records for norm in ("linf", "l2")}
    many = {Key("attack", role, name, norm): record for (role, norm), record in kept.items() for name in ("fgsm", "pgd", "mi-fgsm", "di-fgsm")}  # fmt: skip
    figure = figures.robustness(robustness(many))
    figure.canvas.draw()
    width = figure.bbox.width
    for panel in figure.axes:
        box = panel.xaxis.label.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= width
        assert all(line.get_xdata().min() >= 0.0 for container in panel.containers for line in container.lines[:1])


def test_a_folder_without_an_analysis_is_refused(tmp_path):
    with pytest.raises(RunError, match="holds no analysis of robustness transfer"):
        write_page(tmp_path)


def test_a_page_of_nothing_measured_yet_is_still_a_page(folder):
    for file in (folder / "records").iterdir():
        file.unlink()
    text = write_page(folder).read_text(encoding="utf-8")
    assert "pictures" in text and "<h2>" not in text
    assert json.loads((folder / SETTINGS).read_text())["settings"]["images"] == 100


def test_the_picture_of_similarity_has_a_map_for_what_was_measured_alone():
    pair = {"cka": [[1.0, 0.25], [0.5, 0.75]], "rows": ["body.0", "body.1"], "columns": ["body.0", "head"]}
    figure = figures.similarity({Key("similarity", "clean"): {"finetuned-standard": pair}})
    measured, *others = figure.axes
    assert measured.images[0].get_array().tolist() == pair["cka"]
    assert (measured.get_ylabel(), measured.get_xlabel()) == ("finetuned", "standard")
    assert [text.get_text() for text in measured.get_xticklabels()] == ["block 0", "head"]
    assert len(others) == 2 and not any(axes.axison for axes in others)


@pytest.mark.parametrize("both", [0, 1, 12])
def test_enough_images_of_which_few_are_right_in_both_are_named_as_the_cause(both, folder):
    def attacked(right):
        return {"epsilons": [0.0, 1 / 255, 2 / 255], "right": [bits(right)] * 3}

    right = {"finetuned": np.arange(1_000) < 996, "standard": np.arange(1_000) >= 996 - both}
    cause = (
        f"{'only ' * (both > 0)}{both or 'none'} of 1,000 images {'are' if both > 1 else 'is'} right in both networks without an attack "
        f"(finetuned 99.6%, standard {round(0.4 + both / 10, 1):g}%)"
    )
    part = [{"right": bits(np.ones(1_000, bool)), "radius": 2, "confidence": 0.5}]
    records = {Key("attack", role, "pgd", "linf"): attacked(flags) for role, flags in right.items()}
    records |= {Key("frequency", role): {"low": part, "high": part} for role in right}
    said = sentences(records)
    assert answer(records) == f"Not determined: {cause}: no comparison at matched accuracy."
    assert [row[1:] for row in questions(records)] == [[cause, "too few images right in both"]] * 2
    assert f"not judged, since {cause}, under pgd (linf)" in said["robustness"]
    assert said["frequency"] == f"Not judged at matched accuracy: {cause}."
    cka = {"images": 1_000, "cka": [[float("nan")]], "rows": ["a.0"], "columns": ["a.0"]}
    records[Key("similarity", "clean")] = {
        pair_key("pretrained", "finetuned"): cka | {"svcca": [float("nan")], "svcca_shuffled": [-0.001]}
    }
    for key, record in records.items():
        write_json(folder / "records" / f"{key}.json", record)
    text = re.sub(r"base64,[^']*", "", write_page(folder).read_text(encoding="utf-8"))
    assert cause in text and "<td>- (0.00)</td>" in text and not re.search(r"\bnan\b|-0\.00", text)


@pytest.mark.parametrize(("images", "both"), [(1_000, 0), (1_000, 12), (8, 8), (1, 1)])
def test_attacks_that_all_say_nothing_do_not_agree(images, both):
    def attacked(right):
        return {"epsilons": [0.0, 1 / 255], "right": [bits(right)] * 2}

    right = {"finetuned": np.arange(images) < images, "standard": np.arange(images) < both}
    records = {
        Key("attack", role, attack, "linf"): attacked(flags)
        for role, flags in right.items()
        for attack in ("fgsm", "pgd")
    }
    said = answer(records)
    assert said.startswith("Not determined: ") and "The same holds" not in said


def similarities(pretrained, finetuned, standard):
    """Maps of three networks with these numbers of layers."""
    layers = {
        role: ["vit.embeddings", *(f"vit.layers.{k}" for k in range(count - 1))]
        for role, count in zip(ROLES, (pretrained, finetuned, standard), strict=True)
    }
    pairs = [("pretrained", "finetuned"), ("pretrained", "standard"), ("standard", "finetuned")]
    maps = {
        pair_key(a, b): {"rows": layers[a], "columns": layers[b], "cka": np.full((len(layers[a]), len(layers[b])), 0.5).tolist()}
        for a, b in pairs
    }  # fmt: skip
    return {Key("similarity", kind): maps for kind in figures.KINDS}


@pytest.mark.parametrize(
    "depths", [(3, 3, 3), (5, 5, 8), (13, 13, 13), (25, 25, 25), (25, 25, 3), (3, 3, 15), (9, 9, 8)]
)
def test_maps_of_any_number_of_layers_can_be_read(depths):
    figure = figures.similarity(similarities(*depths))
    figure.canvas.draw()
    maps = [axes for axes in figure.axes if axes.get_title()]
    large = [axes for axes in maps if max(axes.images[0].get_array().shape) > 8]
    assert len(maps) == 9 and len(figure.axes) == 9 + bool(large)  # one colour bar, where numbers have no room
    assert [axes.get_ylabel() for axes in figure.axes[9:]] == (["linear CKA"] if large else [])
    for axes in maps:
        height, width = axes.images[0].get_array().shape
        assert len(axes.texts) == (0 if axes in large else height * width)
        assert all(text.get_window_extent().width < axes.get_window_extent().width / width for text in axes.texts)
        box = axes.get_window_extent()
        assert box.width == pytest.approx(box.height, rel=0.01) and box.width > 160  # no strips
        title = axes.title.get_window_extent()
        assert title.x0 >= 0 and title.x1 <= figure.bbox.width
        for axis, count, side in ((axes.xaxis, width, 0), (axes.yaxis, height, 1)):
            texts = [text for text in axis.get_ticklabels() if text.get_text()]
            if not texts:
                continue  # those of the first map of the row
            assert texts[0].get_text() == ("embeddings" if count <= 8 else "0") and len(texts) <= 8
            assert axis.get_label_text().endswith(", layer") == (count > 8)
            extents = sorted(tuple(text.get_window_extent().extents[[side, side + 2]]) for text in texts)
            assert all(end <= start for (_, end), (start, _) in itertools.pairwise(extents))


def test_the_picture_of_frequencies_counts_what_is_right():
    part = [{"radius": 2, "right": "1100", "confidence": 0.75}, {"radius": 4, "right": "1110", "confidence": 0.5}]
    figure = figures.frequency({Key("frequency", "finetuned"): {"low": part, "high": part[:1]}})
    low, high, confidence, _ = figure.axes
    (container,) = low.containers
    assert container.get_label() == "finetuned"
    lower, upper = interval([2, 3], 4, 0.95)
    bars = np.array(container.lines[2][0].get_segments())
    np.testing.assert_allclose(bars[:, :, 1], 100 * np.array([lower, upper]).T)
    assert low.lines[0].get_xydata().tolist() == [[2.0, 50.0], [4.0, 75.0]]
    assert high.lines[0].get_xydata().tolist() == [[2.0, 50.0]]
    assert confidence.lines[0].get_ydata().tolist() == [75.0, 50.0]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """An analysis of tiny networks, with every kind of record."""
    folder = tmp_path_factory.mktemp("measured")
    networks = {role: smoothed("resnet", seed).eval() for seed, role in enumerate(ROLES)}
    settings = AnalysisSettings(
        attacks=("fgsm",), epsilons={"linf": (0.0, 0.01), "l2": (0.0, 0.5)}, universal={"linf": 0.1, "l2": 2.0}, steps=1,
        batch_size=8,
    )  # fmt: skip
    Analysis(networks, pixels(16), torch.arange(16) % 3, folder, settings).run(progress=False)
    return folder


RECORDS = [
    *(Key("attack", role, "fgsm", norm) for role in ROLES for norm in ("linf", "l2")),
    *(Key("universal", source, norm=norm) for source in (*ROLES, "random") for norm in ("linf", "l2")),
    *(Key("similarity", kind) for kind in figures.KINDS),
    *(Key("frequency", role) for role in ROLES),
]
KINDS = sorted({key.kind for key in RECORDS})


def test_every_kind_of_record_is_among_those(measured):
    records = {key for key in RECORDS if key.subject != "pretrained" or key.kind not in ("attack", "frequency")}
    assert records <= set(read_analysis(measured)[1]) <= set(RECORDS)


@pytest.mark.parametrize("parts", [*([key] for key in RECORDS), *([key for key in RECORDS if key.kind == kind] for kind in KINDS)], ids=lambda keys: f"{len(keys)} {keys[0]}")  # fmt: skip
def test_a_page_is_written_of_what_is_there(parts, measured, tmp_path, monkeypatch):
    """As after the advice to delete a damaged record."""
    monkeypatch.setattr(page, "picture", lambda figure, caption: caption)  # drawing takes most of the time
    folder = shutil.copytree(measured, tmp_path / "run")
    for key in parts:
        (folder / "records" / f"{key}.json").unlink(missing_ok=True)
    text = write_page(folder).read_text(encoding="utf-8")
    assert "nan" not in text
    assert sentences(read_analysis(folder)[1]) or len(parts) > 1


def test_files_of_others_among_the_records_are_left_alone(measured, tmp_path):
    folder = shutil.copytree(measured, tmp_path / "run")
    before = read_analysis(folder)
    for name in (
        "notes",
        "notes-of-mine",
        "attack-finetuned",
        "universal-finetuned-linf 2",
        "._attack-finetuned-fgsm-linf",
        "similarity-clean-linf",
        "a",
    ):
        (folder / "records" / f"{name}.json").write_bytes(b"\x00{")
        assert read_analysis(folder) == before
        with pytest.raises(ValueError, match="A record is named as attack-finetuned-pgd-linf"):
            Key.parse(name)


@pytest.mark.parametrize("kind", [*KINDS, "settings"])
def test_a_record_without_its_measurement_is_named_with_its_cure(kind, measured, tmp_path):
    folder = shutil.copytree(measured, tmp_path / "run")
    key = next((key for key in RECORDS if key.kind == kind and key.subject != "pretrained"), None)
    file = folder / SETTINGS if key is None else folder / "records" / f"{key}.json"
    file.write_text("{}")
    with pytest.raises(RunError, match=f"{file.name} is not of an analysis: it has no '.*Delete"):
        write_page(folder)
