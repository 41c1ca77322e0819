"""Model cards from runs written by hand, so that every figure is known."""

import ast
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import EvalResult, ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from hf_smoothing.cards import fill_or_append, how_to_use
from hf_smoothing.records import RunError, read_run
from hf_smoothing.reports.card import check_class_names, check_finished, write_card
from hf_smoothing.reports.published import read_published_log
from hf_smoothing.statistics import interval
from tests.support.published import log
from tests.support.tiny import NAMES, pixels, plain, smoothed
from tests.support.written_runs import LINF, SEQUENTIAL, short_hash, written_run


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "smoothed_classifier"}))
    return folder


def run(folder, *args, **changes):
    return read_run(written_run(folder, *args, **changes))


def shown(folder):
    return (folder / "README.md").read_text(encoding="utf-8")


def test_a_card_says_what_was_measured_and_what_it_means(model, tmp_path):
    assert write_card(model, [run(tmp_path / "a")], name="ada/mine") == [model / "README.md"]
    text = shown(model)
    lower, upper = interval([2], 4, 0.95)
    assert f"| ada/mine | 0.5   | 50.0 ({100 * lower[0]:.1f}-{100 * upper[0]:.1f})" in text
    assert (
        "alters the answer of the smoothed classifier; each certificate is wrong with probability at most 0.001"
        in text
    )
    assert (
        f"fixed-n (n0 = 100, n = 1,000); alpha = 0.001; 4 images of toys test ({short_hash()}); noise gaussian at 3x16x16."
        in text
    )
    assert 'SmoothedClassifier.from_pretrained("ada/mine")' in text
    assert text.index("\n# ada/mine") < text.index("## Load and certify") < text.index("## Certified accuracy")
    data = ModelCard(text).data
    assert (data.library_name, data.pipeline_tag) == ("hf_smoothing", "image-classification")
    figures = {result.metric_name: result.metric_value for result in data.eval_results}
    assert figures["certified accuracy (l2) at r = 0, sigma = 0.5, %"] == 50.0
    assert figures["certified accuracy (l2) at r = 0.5, sigma = 0.5, %"] == 25.0
    assert {(result.dataset_type, result.dataset_split) for result in data.eval_results} == {("toys", "test")}
    assert model_index_to_eval_results(eval_results_to_model_index("ada/mine", data.eval_results))[0] == "ada/mine"


def test_the_same_again_changes_nothing_and_other_runs_take_the_place(model, tmp_path):
    first = run(tmp_path / "a")
    write_card(model, [first])
    once = shown(model)
    write_card(model, [first])
    assert shown(model) == once
    write_card(model, [run(tmp_path / "b", [(0, 0, 0.9)] * 4)])
    text = shown(model)
    assert "50.0 (" not in text and text.count("| model") == 1
    assert {result.metric_value for result in ModelCard(text).data.eval_results} == {0.0, 100.0}


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_card_keeps_its_own_words(ending, model, tmp_path):
    """Text, foreign metadata and results, the order of its sections, and how it says that the model is loaded."""
    own = (
        "---\nlicense: mit\nlibrary_name: transformers\ntags:\n- flowers\nmodel-index:\n- name: old\n  results:\n  - task:\n"
        "      type: image-classification\n    dataset:\n      name: Toys\n      type: toys\n    metrics:\n    - type: accuracy\n      value: 0.7\n---\n"
        "\n# Old\n\n<!-- table certified accuracy -->\nstale\n<!-- end -->\n\nSmoothedClassifier.from_pretrained, *as ever*.\n\n<!-- table other -->\nkept\n<!-- end -->\n"
    )
    (model / "README.md").write_bytes(own.replace("\n", ending).encode())
    write_card(model, [run(tmp_path / "a")])
    written = (model / "README.md").read_bytes().decode()
    assert written.count("\r\n") == (written.count("\n") if ending == "\r\n" else 0)
    card = ModelCard(written)
    before, after = own.split("stale")
    text = card.text.replace("\r\n", "\n")
    assert text.startswith(before.split("---\n")[-1]) and text.endswith(after)
    assert "| model" in text and "## Load and certify" not in text
    assert (card.data.license, card.data.tags[0], card.data.model_name) == ("mit", "flowers", "old")
    assert card.data.library_name == "hf_smoothing"  # transformers alone cannot load it
    assert card.data.eval_results[0].metric_value == 0.7 and len(card.data.eval_results) > 1


