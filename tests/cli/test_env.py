"""`hf-smoothing env`."""

import re

import torch

from hf_smoothing import __version__
from hf_smoothing.cli import main


def test_a_bug_report_gets_what_it_needs(capsys):
    assert main(["env"]) == 0
    lines = dict(re.fullmatch(r"- (.+?): (.+)", line).groups() for line in capsys.readouterr().out.splitlines())
    assert lines["hf_smoothing"] == __version__
    assert lines["torch"] == torch.__version__
    assert {"Python", "system", "transformers", "accelerate", "datasets", "CPU", "CUDA"} <= lines.keys()
