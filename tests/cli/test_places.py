"""Where a command writes is found out before it works, and what stops it is said plainly."""

import errno
import importlib
import json
import shutil

import pytest

from hf_smoothing.cli import main
from hf_smoothing.cli.places import check_places, trouble_of
from tests.repository.test_examples import BACKBONE, run
from tests.support.commands import certify, command, model_and_images


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = model_and_images(tmp_path_factory.mktemp("places"), count=3)
    assert certify(folder / "model", folder / "images", folder / "run") == 0
    return folder


def words_of(verb, made, output):
    if verb == "report":
        shown = ["--html", "--dataset", made / "images", "--model", made / "model"]
        return ["report", made / "run", *shown, "--output-dir", output]
    if verb == "demo":
        return ["demo", "--dataset", made / "images", "--output-dir", output]
    if verb == "certify":
        return ["certify", made / "model", made / "images", "--sigma", "0.25", "--output-dir", output]
    roles = [word for role in ("pretrained", "finetuned", "standard") for word in (f"--{role}", made / "model")]
    return ["robustness-transfer", *roles, "--dataset", made / "images", "--output-dir", output]


@pytest.mark.parametrize("verb", ["report", "certify", "robustness-transfer", "demo"])
def test_without_permission_to_write(verb, made, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("hf_smoothing.records.writing.os.access", lambda *place: False)
    assert command(*words_of(verb, made, tmp_path / "out")) == 2
    error = capsys.readouterr().err
    said = (
        f"The output folder {tmp_path / 'out'} cannot be written (Permission denied: {tmp_path}). Choose another one."
    )
    assert error.splitlines()[-1] == f"hf-smoothing {verb}: {said}"
    assert not (tmp_path / "out").exists()


def test_attack_asks_before_it_works(made, monkeypatch, capsys):
    monkeypatch.setattr("hf_smoothing.records.writing.os.access", lambda *place: False)
    assert command("attack", made / "run") == 2
    assert f"The output folder {made / 'run'} cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["report", "certify", "robustness-transfer", "demo"])
def test_an_output_that_is_a_file(verb, made, tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    assert command(*words_of(verb, made, tmp_path / "file")) == 2
    assert "cannot be written (Not a directory" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("verb", ["report", "certify", "robustness-transfer", "demo"])
def test_an_output_inside_the_data(verb, made, capsys):
    assert command(*words_of(verb, made, made / "images" / "out")) == 2
    error = capsys.readouterr().err
    assert (
        "lies in the folder of the data set" in error
        and "its files would be taken for data. Choose another one." in error
    )
    assert not (made / "images" / "out").exists()


@pytest.mark.parametrize("verb", ["report", "certify", "robustness-transfer"])
def test_an_output_among_the_weights(verb, made, capsys):
    before = sorted((made / "model").iterdir())
    assert command(*words_of(verb, made, made / "model")) == 2
    assert f"is that of the model {made / 'model'}: files would lie among its weights" in capsys.readouterr().err
    assert sorted((made / "model").iterdir()) == before
    check_places(made / "model" / "run", None, str(made / "model"), None, "some/hub-id")  # beside the weights


def test_an_output_beside_what_nobody_named(made, tmp_path, capsys):
    """The weights of any model, and the images that a run is about; who writes models may write a folder of one again."""
    shutil.copytree(made / "model", tmp_path / "other")
    with pytest.raises(ValueError, match="is that of the model .*Choose another one"):
        check_places(tmp_path / "other", "some/data", "some/model")
    check_places(tmp_path / "other", "some/data", "some/model", written=[tmp_path / "other" / "checkpoint-5"])
    for place, said in (
        (tmp_path / "other", "is that of the model"),
        (made / "images" / "out", "lies in the folder of the data set"),
    ):
        assert command("report", made / "run", "--output-dir", place) == 2
        assert said in capsys.readouterr().err and not [*place.glob("report.*")]


def test_an_attack_of_a_run_inside_the_data(made, tmp_path, capsys):
    shutil.copytree(made, tmp_path / "images")
    assert command("attack", tmp_path / "images" / "run", "--dataset", tmp_path / "images") == 2
    assert "lies in the folder of the data set" in capsys.readouterr().err
    assert not list(tmp_path.rglob("attack.json"))


@pytest.mark.parametrize("given", ["mine", ".", "trainer/kept", "mine-sigma0.5/images"])
def test_what_a_demo_would_replace_is_kept(given, made, tmp_path, monkeypatch, capsys):
    """A backbone or the data set lies where the demo writes a network, a run, or what its Trainer keeps; `.` is called by its own name."""
    read = tmp_path / "out" / ("mine" if given == "." else given)
    shutil.copytree(made / "model", read)
    before = (read / "model.safetensors").read_bytes()
    monkeypatch.chdir(read if given == "." else tmp_path)
    inputs = ["--backbones", "." if given == "." else read, "--dataset", made / "images"]
    if given.endswith("images"):
        inputs = ["--backbones", made / "mine", "--dataset", read]
    assert command("demo", *inputs, "--sigmas", "0.5", "--output-dir", tmp_path / "out") == 2
    assert "where" in (said := capsys.readouterr().err) and "it would be replaced. Choose another one." in said
    assert (read / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("backbones", "sigmas"),
    [(["a/best", "b/best"], ["0.5"]), (["a/best"], ["0.5", "0.5"]), (["a/trainer"], ["0.5"]), (["a/x", "b/x-sigma0.5"], ["0.5"])],
)  # fmt: skip
def test_a_demo_of_two_things_for_one_folder_is_refused(backbones, sigmas, tmp_path, capsys):
    words = ["--backbones", *backbones, "--sigmas", *sigmas, "--output-dir", tmp_path / "out"]
    assert command("demo", *words) == 2
    assert "must have a folder of its own" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("program", "flag", "place"),
    [
        ("finetune", "--backbone", ""),
        ("finetune", "--backbone", "checkpoint-5"),
        ("pretrain", "--weights", ""),
        ("pretrain", "--network", "checkpoint-5"),
        ("accelerate_loop", "--backbone", "certified"),
        ("certify", "--model", ""),
        ("adaptive_certified_training", "--start-from", "fixed/checkpoint-5"),
    ],
)
def test_examples_keep_the_network_that_they_read(program, flag, place, made, tmp_path, monkeypatch):
    """Checkpoints in an output folder are written over, or removed so that few are kept."""
    shutil.copytree(made / "model", tmp_path / "out" / place)
    more = ["--largest", "0.1"] if program.startswith("adaptive") else []
    places = [flag, str(tmp_path / "out" / place), "--output_dir", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", [program, *places, "--dataset", str(made / "images"), *more])
    with pytest.raises(ValueError, match=r"Choose another one\."):
        importlib.import_module(f"examples.{program}").main()


def test_a_full_disk_is_said(made, tmp_path, monkeypatch, capsys):
    def full(self, row):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("hf_smoothing.records.RunWriter.append", full)
        assert certify(made / "model", made / "images", tmp_path / "run") == 2
    assert (
        "hf-smoothing certify: No space is left on the disk. Free some, then give the same command again."
        in capsys.readouterr().err
    )
    assert certify(made / "model", made / "images", tmp_path / "run") == 0


def test_the_number_of_an_error_is_left_out():
    assert (
        trouble_of(FileNotFoundError(errno.ENOENT, "No such file or directory", "x.json"))
        == "x.json: No such file or directory"
    )
    assert trouble_of(OSError("plain")) == "plain"
    assert trouble_of(ValueError("wrong")) == "wrong"


def test_places_that_are_well(tmp_path):
    check_places(tmp_path / "new" / "run", "some/data")
    check_places(tmp_path, str(tmp_path / "no-such-data"))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("pretrain.py", []),
        ("finetune.py", ["--backbone", BACKBONE]),
        ("accelerate_loop.py", ["--backbone", BACKBONE]),
        ("certify.py", ["--model", BACKBONE]),
        ("adaptive_certified_training.py", ["--largest", "0.1"]),
    ],
)
def test_examples_keep_their_output_out_of_the_data(program, arguments, made, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"dataset": str(made / "images"), "output_dir": str(made / "images" / "out")}))
    error = run(program, "--config", str(config), *arguments, cwd=tmp_path, fails=True)
    assert "lies in the folder of the data set" in error
    assert not (made / "images" / "out").exists()