def test_a_plain_classifier_stays_one_of_transformers(model, tmp_path):
    (model / "config.json").write_text(json.dumps({"model_type": "resnet"}))
    write_card(model, [run(tmp_path / "a")])
    assert 'from_base_pretrained("mine", sigma=0.5, size=16)' in shown(model)
    assert ModelCard(shown(model)).data.library_name == "transformers"


def test_label_aware_runs_are_named_as_such(model, tmp_path):
    aware = run(tmp_path / "a", rule=SEQUENTIAL | {"n0": 0}, label_aware=True)
    write_card(model, [run(tmp_path / "b"), aware], benchmark="ada/toys")
    text = shown(model)
    assert "they are no certificates" in text and "LABEL-AWARE: for evaluation only" in text
    assert "certified accuracy (l2, label-aware) at r = 0.25, sigma = 0.5, %" in text
    assert "LABEL-AWARE" in (model / ".eval_results" / "certified_accuracy.yaml").read_text()


def test_only_radii_that_were_decided_become_results(model, tmp_path):
    write_card(model, [run(tmp_path / "a", rule=SEQUENTIAL)], thresholds=[0.0, 0.1, 0.25, 3.0])
    names = [result.metric_name for result in ModelCard(shown(model)).data.eval_results]
    assert [name.split(" r = ")[1].split(",")[0] for name in names] == ["0", "0.25"]


def test_a_deterministic_run_names_no_noise(model, tmp_path):
    write_card(model, [run(tmp_path / "a", **LINF)])
    text = shown(model)
    assert (
        "linf_certificates(model, pixels, largest=1)" in text
        and 'certify_dataset_linf(model, images, "runs/certified", largest=1)' in text
    )
    assert "certified accuracy (linf) at r = 0.25, %" in text
    given = ModelCard(text).data.eval_results[0].metric_args
    assert given["rule"] == "interval bounds" and not [key for key, value in given.items() if isinstance(value, bool)]


def test_an_unfinished_run_is_refused_before_anything_is_written(model, tmp_path):
    with pytest.raises(
        RunError, match=r"must be finished to stand in a card, got 4 of 9 images in .*Give its command again"
    ):
        write_card(model, [run(tmp_path / "a", num_images=9)])
    folder = written_run(tmp_path / "b")
    *whole, last = (folder / "certificates-0.jsonl").read_text().splitlines()
    unfinished = json.dumps(json.loads(last) | {"partial": True, "num_labels": 4})
    (folder / "certificates-0.jsonl").write_text("\n".join([*whole, unfinished]) + "\n")
    with pytest.raises(RunError, match="must be finished"):
        check_finished(read_run(folder))
    assert not (model / "README.md").exists()


@pytest.mark.parametrize(
    "matched", ["by name", {"by name": 2, "by position": 1}, "by number", {"by name": 2, "by hand": 1}]
)
def test_classes_that_were_matched_by_name_keep_their_numbers(matched, tmp_path):
    facts = {"id": "toys", "split": "test", "sha256": "0" * 64, "labels": {"column": "label", "matched": matched}}
    one = run(tmp_path / "a", dataset=facts, informative={"class_names": list(NAMES)})
    check_class_names(one, dict(enumerate(NAMES)), tmp_path)
    check_class_names(one, {0: "Cat", 1: "LABEL_1", 2: "Eel"}, tmp_path)
    swapped = {0: NAMES[1], 1: NAMES[0], 2: NAMES[2]}
    if "by number" in matched or "by hand" in matched:
        check_class_names(one, swapped, tmp_path)
    else:
        with pytest.raises(RunError, match="'cat' is class 0 in .* and class 1 of the model now. Restore id2label"):
            check_class_names(one, swapped, tmp_path)


