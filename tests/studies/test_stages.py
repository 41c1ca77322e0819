"""Stages that are done once, resumed, and refused when what they were made from has changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock

from examples.studies.command import command_line
from examples.studies.pages import keep_records, publish
from examples.studies.recipes import check_trainings
from examples.studies.stages import Stage, check_settings, run_stages, try_stage


def chain(rate: float = 0.1, also: tuple[str, ...] = ()) -> list[Stage]:
    return [
        Stage("pretrain/a", "pretrain", {"rate": rate, "data": "set"}),
        Stage("train/a", "train", {"arguments": {"x": 1}}, ("pretrain/a", *also)),
        Stage("certify/a", "certify", {}, ("train/a",)),
    ]


class Counting:
    """Does every stage, and notes which; fails on request."""

    def __init__(self, fails: str = "") -> None:
        self.did: list[str] = []
        self.fails = fails

    def __call__(self, stage, needs):
        if stage.name == self.fails:
            raise RuntimeError("no")
        self.did.append(stage.name)
        return {"turn": len(self.did), "seconds": 1.0, "needs": sorted(needs)}


def test_everything_once(tmp_path):
    work = Counting()
    run_stages(chain(), tmp_path, work)
    run_stages(chain(), tmp_path, work)
    assert work.did == ["pretrain/a", "train/a", "certify/a"]


def test_a_result_made_from_another_one_is_named(tmp_path):
    run_stages(chain(), tmp_path, Counting())
    for name in ("settings", "result"):
        (tmp_path / f"pretrain/a/{name}.json").unlink()
    with pytest.raises(SystemExit, match="train/a: it was made from a result of pretrain/a that is no longer there"):
        check_settings(chain(0.2), tmp_path)
    work = Counting()
    work.did = ["before"]  # so that its result differs
    with pytest.raises(SystemExit, match=r"train/a: it was made from a result of pretrain/a") as caught:
        run_stages(chain(0.2), tmp_path, work)
    assert "certify/a" not in str(caught.value)
    for name in ("settings", "result"):
        (tmp_path / f"train/a/{name}.json").unlink()
    with pytest.raises(SystemExit, match="certify/a: it was made from a result of train/a"):
        run_stages(chain(0.2), tmp_path, work)


def test_other_needs_are_refused(tmp_path):
    run_stages(chain(), tmp_path, Counting())
    with pytest.raises(SystemExit, match="train/a: it was made without pretrain/b"):
        check_settings([Stage("pretrain/b", "pretrain", {}), *chain(also=("pretrain/b",))], tmp_path)


def test_settings_of_a_stage_that_made_nothing_may_be_corrected(tmp_path):
    with pytest.raises(SystemExit, match="2 stages failed, or need one that did; the first: train/a"):
        run_stages(chain(), tmp_path, Counting(fails="train/a"))
    corrected = chain()
    corrected[1] = Stage("train/a", "train", {"arguments": {"x": 2}}, ("pretrain/a",))
    run_stages(corrected, tmp_path, Counting())
    with pytest.raises(SystemExit, match=r"train/a: arguments.x was 2, is 1"):
        check_settings(chain(), tmp_path)


def call(tmp_path: Path, *arguments: str, config: str = "{}", plan=lambda config: chain(), **kwargs) -> None:
    (tmp_path / "own.json").write_text(config)
    given = [
        arguments[0],
        "--config",
        str(tmp_path / "own.json"),
        "--output-dir",
        str(tmp_path / "out"),
        *arguments[1:],
    ]
    command_line(
        "A study.",
        plan,
        **{"work": lambda given: Counting(), "report": lambda given: None} | kwargs,
        arguments=given,
    )


def test_the_command_line_says_what_is_missing(tmp_path, capsys):
    data = ["--data", str(tmp_path / "data")]
    for arguments, kwargs, message in [
        (["run"], {}, "holds set; got None, without set"),
        (["run", *data], {}, "without set"),
        (["run", *data], {"config": "{"}, "own.json cannot be read"),
        (["run", *data], {"plan": lambda config: config["seeds"]}, "lacks 'seeds'. Compare it with cpu.json"),
    ]:
        with pytest.raises(SystemExit):
            call(tmp_path, *arguments, **kwargs)
        assert message in capsys.readouterr().err
    (tmp_path / "data" / "set").mkdir(parents=True)
    with pytest.raises(SystemExit, match=r"No stage starts with 'pretrian'. There are: certify, pretrain, train/..."):
        call(tmp_path, "run", *data, "--only", "pretrian")
    call(tmp_path, "run", *data)
    with pytest.raises(SystemExit, match=r"pretrain/a: rate was 0.1, is 0.3"):
        call(tmp_path, "status", plan=lambda config: chain(0.3))
    assert "certify: 1 of 1 done" in capsys.readouterr().out  # it answers all the same


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"protocol": "last_stage"}, "train/a: `protocol` must be one of"),
        ({"objective": "consistency", "objective_args": {"copy": 2}}, "train/a: `objective_args` names 'copy'"),
        ({"learning": 1}, "train/a: .*unexpected keyword argument 'learning'"),
        ({"noise": "-1"}, "train/a: .*"),
    ],
)
def test_arguments_are_looked_at_first(arguments, message):
    with pytest.raises(SystemExit, match=message):
        check_trainings([Stage("other", "certify", {}), Stage("train/a", "train", {"arguments": arguments})])


def test_what_a_page_has_no_place_for_is_kept_elsewhere(tmp_path, capsys):
    page, summary, out = tmp_path / "page.md", tmp_path / "results" / "figures.json", tmp_path / "out"
    page.write_text("<!-- table cpu one -->\nold\n<!-- end -->\n")
    publish("cpu", {"one": "| 1 |", "two": "| 2 |"}, {"one": 1}, page, summary, out)
    assert page.read_text() == "<!-- table cpu one -->\n| 1 |\n<!-- end -->\n"
    assert json.loads(summary.read_text()) == {"cpu": {"one": 1}}
    assert (out / "report.md").read_text() == "## two\n\n| 2 |\n"
    assert "two, now in" in capsys.readouterr().out
    publish("own", {"one": "| 3 |"}, {"one": 3}, page, summary, out)
    assert "own" not in json.loads(summary.read_text())
    assert json.loads((out / "figures.json").read_text()) == {"own": {"one": 3}}


def test_records_outlive_the_folder(tmp_path):
    run_stages(chain(), tmp_path / "out", Counting())
    file = tmp_path / "records.jsonl"
    kept = keep_records(chain(), tmp_path / "out", file, lambda stage: {"more": stage.kind})
    assert [line["more"] for line in kept] == ["pretrain", "train", "certify"]
    assert keep_records(chain(), tmp_path / "nowhere", file) == kept
    with pytest.raises(SystemExit, match="There is nothing to report"):
        keep_records(chain(), tmp_path / "nowhere", tmp_path / "none.jsonl")


def test_records_are_not_overwritten_by_fewer(tmp_path):
    file = tmp_path / "records.jsonl"
    run_stages(chain(), tmp_path / "out", Counting())
    keep_records(chain(), tmp_path / "out", file)
    before = file.read_text()
    (tmp_path / "out/certify/a/result.json").unlink()
    with pytest.raises(SystemExit, match="holds 2 finished stages and .* 3: nothing was overwritten"):
        keep_records(chain(), tmp_path / "out", file)
    assert file.read_text() == before
    (tmp_path / "empty").mkdir()
    assert len(keep_records(chain(), tmp_path / "empty", file)) == 3  # a folder without results is none


def test_records_of_another_configuration_are_refused(tmp_path):
    file = tmp_path / "records.jsonl"
    run_stages(chain(), tmp_path / "out", Counting())
    keep_records(chain(), tmp_path / "out", file)
    with pytest.raises(SystemExit, match="1 stages that were done with other settings .* first pretrain/a"):
        keep_records(chain(0.2), tmp_path / "nowhere", file)


def test_nan_is_null(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- table cpu one -->\n<!-- end -->\n")
    publish("cpu", {"one": "x"}, {"a": [float("nan"), 1.0]}, page, tmp_path / "f.json", tmp_path)
    assert json.loads((tmp_path / "f.json").read_text()) == {"cpu": {"a": [None, 1.0]}}


def test_a_need_that_is_no_stage_is_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match="b needs a, which is not among the stages"):
        run_stages([Stage("b", "x", {}, ("a",))], tmp_path, lambda stage, needs: {})


def test_one_stage_by_itself(tmp_path):
    work = Counting()
    stages = [Stage("train", "train", {}), Stage("train-large", "train", {}), Stage("after", "x", {}, ("train",))]
    assert not try_stage(stages[2], work, tmp_path)  # what it needs is not there
    with FileLock(_folder(tmp_path / "train") / ".lock"):
        assert not try_stage(stages[0], work, tmp_path)  # another process works on it
    assert work.did == []
    assert try_stage(stages[0], work, tmp_path) and try_stage(stages[0], work, tmp_path)
    assert work.did == ["train"]
    with pytest.raises(RuntimeError, match="no"):
        try_stage(stages[2], Counting(fails="after"), tmp_path)
    with pytest.raises(SystemExit, match="train: rate was None, is 1"):
        try_stage(Stage("train", "train", {"rate": 1}), work, tmp_path)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
