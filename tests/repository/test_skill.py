"""The agent skill is true: its programs and commands run, in an empty folder, and all that it quotes exists."""

from __future__ import annotations

import re
import shlex

import pytest
import torch
import yaml

import hf_smoothing
from hf_smoothing.certification.options import CertifyOptions, options_of
from hf_smoothing.cli import build_parser, main
from hf_smoothing.sample import sample_images
from tests.support.processes import ROOT


PAGE = ROOT / "skills" / "hf-smoothing" / "SKILL.md"
_, FRONT, TEXT = re.split(r"^---\n", PAGE.read_text(encoding="utf-8"), maxsplit=2, flags=re.MULTILINE)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
QUOTED = sorted(set(re.findall(r"`([^`\n]+)`", BLOCK.sub("", TEXT))))
PRINTED = {"-", "†", "ACR", "abstained"}
QUICK = {"num_train_epochs=8": "max_steps=2", "--n 1000 --max-images 100": "--n 100 --max-images 8"}


def quick(text):
    for usual, small in QUICK.items():
        text = text.replace(usual, small)
    return text


def parses(command):
    """Whether the real parser takes a command line."""
    try:
        build_parser().parse_args(shlex.split(command)[1:])
    except SystemExit as ended:
        return ended.code == 0
    return True


def test_the_front_matter_is_that_of_a_skill():
    """The names and lengths of the open specification of agent skills."""
    front = yaml.safe_load(FRONT)
    assert set(front) <= {"name", "description", "license", "compatibility", "metadata", "allowed-tools"}
    assert front["name"] == PAGE.parent.name and re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", front["name"])
    assert 200 < len(front["description"]) <= 1024 and len(front["compatibility"]) <= 500
    assert len(TEXT.splitlines()) < 150


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
def test_its_programs_and_commands_run_in_an_empty_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)  # of the new head: with another one, none of so few images may be certified
    text = quick(TEXT)
    assert all(usual in TEXT for usual in QUICK)
    space = {"__name__": "__main__"}
    programs = [block for language, block in BLOCK.findall(text) if language == "python"]
    assert len(programs) == 2
    for block in programs:
        exec(compile(block, PAGE.name, "exec"), space)
    commands = [line for language, block in BLOCK.findall(text) if not language for line in block.splitlines()]
    assert [command.split()[1] for command in commands] == ["certify", "report", "attack", "card"]
    printed = {}
    capsys.readouterr()
    for command in commands:
        words = command.replace("MODEL", "runs/finetuned").replace("DATASET", sample_images()).split()[1:]
        assert main([*words, *(["--n", "100", "--steps", "2"] if words[0] == "attack" else [])]) == 0
        printed[words[0]] = capsys.readouterr().out
    assert {row.strip() for row in printed["report"].splitlines()[2].split("|")} >= {
        "r = 0",
        "r = 0.25",
        "ACR",
        "abstained",
    }
    assert "†" in printed["report"] and re.search(r"\d+\.\d \(\d+\.\d-\d+\.\d\)", printed["report"])
    for name in re.findall(r"`([\w./-]+\.jsonl?)`", TEXT):
        assert (tmp_path / name).exists() or (tmp_path / "runs" / "certified" / name).exists(), name


@pytest.mark.parametrize("quoted", QUOTED)
def test_all_that_is_quoted_exists(quoted, tmp_path):
    options = {"sigma", *options_of(CertifyOptions)}
    if quoted.startswith("--"):
        sigma = "" if "--method interval" in quoted else "--sigma 1"
        value = " 0.25" if quoted == "--targets" else " run" if quoted == "--output-dir" else ""
        named = "" if quoted == "--output-dir" else "--output-dir run"
        assert parses(f"hf-smoothing certify model data {sigma} {named} {quoted}{value}")
    elif quoted.startswith("hf-smoothing"):
        assert parses(quoted)
    elif quoted.startswith("accelerate launch -m hf_smoothing.cli"):
        assert parses(f"{quoted.partition('launch -m ')[2]} model data --output-dir run --sigma 1")
    elif re.match(r"\w+=", quoted):
        made = eval(f"hf_smoothing.RobustTrainingArguments({str(tmp_path)!r}, {quoted}, report_to='none')")
        assert made.objective in hf_smoothing.training.objectives.OBJECTIVES
    elif found := re.match(r"([A-Za-z]\w+)(?:\.(\w+))?(?:\(|$)", quoted):
        name, attribute = found.groups()
        known = name in options or name in PRINTED or name in hf_smoothing.__all__
        assert known and (attribute is None or hasattr(getattr(hf_smoothing, name), attribute)), quoted
    else:
        cell = quoted in PRINTED | options or re.fullmatch(r"r = [\d.]+|\d+\.\d \(\d+\.\d-\d+\.\d\)", quoted)
        assert cell or re.fullmatch(r"[\w./-]+\.jsonl?", quoted), quoted  # files: the run above leaves them


def test_the_parser_finds_options_that_do_not_exist():
    assert not parses("hf-smoothing certify model data --sigma 1 --output-dir run --no-such-option")
    assert not parses("hf-smoothing certificate")
