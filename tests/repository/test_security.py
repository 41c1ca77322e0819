"""What SECURITY.md says is so in the code."""

from __future__ import annotations

import ast
import inspect
import json
import re
from importlib.metadata import requires
from pathlib import Path

import pytest
from transformers import ViTImageProcessor

import hf_smoothing
from hf_smoothing import (
    certify,
    certify_dataset,
    classifier_from_autoencoder,
    denoised_classifier,
    predict,
    smoothed_ensemble,
)
from hf_smoothing.json_text import DEEPEST
from hf_smoothing.models import SmoothedClassifier
from hf_smoothing.models.loading import load_classifier
from hf_smoothing.noise import fresh_seed
from hf_smoothing.records import RunError, read_run
from hf_smoothing.records.shape import MOST_LOOKS, MOST_TARGETS
from hf_smoothing.reports import measure, report
from hf_smoothing.units import MAX_DRAWS
from tests.support.tiny import SIZE, plain
from tests.support.written_runs import written_run


ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
FILES = sorted(Path(hf_smoothing.__file__).parent.rglob("*.py"))

FORBIDDEN = re.compile(
    r"(torch|pickle|marshal|dill|joblib|cloudpickle)\.load|(numpy|np)\.load|pickle\.\w+|shelve\.\w+|eval|exec|compile|os\.system|os\.popen"
    r"|yaml\.(load|full_load|unsafe_load)(_all)?"
)
"""Calls that run code from a file or a text, or could."""


def calls(source: str):
    """(called name, its keywords that are constants) of each call."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            constants = {word.arg: word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)}
            yield ast.unparse(node.func), constants


def dangerous(source: str) -> list[str]:
    return [
        name
        for name, given in calls(source)
        if FORBIDDEN.fullmatch(name)
        or given.get("trust_remote_code")
        or given.get("shell")
        or given.get("weights_only") is False
    ]


def test_the_package_runs_no_code_of_a_file():
    assert {str(file): found for file in FILES if (found := dangerous(file.read_text(encoding="utf-8")))} == {}


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
        "pickle.loads(data)",
        "yaml.load(text, Loader=yaml.Loader)",
        "eval(text)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_planted_calls_are_found(line):
    assert dangerous(f"def f():\n    return {line}\n")
    assert not dangerous("model.eval()\nyaml.safe_load(text)\njson.loads(text)\nf(trust_remote_code=False)\n")


LOADED = [*FILES, *sorted((ROOT / "examples").rglob("*.py")), *sorted((ROOT / "model_cards").rglob("*.py"))]


def unsaid(source: str) -> list[str]:
    """Uses of what can load code of a repository (an Auto class, `pipeline`) that leave it to `transformers`, which asks on the terminal."""
    said, found = set(), []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            passed = ast.unparse(node.func) == "load_whole"  # which says it itself
            said |= {id(one) for one in node.args if passed}
            words = {word.arg for word in node.keywords}
            words |= {
                ast.unparse(word.value.func)
                for word in node.keywords
                if word.arg is None and isinstance(word.value, ast.Call)
            }
            said |= {id(node.func)} if words & {"trust_remote_code", "trusting"} else set()
            if ast.unparse(node.func) in ("pipeline", "transformers.pipeline") and id(node.func) not in said:
                found.append(ast.unparse(node.func))
        if (
            isinstance(node, ast.Attribute)
            and node.attr in ("from_pretrained", "from_config")
            and id(node) not in said
        ):
            name = ast.unparse(node)
            found += [name] if re.search(r"(^|\.)Auto\w+\.\w+$", name) else []
    return found


def test_nothing_leaves_it_open_whether_code_of_a_repository_may_run():
    assert {str(file): found for file in LOADED if (found := unsaid(file.read_text(encoding="utf-8")))} == {}


@pytest.mark.parametrize(
    "line",
    [
        "AutoImageProcessor.from_pretrained(path)",
        "AutoConfig.from_pretrained(path, **hub)",
        "transformers.AutoModel.from_config(config)",
        "load(AutoModelForImageClassification.from_pretrained, path)",
        "pipeline('image-classification', model=path)",
    ],
)
def test_planted_calls_that_leave_it_open_are_found(line):
    assert unsaid(f"def f():\n    return {line}\n")
    assert not unsaid(
        "AutoConfig.from_pretrained(path, trust_remote_code=False)\nAutoConfig.from_pretrained(path, **trusting(hub))\n"
        "load_whole(AutoModel.from_pretrained, path, {})\nSmoothedClassifier.from_pretrained(path)\n"
    )


def with_code(folder: Path, file: str) -> Path:
    """A checkpoint of which one file says that a class of the repository's own code is meant; the code leaves a trace."""
    plain("vit").save_pretrained(folder)
    ViTImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    code = f"open({str(folder / 'ran')!r}, 'w').close()\n"
    (folder / "own.py").write_text(code + "from transformers import ViTImageProcessor as Own\n")
    stated = json.loads((folder / file).read_text())
    own = {"auto_map": {"AutoConfig": "own.Own", "AutoImageProcessor": "own.Own"}}
    kinds = {"model_type": "own", "image_processor_type": "Own"}
    (folder / file).write_text(json.dumps(stated | own | {key: kinds[key] for key in kinds if key in stated}))
    return folder


