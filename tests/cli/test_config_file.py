"""`--config FILE`: values of any option from YAML or JSON; words of the command line win; mistakes are explained."""

import argparse
import json
from dataclasses import dataclass, field

import pytest
from transformers import HfArgumentParser

from hf_smoothing import RobustTrainingArguments
from hf_smoothing.cli import build_parser, main, verbs_of
from hf_smoothing.cli.config_file import options_by_name
from hf_smoothing.cli.parsing import parse_dataclasses, parse_verb
from hf_smoothing.data import DataChoice
from hf_smoothing.records import read_run
from tests.support.commands import model_and_images
from tests.support.processes import ROOT


def parsed(*words):
    parser = build_parser()
    return parse_verb(parser, verbs_of(parser), [str(word) for word in words])


def written(folder, text, name="settings.yaml"):
    (folder / name).write_text(text)
    return folder / name


BASE = "model: m\ndataset: d\noutput-dir: out\nsigma: 0.25\n"


def test_a_file_gives_what_flags_would(tmp_path):
    file = written(
        tmp_path, BASE + "n0: 50\ntargets: [0.25, 0.5]\nmode: targets\nlabel_aware: true\ndataset-config: x\n"
    )
    flags = ["--sigma", "0.25", "--n0", "50", "--targets", "0.25", "0.5", "--mode", "targets", "--label-aware"]
    plain = parsed("certify", "m", "d", *flags, "--dataset-config", "x", "--output-dir", "out")
    assert vars(parsed("certify", "--config", file)) == vars(plain)
    assert vars(parsed("certify", f"--config={file}")) == vars(plain)


def test_json_gives_the_same_as_yaml(tmp_path):
    values = {"model": "m", "dataset": "d", "output_dir": "out", "sigma": 0.25, "targets": [0.25], "alpha": 1e-4}
    file = written(tmp_path, json.dumps(values, indent="\t"), "settings.json")
    args = parsed("certify", "--config", file)
    assert (args.alpha, args.targets, str(args.output_dir)) == (1e-4, [0.25], "out")


def test_pixel_values_may_be_fractions_everywhere(tmp_path):
    file = written(tmp_path, BASE + "method: interval\nlargest: 8.8/255\ntargets: [1/4, 0.5]\n")
    of_file = parsed("certify", "--config", file)
    of_words = parsed("certify", "m", "d", "--sigma", "1/4", "--largest", "8.8/255", "--targets", "1/4", "1/2", "--output-dir", "o")  # fmt: skip
    for args in (of_file, of_words):
        assert (args.sigma, args.largest, args.targets) == (0.25, 8.8 / 255, [0.25, 0.5])
    assert parsed("export", "run", "--radius", "2/255").radius == 2 / 255
    *_, args = example("--backbone", "b", "--dataset", "d", "--output-dir", tmp_path, "--use_cpu", "true", "--learning_rate", "1/8")  # fmt: skip
    assert args.learning_rate == 0.125


def test_flags_win(tmp_path):
    file = written(tmp_path, BASE + "targets: [0.25, 0.5]\nstreaming: true\nlabel-aware: true\n")
    for words in (["--sigma", "0.5", "--config", file], ["--config", file, "--sigma", "0.5"]):
        args = parsed("certify", *words, "--targets", "1", "--no-streaming")
        assert (args.sigma, args.targets, args.streaming, args.label_aware) == (0.5, [1.0], False, True)


def test_a_switch_that_is_on_can_be_turned_off(tmp_path):
    file = written(tmp_path, BASE + "cover-run: false\n")
    for words, on in (([], True), (["--no-cover-run"], False), (["--config", file], False), (["--config", file, "--cover-run"], True)):  # fmt: skip
        base = [] if "--config" in words else ["model", "data", "--output-dir", "out", "--sigma", "0.25"]
        assert parsed("certify", *base, *words).cover_run is on


@pytest.mark.parametrize("words", [["other"], ["--n", "5", "other"], ["other", "--n", "5"]])
def test_an_argument_by_place_is_taken_beside_those_of_the_file(words, tmp_path):
    file = written(tmp_path, "model: m\noutput-dir: out\nsigma: 0.25\n")
    args = parsed("certify", "--config", file, *words)
    assert (args.model, args.dataset) == ("m", "other")
    file = written(tmp_path, BASE)
    args = parsed("certify", "--config", file, *words)
    assert (args.model, args.dataset) == ("other", "d")


def test_run_folders_come_from_a_file(tmp_path):
    assert [str(run) for run in parsed("report", "--config", written(tmp_path, "runs: [a, b]")).runs] == ["a", "b"]
    assert [str(run) for run in parsed("report", "c", "--config", written(tmp_path, "runs: [a, b]")).runs] == ["c"]
    assert str(parsed("attack", "--config", written(tmp_path, "run: a")).certified) == "a"


def test_numbers_that_yaml_takes_for_text_are_numbers(tmp_path):
    assert parsed("certify", "--config", written(tmp_path, BASE + "alpha: 1e-4")).alpha == 1e-4


