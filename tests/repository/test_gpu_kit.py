"""The GPU kit: pieces that travel, a budget that is kept, stages that are done once, and all of it in miniature."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import pytest

from examples.gpu.__main__ import main
from examples.gpu.pieces import MANIFEST, install, pack, unpack
from examples.gpu.plan import Choice, plan
from examples.gpu.work import Budget, spend
from examples.studies.stages import Stage
from tests.support.processes import ROOT, run_python


class Clock:
    """Seconds that pass on request."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def python(code, name="a", least=1.0, needs=()):
    return Stage(name, "command", {"command": [sys.executable, "-c", code], "least_minutes": least}, needs)


def test_pieces_are_put_together_again(tmp_path):
    (tmp_path / "data" / "inner").mkdir(parents=True)
    (tmp_path / "data" / "inner" / "file").write_bytes(bytes(range(256)) * 10_000)
    pieces = pack({"set": tmp_path / "data"}, tmp_path / "pieces", piece_mib=1.0)
    assert len(pieces) == 3
    assert max(piece.stat().st_size for piece in pieces) <= 2**20
    elsewhere = tmp_path / "other"
    elsewhere.mkdir()
    pieces[1].rename(elsewhere / pieces[1].name)  # they may come in several folders
    unpack([tmp_path / "pieces", elsewhere], tmp_path / "out")
    restored = tmp_path / "out" / "set" / "inner" / "file"
    assert restored.read_bytes() == (tmp_path / "data" / "inner" / "file").read_bytes()
    restored.unlink()
    unpack([tmp_path / "pieces"], tmp_path / "out")  # was done: nothing is read again
    assert not restored.exists()


