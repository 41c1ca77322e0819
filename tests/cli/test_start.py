"""What `hf-smoothing certify` imports: each module costs its user seconds before the first draw."""

import gc

import pytest

from hf_smoothing import cli
from tests.support.commands import model_and_images
from tests.support.processes import printed, run_python


WITHOUT = (
    "evaluate", "matplotlib", "onnx", "peft", "scipy.stats", "sklearn", "transformers.trainer",
    "hf_smoothing.attacks", "hf_smoothing.interval", "hf_smoothing.metrics", "hf_smoothing.training",
)  # fmt: skip
"""Modules that certifying by smoothing does not need."""

NEEDED = ("accelerate", "datasets", "torch", "transformers", "hf_smoothing.certification.runner")

SCRIPT = """
import sys
from hf_smoothing.cli import main
status = main(sys.argv[1:])
print("LOADED", *sys.modules)
sys.exit(status)
"""


def test_certify_imports_nothing_that_it_does_not_need(tmp_path):
    model_and_images(tmp_path, count=2)
    (tmp_path / "certify.py").write_text(SCRIPT)
    options = ("--sigma", "0.25", "--n", "20", "--n0", "5", "--device", "cpu", "--output-dir", tmp_path / "run")
    done = run_python(tmp_path / "certify.py", "certify", tmp_path / "model", tmp_path / "images", *options)
    loaded = set(printed(done).rpartition("LOADED")[2].split())
    assert set(NEEDED) <= loaded
    assert not loaded.intersection(WITHOUT)


def test_a_refusal_imports_neither_torch_nor_transformers(tmp_path):
    (tmp_path / "certify.py").write_text(SCRIPT)
    done = run_python(tmp_path / "certify.py", "certify", "model", "images", "--output-dir", tmp_path / "run")
    assert done.returncode == 2 and "--method smoothing needs --sigma" in done.stderr
    assert not {"torch", "transformers", "datasets", "numpy"} & set(done.stdout.split())


@pytest.mark.parametrize("failing", [False, True])
def test_garbage_is_collected_rarely_while_a_command_runs_and_as_before_afterwards(failing, monkeypatch, capsys):
    before, during = gc.get_threshold(), []

    def run(args):
        during.append(gc.get_threshold())
        if failing:
            raise ValueError("no")
        return 0

    monkeypatch.setattr(cli.env, "run", run)
    assert cli.main(["env"]) == 2 * int(failing)
    assert gc.get_threshold() == before
    assert during == [(100 * before[0], *before[1:])]