WRITTEN = ["1.10", "0x10", "007", "0_1000", "1:30", "2024-01-01", "1e5", "+5", ".5", "0.10"]


@pytest.mark.parametrize("name", ["settings.yaml", "settings.json"])
def test_numbers_are_read_as_on_a_command_line(name, tmp_path):
    """Not as YAML 1.1 reads them, where 007 is 7 and 1:30 is 90."""
    words = WRITTEN if name.endswith("yaml") else ["1.10", "1e5", "0.10", "10", "-0.0"]
    file = written(tmp_path, f'{{"names": [{", ".join(words)}], "runs": ["r"]}}', name)
    assert parsed("report", "--config", file).names == words
    for word in words:
        file = written(
            tmp_path, f'{{"model": "m", "dataset": "d", "output_dir": "o", "sigma": 1, "seed": {word}}}', name
        )
        try:
            expected = parsed("certify", "m", "d", "--sigma", "1", "--output-dir", "o", "--seed", word).seed
        except SystemExit:
            with pytest.raises(SystemExit):
                parsed("certify", "--config", file)
        else:
            assert parsed("certify", "--config", file).seed == expected


def test_numbers_inside_a_mapping_are_read_as_on_a_command_line(tmp_path):
    file = written(tmp_path, "objective_args: {a: 1.50, b: 1e-3, c: 010, d: 1:30, e: '7'}\n")
    *_, args = example("--config", file, "--backbone", "b", "--dataset", "d", "--output-dir", tmp_path, "--use_cpu", "true")  # fmt: skip
    assert args.objective_args == {"a": 1.5, "b": 0.001, "c": 10, "d": "1:30", "e": "7"}


def test_every_option_of_every_verb_can_stand_in_a_file():
    verbs = verbs_of(build_parser())
    assert {name for name, verb in verbs.items() if "--config" in verb._option_string_actions} >= {
        "certify", "report", "attack", "robustness-transfer", "demo",
    }  # fmt: skip
    for verb in verbs.values():
        flags = {
            action.dest for action in verb._actions if action.option_strings and action.dest not in ("help", "config")
        }
        assert flags <= set(options_by_name(verb))
        assert "config" not in options_by_name(verb)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sgima: 0.5", "`sgima` is no option of hf-smoothing certify. Did you mean `sigma`?"),
        ("xyzzy: fine", "`xyzzy` is no option of hf-smoothing certify. The options are model, method, sigma,"),
        ("n: many", '`n` must be a whole number, got "many"'),
        ("n: 0.5", "`n` must be a whole number, got 0.5"),
        ("n: [1, 2]", "`n` must be one value, a whole number, got a list: [1, 2]"),
        ("n:", "`n` must be a whole number, got nothing. Leave the line out"),
        ("n: true", "`n` must be a whole number, got true"),
        ("alpha: low", '`alpha` must be a number, got "low"'),
        ("largest: 8/x", '`largest` must be a number, got "8/x". Write a number, such as 0.25 or 8/255.'),
        ("targets: [0.25, far]", '`targets` must be a number, got "far"'),
        ("targets: []", "`targets` must be a list with at least one entry"),
        ("mode: quick", '`mode` must be one of targets, curve, fixed, got "quick"'),
        ("streaming: 1", "`streaming` must be true or false, got 1"),
        ("split: no", "`split` must be text, got false. YAML reads yes, no, on and off as true and false"),
        ("sigma: 0.5", "`sigma` stands there twice"),
        ("output_dir: elsewhere", "`output_dir` stands there twice"),
        ("config: other.yaml", "`config` is no option"),
        ("help: true", "`help` is no option"),
        ("run: x", "`run` is no option"),
        ("x: [", "cannot be read (while parsing"),
    ],
)  # fmt: skip
def test_mistakes_in_a_file_are_explained(line, said, tmp_path, capsys):
    file = written(tmp_path, f"{BASE}{line}\n")
    with pytest.raises(SystemExit) as caught:
        main(["certify", "--config", str(file)])
    message = capsys.readouterr().err.partition("error: ")[2]
    assert caught.value.code == 2
    assert said in message and str(file) in message


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        (None, "missing.yaml", "missing.yaml, cannot be read (No such file or directory). Pass a YAML or JSON file"),
        (
            "",
            "empty.yaml",
            "must hold one mapping of options to values, with lines such as `sigma: 0.25`, got nothing",
        ),
        ("- a\n", "list.yaml", "got a list"),
        ('{"sigma": 0.25,}', "torn.json", "torn.json, cannot be read ("),
        ('{"sigma": 0.25, "sigma": 0.5}', "twice.json", "`sigma` stands there twice"),
        ("[1]", "list.json", "got a list"),
    ],
)
def test_a_file_that_is_none_is_explained(text, name, said, tmp_path, capsys):
    if text is not None:
        written(tmp_path, text, name)
    with pytest.raises(SystemExit) as caught:
        main(["report", "--config", str(tmp_path / name)])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_a_file_in_the_wrong_place_is_explained(tmp_path, capsys):
    file = str(written(tmp_path, BASE))
    for words, said in (
        (["--config", file, "--config", file], "--config is given 2 times"),
        (["--config"], "--config must be followed by"),
        (["--config", "--sigma", "1"], "--config must be followed by"),
    ):
        with pytest.raises(SystemExit):
            main(["certify", *words])
        assert said in capsys.readouterr().err


