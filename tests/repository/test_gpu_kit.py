"""The GPU kit: a budget that is kept, stages that are done once, and all of it in miniature."""

from __future__ import annotations

import json
import sys

import pytest
from filelock import FileLock

from examples.gpu.__main__ import main
from examples.gpu.plan import Choice, plan
from examples.gpu.work import Budget, spend
from examples.studies.stages import Stage


class Clock:
    """Seconds that pass on request."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def python(code, name="a", least=1.0, needs=(), kind="certify"):
    return Stage(name, kind, {"command": [sys.executable, "-c", code], "least_minutes": least}, needs)


def test_what_does_not_fit_is_left_and_what_is_done_stays_done(tmp_path):
    mark = tmp_path / "mark"
    count = f"open({str(mark)!r}, 'a').write('x')"
    stages = [[python(count)], [python(count, "long", least=10.0), python(count, "b", needs=("a",))]]
    clock = Clock()
    said = spend(stages, tmp_path / "out", Budget(5.0, clock))
    assert said["long"] == "left out: it needs 10 minutes, and 5.0 are left"
    assert said["a"].startswith("done in") and said["b"].startswith("done in")
    assert mark.read_text() == "xx"
    again = spend(stages, tmp_path / "out", Budget(15.0, clock))
    assert again["a"] == again["b"] == "was done before"
    assert mark.read_text() == "xxx"


def test_a_stage_that_is_cut_off_goes_on_next_time(tmp_path, capfd):
    sleep = "import time; time.sleep(60)"
    slow = [
        [python(sleep, least=0.0), python(sleep, "check", least=0.0, kind="check")],
        [python("pass", "after", least=0.0, needs=("a",))],
    ]
    said = spend(slow, tmp_path, Budget(0.01))
    assert said["a"] == "cut off by the budget: it goes on next time"
    assert said["check"] == "cut off by the budget: it starts over next time"
    assert said["after"] == "left out: it needs a"
    assert not (tmp_path / "a" / "result.json").exists()
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_failure_at_the_end_of_the_budget_is_a_failure(tmp_path, monkeypatch):
    clock = Clock()
    budget = Budget(1.0, clock)

    def fails(*given):
        clock.now = 60.0
        raise RuntimeError("broken")

    monkeypatch.setattr("examples.gpu.work.run_command", fails)
    assert spend([[python("pass")]], tmp_path, budget)["a"].startswith("failed, see")
    assert budget.left == 0.0


def test_a_training_goes_on_from_its_checkpoint_with_other_minutes(tmp_path):
    """Broken off in the middle, it is started again with other minutes, and its settings are still its own."""
    code = (
        "import json, pathlib, sys; here = pathlib.Path(sys.argv[1]); (here / 'checkpoint-1').mkdir(parents=True, exist_ok=True)\n"
        "(here / 'checkpoint-1' / 'trainer_state.json').touch(); (here / 'checkpoint-2').mkdir(exist_ok=True)\n"  # cut off while it was written
        "(here / 'words').open('a').write(json.dumps(sys.argv[2:]) + chr(10))\n"
        "sys.exit('--resume_from_checkpoint' not in sys.argv)"
    )
    folder = tmp_path / "a" / "model"
    settings = {"command": [sys.executable, "-c", code, str(folder)], "least_minutes": 0.0, "share": 0.5}
    stages = [[Stage("a", "train", settings | {"checkpoints": str(folder)})]]
    assert spend(stages, tmp_path, Budget(2.0))["a"].startswith("failed, see")
    assert spend(stages, tmp_path, Budget(1.0))["a"].startswith("done in")
    first, second = map(json.loads, (folder / "words").read_text().splitlines())
    assert first[:2] == ["--minutes", "1.0"] and "--resume_from_checkpoint" not in first
    assert second[:2] == ["--minutes", "0.5"] and second[-2:] == [
        "--resume_from_checkpoint",
        str(folder / "checkpoint-1"),
    ]


def test_a_stage_that_fails_does_not_stop_the_others(tmp_path):
    said = spend([[python("raise SystemExit('broken')"), python("pass", "b")]], tmp_path, Budget(5.0))
    assert said["a"].startswith("failed, see")
    assert "broken" in (tmp_path / "a" / "log.txt").read_text()
    assert said["b"].startswith("done in")


def test_only_the_chosen_stages_are_done_and_none_by_a_part_of_its_name(tmp_path):
    stages = [[python("pass"), python("pass", "a-large")], [python("pass", "b", needs=("a",))]]
    assert spend(stages, tmp_path, Budget(5.0), ("b",)) == {"b": "left out: it needs a"}
    assert list(tmp_path.iterdir()) == []
    large = python("raise SystemExit('begun')", "a-large", least=10.0)
    said = spend([[python("pass"), large], *stages[1:]], tmp_path, Budget(5.0), ("a",))
    assert said["a"].startswith("done in") and said["a-large"].startswith("left out: it needs 10 minutes")
    assert not (tmp_path / "a-large").exists()
    assert list(said := spend(stages, tmp_path, Budget(5.0), ("b",))) == ["b"] and said["b"].startswith("done in")


def test_other_settings_are_refused_also_of_what_a_stage_needs(tmp_path):
    after = python("pass", "b", needs=("a",))
    assert spend([[python("pass")]], tmp_path, Budget(5.0))["a"].startswith("done in")
    said = spend([[python("1 + 1")], [after]], tmp_path, Budget(5.0))
    for text in said.values():
        assert text.startswith("refused: a was made with other settings (with pass, now it is 1 + 1). Restore them")
    assert not (tmp_path / "b").exists()
    assert spend([[python("pass")], [after]], tmp_path, Budget(5.0))["b"].startswith("done in")
    (tmp_path / "a" / "result.json").write_text('{"seconds": 99.0}')
    said = spend([[python("pass")], [after]], tmp_path, Budget(5.0))
    assert said["a"] == "was done before"
    assert "b was made with other settings (it was made from a result of a that is no longer there)" in said["b"]


def test_dry_and_real_results_are_never_mixed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("examples.gpu.__main__.spend", lambda *given: {})
    for name in ("cifar10", "mnist"):
        (tmp_path / name).mkdir()
    real = ["run", "--data", str(tmp_path), "--stages", "linf", "--output-dir", str(tmp_path / "out")]
    assert main(real) == 0 and main(real) == 0
    assert main([*real, "--dry"]) == 1
    assert "holds the results of a real run, this is a dry one" in capsys.readouterr().err


def test_what_another_process_works_on_is_left_to_it(tmp_path):
    (tmp_path / "a").mkdir()
    with FileLock(tmp_path / "a" / ".lock"):
        said = spend([[python("pass")], [python("pass", "b", needs=("a",))]], tmp_path, Budget(5.0))
    assert said == {"a": "left out: another process works on it", "b": "left out: it needs a"}


def test_stages_of_a_group_run_side_by_side(tmp_path):
    meet = "import sys, time, pathlib; here = pathlib.Path({!r}); (here / {!r}).touch()\nwhile not (here / {!r}).exists(): time.sleep(0.01)"
    stages = [[python(meet.format(str(tmp_path), one, other), one) for one, other in (("a", "b"), ("b", "a"))]]
    said = spend(stages, tmp_path / "out", Budget(2.0))
    assert all(text.startswith("done in") for text in said.values())


@pytest.mark.parametrize("backbone", [None, "some/backbone"])
def test_every_need_comes_first(tmp_path, backbone):
    done: set[str] = set()
    for group in plan(Choice(tmp_path, tmp_path / "out", backbone)):
        for stage in group:
            assert set(stage.needs) <= done
            json.dumps(stage.settings)
        done |= {stage.name for stage in group}
    assert ("pretrain" in done) == (backbone is None)
    assert {"tests", "benchmark", "finetune", "certify-0.25", "linf"} <= done


def test_no_gpu_and_unknown_stages_are_said_plainly(tmp_path, capsys):
    import torch

    if not torch.cuda.is_available():
        assert main(["run", "--output-dir", str(tmp_path)]) == 1
        assert "needs a CUDA GPU, and torch sees none here" in capsys.readouterr().err
    assert main(["run", "--output-dir", str(tmp_path), "--stages", "train", "--dry"]) == 1
    assert "No stage starts with train. There are: benchmark, tests, pretrain," in capsys.readouterr().err
    assert main(["pack", "--output-dir", str(tmp_path)]) == 1
    assert "`pack` needs --data" in capsys.readouterr().err


def test_data_that_is_missing_and_too_few_minutes_are_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert main(["run", "--output-dir", str(tmp_path), "--minutes", "1"]) == 1
    assert "--minutes must be at least 2" in capsys.readouterr().err
    (tmp_path / "cifar10").mkdir()
    assert main(["run", "--output-dir", str(tmp_path / "out"), "--data", str(tmp_path)]) == 1
    assert "must hold tiny_imagenet32, cifar10, mnist for these stages, but tiny_imagenet32, mnist is missing" in (
        capsys.readouterr().err
    )


@pytest.mark.slow
def test_all_of_it_in_miniature(tmp_path, capfd):
    assert main(["run", "--dry", "--minutes", "30", "--output-dir", str(tmp_path)]) == 0, capfd.readouterr().out
    out = capfd.readouterr().out
    names = [stage.name for group in plan(Choice(tmp_path, tmp_path)) for stage in group]
    for name in names:
        assert f"{name}: done in" in out
    assert json.loads((tmp_path / "benchmark" / "throughput.json").read_text())["dry"]
    assert (tmp_path / "certify-0.5" / "run" / "run.json").exists()
    assert main(["run", "--dry", "--minutes", "30", "--output-dir", str(tmp_path)]) == 0
    assert capfd.readouterr().out.count("was done before") == len(names)