def test_missing_and_damaged_pieces_are_named(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_bytes(b"x" * 3_000_000)
    pieces = pack({"set": tmp_path / "data"}, tmp_path / "pieces", piece_mib=1.0)
    pieces[1].write_bytes(b"other")
    with pytest.raises(ValueError, match="piece-001 is damaged"):
        unpack([tmp_path / "pieces"], tmp_path / "out")
    pieces[1].unlink()
    with pytest.raises(ValueError, match="piece-001 is missing"):
        unpack([tmp_path / "pieces"], tmp_path / "out")
    with pytest.raises(ValueError, match=f"must hold {MANIFEST}"):
        unpack([tmp_path / "data"], tmp_path / "out")
    with pytest.raises(ValueError, match="Folders to pack must exist, got .*nowhere"):
        pack({"set": tmp_path / "nowhere"}, tmp_path / "pieces")
    with pytest.raises(ValueError, match="positive number of MiB"):
        pack({"set": tmp_path / "data"}, tmp_path / "pieces", piece_mib=0)


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


def test_a_stage_that_is_cut_off_goes_on_next_time(tmp_path, capsys):
    slow = [[python("import time; time.sleep(60)", least=0.0)], [python("pass", "after", least=0.0, needs=("a",))]]
    said = spend(slow, tmp_path, Budget(0.01))
    assert said["a"] == "cut off by the budget: it goes on next time"
    assert said["after"] == "left out: it needs a"
    assert not (tmp_path / "a" / "result.json").exists()


def test_a_training_goes_on_from_its_checkpoint_with_other_minutes(tmp_path):
    """Killed in the middle, it is started again with what is left of the time, and its settings are still its own."""
    code = (
        "import json, pathlib, sys, time; here = pathlib.Path(sys.argv[1]); (here / 'checkpoint-1').mkdir(parents=True, exist_ok=True)\n"
        "(here / 'words').open('a').write(json.dumps(sys.argv[2:]) + chr(10))\n"
        "time.sleep(0 if '--resume_from_checkpoint' in sys.argv else 60)"
    )
    folder = tmp_path / "a" / "model"
    settings = {"command": [sys.executable, "-c", code, str(folder)], "least_minutes": 0.0, "share": 0.5}
    stages = [[Stage("a", "command", settings | {"checkpoints": str(folder)})]]
    assert spend(stages, tmp_path, Budget(0.05))["a"] == "cut off by the budget: it goes on next time"
    assert spend(stages, tmp_path, Budget(1.0))["a"].startswith("done in")
    first, second = map(json.loads, (folder / "words").read_text().splitlines())
    assert first[:2] == ["--minutes", "0.03"] and "--resume_from_checkpoint" not in first
    assert second[:2] == ["--minutes", "0.5"] and second[-2:] == ["--resume_from_checkpoint", "true"]


def test_a_stage_that_fails_does_not_stop_the_others(tmp_path):
    said = spend([[python("raise SystemExit('broken')"), python("pass", "b")]], tmp_path, Budget(5.0))
    assert said["a"].startswith("failed, see")
    assert "broken" in (tmp_path / "a" / "log.txt").read_text()
    assert said["b"].startswith("done in")


def test_stages_of_a_group_run_side_by_side(tmp_path):
    meet = "import sys, time, pathlib; here = pathlib.Path({!r}); (here / {!r}).touch()\nwhile not (here / {!r}).exists(): time.sleep(0.01)"
    stages = [[python(meet.format(str(tmp_path), one, other), one) for one, other in (("a", "b"), ("b", "a"))]]
    said = spend(stages, tmp_path / "out", Budget(2.0))
    assert all(text.startswith("done in") for text in said.values())


def make_wheel(folder, version, answer):
    """A wheel of one module."""
    wheel = folder / f"nothing_much-{version}-py3-none-any.whl"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("nothing_much.py", f"ANSWER = {answer}\n")
        info = f"nothing_much-{version}.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: nothing-much\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def test_wheels_among_the_pieces_are_installed(tmp_path):
    wheel = make_wheel(tmp_path / "wheels", "1.0", 42)
    link = tmp_path / "links"
    link.mkdir()
    (link / wheel.name).symlink_to(wheel)  # as in the cache of the Hub
    pack({"wheels": link}, tmp_path / "pieces")
    unpack([tmp_path / "pieces"], tmp_path / "out")
    install(tmp_path / "out")
    assert (tmp_path / "out" / "site" / "nothing_much.py").read_text() == "ANSWER = 42\n"
    install(tmp_path)  # nothing to install
    done = run_python(
        ROOT / "examples" / "gpu" / "pieces.py", str(tmp_path / "wheels"), str(tmp_path / "b"), cwd=tmp_path
    )
    assert done.returncode == 1 and done.stderr.startswith("pieces: One of the folders must hold pieces.json")


def test_newer_wheels_replace_older_ones(tmp_path):
    out = tmp_path / "out"
    for version, answer in (("1.0", 42), ("2.0", 43)):
        make_wheel(tmp_path / version, version, answer)
        pack({"wheels": tmp_path / version}, tmp_path / f"pieces-{version}")
        unpack([tmp_path / f"pieces-{version}"], out)
        install(out)
    assert (out / "site" / "nothing_much.py").read_text() == "ANSWER = 43\n"
    (out / "site" / "mark").touch()
    install(out)  # has been done
    assert (out / "site" / "mark").exists()


def test_wheels_are_installed_wholly_or_not_at_all(tmp_path, monkeypatch):
    make_wheel(tmp_path / "wheels", "1.0", 42)
    (tmp_path / MANIFEST).write_text("{}")

    def interrupted(command, check):
        target = Path(command[command.index("--target") + 1])
        target.mkdir()
        (target / "half").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("subprocess.run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            install(tmp_path)
    assert not (tmp_path / "site").exists()
    install(tmp_path)
    assert (tmp_path / "site" / "nothing_much.py").exists() and not (tmp_path / "site" / "half").exists()


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
    assert main(["run", "--dry", "--minutes", "10", "--output-dir", str(tmp_path)]) == 0, capfd.readouterr().out
    out = capfd.readouterr().out
    names = [stage.name for group in plan(Choice(tmp_path, tmp_path)) for stage in group]
    for name in names:
        assert f"{name}: done in" in out
    assert json.loads((tmp_path / "benchmark" / "throughput.json").read_text())["dry"]
    assert (tmp_path / "certify-0.5" / "run" / "run.json").exists()
    assert main(["run", "--dry", "--minutes", "10", "--output-dir", str(tmp_path)]) == 0
    assert capfd.readouterr().out.count("was done before") == len(names)