def test_metadata_that_nobody_can_read_is_explained(model, tmp_path):
    (model / "README.md").write_text("---\ntags: [\n---\n\n# Mine\n")
    with pytest.raises(
        ValueError, match=r"must begin with metadata that the Hub can read.* between the first two `---`"
    ):
        write_card(model, [run(tmp_path / "a")])
    assert shown(model).endswith("# Mine\n")


def test_a_place_without_an_end_takes_nothing_with_it(tmp_path):
    text = "<!-- table a -->\nkept\n<!-- table b -->\nold\n<!-- end -->\n"
    with pytest.raises(ValueError, match=r"must have one place `<!-- table a -->` ... `<!-- end -->`, got 0"):
        fill_or_append(text, "a", "new", "A", tmp_path)
    assert "kept" in fill_or_append(text, "b", "new", "B", tmp_path)


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("largest", [None, 0.01])
def test_what_a_card_says_of_loading_runs(wrapped, largest, tmp_path, monkeypatch, capsys):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    network = smoothed() if wrapped else plain()
    if not wrapped:
        network.config.hf_smoothing = {
            "size": [16, 16],
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
            "model_size": None,
            "noise": None,
        }
    network.save_pretrained("mine")
    image = Image.fromarray(pixels(1)[0].permute(1, 2, 0).numpy())
    for place in (".", *(f"path/to/images/test/{name}" for name in NAMES)):
        Path(place).mkdir(parents=True, exist_ok=True)
        image.save(f"{place}/image.png")
    space = {}
    for code in how_to_use("mine", wrapped=wrapped, sigma=0.25, largest=largest).split("```python\n")[1:]:
        code = code.split("```")[0].replace("certify(pixels, ", "certify(pixels, n=50, ")
        exec(compile(code.replace('"runs/certified", sigma', '"runs/certified", n=50, sigma'), "card", "exec"), space)
    said = capsys.readouterr().out
    assert f"within {'l2' if largest is None else 'l-infinity'} radius" in said
    assert "| 3      |" in said  # images in the table


@pytest.mark.parametrize(
    "name", ["it's", 'it"s', "both \"'", "back\\slash", "C:\\new", "line\nbreak", "a/b", "日本 {x}"]
)
@pytest.mark.parametrize("wrapped", [True, False])
def test_the_code_of_a_card_names_any_folder(name, wrapped):
    (code, *_) = re.findall("```python\n(.*?)```", how_to_use(name, wrapped=wrapped), re.DOTALL)
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    named = [one.args[0].value for one in calls if ast.unparse(one.func).endswith("_pretrained")]
    assert named == [name]


def test_results_are_what_the_hub_library_calls_results(tmp_path):
    from hf_smoothing.reports import measure
    from hf_smoothing.reports.card_results import eval_results

    results = eval_results(measure(run(tmp_path / "a"), [0.25]), dataset_name="Toys")
    assert results == [
        EvalResult(
            task_type="image-classification", dataset_type="toys", dataset_name="Toys", dataset_split="test", metric_type="certified_accuracy",
            metric_value=50.0, metric_name="certified accuracy (l2) at r = 0.25, sigma = 0.5, %",
            metric_args={
                "norm": "l2", "radius": 0.25, "sigma": 0.5, "bound": "one-sided", "rule": "fixed-n", "n0": 100, "n": 1000, "alpha": 0.001,
                "noise": "gaussian", "resolution": "3x16x16", "images": 4, "images_sha256": short_hash(), "seed": 0,
            },
        )
    ]  # fmt: skip


OTHERWISE = [
    {"sigma": 0.25}, {"alpha": 0.01}, {"rule": {"name": "fixed-n", "n0": 100, "n": 2000}}, {"rule": SEQUENTIAL}, {"bound": "runner-up"}, {"seed": 1},
    {"rule": SEQUENTIAL | {"n0": 0}, "label_aware": True}, {"noise_kind": "grid"}, {"resolution": [3, 32, 32]},
    {"dataset": {"id": "toys", "split": "test", "sha256": "f" * 64}}, LINF,
]  # fmt: skip