ROUTES = {
    "wrapped": lambda path: SmoothedClassifier.from_base_pretrained(path, sigma=0.25),
    "denoised": lambda path: denoised_classifier(path, sigma=0.25),
    "in an ensemble": lambda path: smoothed_ensemble([path], sigma=0.25),
    "on the command line": lambda path: load_classifier(str(path), sigma=0.25),
    "as an autoencoder": classifier_from_autoencoder,
}
FILES_WITH_CODE = [(route, file) for route in ROUTES for file in ("config.json", "preprocessor_config.json")][:-1]
"""All but the image processor of an autoencoder, which is not read."""


@pytest.mark.parametrize(("route", "file"), FILES_WITH_CODE)
def test_code_of_a_checkpoint_does_not_run_even_where_a_terminal_says_yes(route, file, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("builtins.input", lambda *text: asked.append(text) or "y")
    folder = with_code(tmp_path, file)
    with pytest.raises(ValueError, match="custom code"):
        ROUTES[route](folder)
    assert not asked and not (folder / "ran").exists()


def test_services_draw_afresh_and_measurements_are_seeded():
    methods = (SmoothedClassifier.certify, SmoothedClassifier.predict, SmoothedClassifier.forward)
    for function in (certify, predict, *methods):
        assert inspect.signature(function).parameters["seed"].default is None
    assert inspect.signature(certify_dataset).parameters["seed"].default == 0
    assert "their seed is 0 unless another is given" in TEXT
    assert max(fresh_seed(None) for _ in range(64)).bit_length() > 56


def test_data_sets_bring_no_code():
    (wanted,) = [one for one in requires("hf_smoothing") if re.match(r"datasets\b", one)]
    assert re.search(r">=(\d+)", wanted)[1] == "4"
    assert "`datasets` 4 and newer" in TEXT


def test_the_limits_are_those_of_the_code():
    assert f"nested {DEEPEST} levels deep" in TEXT
    assert (MOST_TARGETS, MOST_LOOKS) == (1000, 64)
    assert f"{MAX_DRAWS:,} draws per image, a thousand targets and 64 looks" in TEXT


def test_names_in_records_stay_in_their_cell_and_are_escaped_in_the_page(tmp_path):
    name = "a|b\n# heading <script>alert(1)</script>"
    folder = written_run(tmp_path / "run", model={"id": name})
    text = report([folder], output_dir=tmp_path / "report", html=True)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert "# heading" not in [line[:9] for line in text.splitlines()]
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "alert(1)" in page and "<script>alert(1)" not in page


def test_a_run_that_does_not_say_how_it_was_certified_is_not_reported(tmp_path):
    run = read_run(written_run(tmp_path / "run", method="by hand"))
    with pytest.raises(
        RunError, match="must say how it was certified, one of randomized-smoothing, interval-bounds.*got 'by hand'"
    ):
        measure(run)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)", TEXT))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()
