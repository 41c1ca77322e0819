"""What SECURITY.md says is so in the code."""

from __future__ import annotations

import ast
import inspect
import re
from importlib.metadata import requires
from pathlib import Path

import pytest

import hf_smoothing
from hf_smoothing import certify, certify_dataset, predict
from hf_smoothing.json_text import DEEPEST
from hf_smoothing.models import SmoothedClassifier
from hf_smoothing.noise import fresh_seed
from hf_smoothing.records import RunError, read_run
from hf_smoothing.records.shape import MOST_DRAWS, MOST_LOOKS, MOST_TARGETS
from hf_smoothing.reports import measure, report
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
    assert (MOST_DRAWS, MOST_TARGETS, MOST_LOOKS) == (10**6, 1000, 64)
    assert "a million draws per image, a thousand targets and 64 looks" in TEXT


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