def test_what_the_file_leaves_out_is_still_needed(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["certify", "--config", str(written(tmp_path, "model: m\nsigma: 0.25"))])
    assert "required: --output-dir" in capsys.readouterr().err


def test_a_run_by_a_file_is_the_run_by_flags(tmp_path, capsys):
    made = model_and_images(tmp_path, count=3)
    file = written(
        tmp_path,
        f"model: {made / 'model'}\ndataset: {made / 'images'}\nsigma: 0.5\nn: 20\nn0: 5\ndevice: cpu\noutput_dir: {tmp_path / 'run'}",
    )
    assert main(["certify", "--config", str(file), "--sigma", "0.25"]) == 0
    run = read_run(tmp_path / "run")
    assert run.settings["sigma"] == 0.25 and run.settings["rule"]["n"] == 20
    capsys.readouterr()


def test_the_file_of_the_guide_works(tmp_path):
    guide = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    block = guide.partition("```yaml\n")[2].partition("```")[0]
    args = parsed("certify", "--config", written(tmp_path, block), "--sigma", "1")
    assert (args.sigma, args.targets, args.streaming) == (1.0, [0.25, 0.5], False)


@dataclass
class Wanted:
    """What an example asks for."""

    backbone: str = field(metadata={"help": "Folder."})
    widths: list[int] = field(default_factory=lambda: [8], metadata={"help": "Widths."})
    three_phases: bool = field(default=True, metadata={"help": "Three."})
    noise_text: str = field(default="clean", metadata={"help": "Noise."})


def example(*words):
    parser = HfArgumentParser((Wanted, DataChoice, RobustTrainingArguments), prog="example.py")
    parser.set_defaults(split="train", learning_rate=0.02)
    return parse_dataclasses(parser, [str(word) for word in words])


def test_examples_take_a_file(tmp_path):
    file = written(
        tmp_path,
        f"backbone: b\ndataset: d\noutput-dir: {tmp_path}\nwidths: [4, 8]\nthree_phases: false\nlearning_rate: 1e-3\nuse_cpu: true\n"
        "noise: {sigmas: [0, 1], clean: 0.25}\nobjective_args: {weight: 2}\nobjective: consistency\nsave_strategy: 'no'\nmax_images: 7\nbf16: false\n",
    )  # fmt: skip
    wanted, choice, args = example("--config", file)
    assert (wanted.backbone, wanted.widths, wanted.three_phases) == ("b", [4, 8], False)
    assert (choice.dataset, choice.split, choice.max_images) == ("d", "train", 7)
    assert (args.learning_rate, args.save_strategy, args.objective) == (1e-3, "no", "consistency")
    assert args.mixture().sigmas == (0, 1)
    wanted, choice, args = example("--config", file, "--learning_rate", "0.5", "--split", "test", "--widths", "2")
    assert (wanted.widths, choice.split, args.learning_rate) == ([2], "test", 0.5)
    assert example("--config", file, "--three_phases", "true")[0].three_phases is True


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--lerning_rate", "1"], "unknown option: --lerning_rate, did you mean --learning_rate?"),
        (["--per_device_train_batch", "1"], "did you mean --per_device_train_batch_size?"),
        (["--learning_rate", "fast"], "invalid float value: 'fast'"),
        (["stray"], "unknown words: stray"),
        (["--noise", "-1"], "sigma"),
    ],
)
def test_mistyped_options_of_examples_are_explained(words, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        example("--backbone", "b", "--dataset", "d", "--output-dir", tmp_path, "--use_cpu", "true", *words)
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert said in error and error.count("\n") < 10
    plain = "usage: example.py [--help] --backbone ... --dataset ... [options]" in error
    assert plain != ("example.py --help lists the options." in error)


def test_values_of_the_wrong_type_are_explained_to_examples(tmp_path, capsys):
    for line, said in (
        ("learning_rate: fast", '`learning_rate` must be a number, got "fast"'),
        ("use_cpu: 3", "`use_cpu` must be true or false, got 3"),
        ("eval_strategy: no", "`eval_strategy` must be"),
        ("max_images: 1e3", "`max_images` must be a whole number, got 1e3. Write 1000 or 1_000."),
        ("widths: wide", '`widths` must be a whole number, got "wide"'),
        ("learning-rates: 1", "Did you mean `learning_rate`?"),
    ):
        file = written(tmp_path, f"backbone: b\ndataset: d\n{line}\n")
        with pytest.raises(SystemExit):
            example("--config", file)
        assert said in capsys.readouterr().err, line


def test_plain_parsers_are_left_as_they_were():
    parser = argparse.ArgumentParser()
    assert options_by_name(parser) == {}