def test_results_of_two_runs_are_two_results(model, tmp_path):
    """Whatever they differ in, also in what their names do not say: a card that is merged with another keeps both."""
    rows = [(0, 0, 0.25), (1, 1, 0.25), (2, -1, 0.0), (3, 1, 0.0)]
    runs = [run(tmp_path / str(number), rows, **changes) for number, changes in enumerate([{}, *OTHERWISE])]
    runs.append(run(tmp_path / "fewer", rows[:3], num_images=3))
    write_card(model, runs, thresholds=[0.25])
    found = ModelCard(shown(model)).data.eval_results
    assert len(found) == len(runs)
    for one, other in itertools.combinations(found, 2):
        assert not one.is_equal_except_value(other)


def test_a_benchmark_has_one_result_for_each_task(model, tmp_path):
    one, sigma, linf, other = (
        run(tmp_path / str(number), **changes)
        for number, changes in enumerate([{}, {"sigma": 1.0}, LINF, {"alpha": 0.01}])
    )
    write_card(model, [one, sigma, linf], thresholds=[0.25], benchmark="ada/toys")
    tasks = re.findall(r"task_id: (\S+)", (model / ".eval_results" / "certified_accuracy.yaml").read_text())
    assert tasks == [f"certified_accuracy_{kind}_r0.25" for kind in ("l2_sigma0.5", "l2_sigma1", "linf")]
    before = shown(model)
    with pytest.raises(
        ValueError, match="one run for each norm and sigma, got several for certified_accuracy_l2_sigma0.5_r0.25"
    ):
        write_card(model, [one, other], thresholds=[0.25], benchmark="ada/toys")
    assert shown(model) == before


@pytest.mark.parametrize("radius", [8 / 255, 2 / 255, 1 / 3, 0.1234567, 0.25, 1e-5])
def test_the_code_of_a_card_states_numbers_as_they_are(radius):
    """A largest radius that is rounded down is not looked for, and another sigma is another run."""
    for said in ({"largest": radius}, {"sigma": radius}):
        for wrapped in (True, False):
            code = re.findall("```python\n(.*?)```", how_to_use("a", wrapped=wrapped, **said), re.DOTALL)
            calls = [node for node in ast.walk(ast.parse("\n".join(code))) if isinstance(node, ast.Call)]
            found = [key.value.value for call in calls for key in call.keywords if key.arg in said]
            assert len(found) >= 2 and set(found) == {radius}


def test_what_a_card_cannot_be_of_is_refused(model, tmp_path):
    weights = [{"model": {"id": "tiny", "weights_sha256": one}} for one in ("a" * 64, "b" * 64)]
    one, other = (run(tmp_path / name, **changes) for name, changes in zip("ab", weights, strict=True))
    with pytest.raises(
        RunError, match=r"one network, got runs of several: .*a \(weights aaaaaaaa\), .*b \(weights bbbbbbbb\)"
    ):
        write_card(model, [one, other])
    answers = [
        {"model": {"id": "tiny", "weights_sha256": "a" * 64, "probe_logits": [[0.0, high]]}} for high in (1.0, 2.0)
    ]
    one, other = (run(tmp_path / name, **changes) for name, changes in zip("cd", answers, strict=True))
    with pytest.raises(RunError, match=r"one network, got runs of two: .*c and .*d have the same weights, but"):
        write_card(model, [one, other])
    with pytest.raises(ValueError, match="A card needs `runs`, got none"):
        write_card(model, [])
    with pytest.raises(RunError, match="must say what each run folder says, but .* is missing"):
        write_card(model, [read_published_log(log(tmp_path / "sigma_0.50"))])
    with pytest.raises(TypeError, match="`thresholds` must be a list of radii"):
        write_card(model, [one], thresholds=0.25)
    assert not (model / "README.md").exists()
    write_card(model, [one], thresholds=np.array([0.0, 0.25]))
    assert "| r = 0.25" in shown(model)