def test_unknown_options_are_named_beside_those_there_are(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["report", "run", "--treshold", "1", "--output_dir", "x"])
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert error == (
        "hf-smoothing report: error: unknown option: --treshold, did you mean --thresholds?; --output_dir, did you mean --output-dir?\n"
        "hf-smoothing report --help lists the options.\n"
    )


def test_the_options_are_listed_where_none_is_near(capsys):
    with pytest.raises(SystemExit):
        main(["certify", "m", "d", "--zzzz", "1"])
    first, *options, last = capsys.readouterr().err.splitlines()
    assert first == "hf-smoothing certify: error: unknown option: --zzzz" and last.endswith("lists the options.")
    assert len(options) <= 6 and options[0].startswith("Options: ")
    assert {"--sigma", "--output-dir", "--config"} <= set(" ".join(options).split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cerfity"], "Did you mean certify?"),
        (["certify", "m", "d", "--mode", "sequential"], "Did you mean targets? Records call it sequential."),
        (["certify", "m", "d", "--mode", "curv"], "Did you mean curve?"),
        (["certify", "m", "d", "--n", "1e3"], "argument --n: invalid int value: '1e3'. Write 1000 or 1_000."),
        (["certify", "m", "d", "--n", "2.5"], "invalid int value: '2.5'. Write a whole number."),
        (
            ["certify", "m", "d", "--sigma", "wide"],
            "invalid float value: 'wide'. Write a number, such as 0.25 or 8/255.",
        ),
        (["certify", "m", "d", "--largest", "8/0"], "invalid float value: '8/0'. Write a number,"),
        (["export", "r", "--radius", "1/2/3"], "invalid float value: '1/2/3'. Write a number,"),
    ],
)
def test_a_mistyped_value_is_answered_with_what_was_meant(words, said, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    error = capsys.readouterr().err
    assert caught.value.code == 2 and said in error and error.count("\n") == 2
