"""`hf-smoothing audit`: its verdict, its exit status, and what it says to certifiers that are none."""

from __future__ import annotations

import re

import pytest

from hf_smoothing.cli import main


QUICK = ["--explore", "60", "--confirm", "1000", "--radii", "0.25"]


def test_our_certifier_is_acquitted(capsys):
    given = '{"mode": "fixed", "n0": 10, "n": 100, "copies_per_batch": 2048}'
    assert main(["audit", *QUICK, "--arguments", given]) == 0
    first, *cases, confirmed, again, verdict, alarm, power = capsys.readouterr().out.splitlines()
    assert first == "hf_smoothing:certify: false certificates at sigma 0.5, alpha 0.05"
    assert len(cases) == 4 and all(
        re.fullmatch(r"  .* exact radius \d\.\d{4}: \d+ of 60 false, \d+ answered", case) for case in cases
    )
    assert " of 1000 false" in confirmed
    assert re.fullmatch(
        r"Again with fresh noise, half-space with radius .*: \d+ of 1000 false \(p-value .*; 74 are a violation\)\.",
        again,
    )
    assert verdict == "No violation was found."
    assert alarm.endswith("is accused with probability 0.001 at most.") and "is found with probability 0." in power


def test_a_careless_certifier_is_found(capsys):
    assert main(["audit", "tests.support.careless:at_every_look", *QUICK]) == 1
    assert re.search(
        r"VIOLATION: 0\.\d{3} of its certificates are false where 0\.05 is claimed\.", capsys.readouterr().out
    )


def test_a_certifier_of_the_current_folder_that_abstains(tmp_path, monkeypatch, capsys):
    (tmp_path / "silent_certifier.py").write_text(
        "def silent(classifier, images, **asked):\n    return [-1] * len(images), [0.0] * len(images)\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["audit", "silent_certifier:silent", *QUICK]) == 2
    said = capsys.readouterr().out
    assert "It abstained from everything, so nothing was put to the test." in said
    assert "is found with probability" not in said and "p-value" not in said


BAD = {
    "own alpha": (["--arguments", '{"alpha": 0.1, "seed": 1}'], "must not hold what the audit passes itself, got alpha, seed. Use --alpha, --seed"),
    "a file": (["place/mine.py:certify"], "Write mine:certify, from the folder of mine.py"),
    "no function": (["certify"], r"must be written module:function, got 'certify'\. For example hf_smoothing:certify"),
    "no module": (["no_such:certify"], r"The module 'no_such' of the certifier cannot be imported: ModuleNotFoundError"),
    "another name": (["hf_smoothing:certifi"], r"has no 'certifi'\. Did you mean hf_smoothing:certify\?"),
    "no callable": (["hf_smoothing:ABSTAIN"], r"must be callable, but hf_smoothing:ABSTAIN is int"),
    "no certifier": (["math:sqrt"], r"by name sigma, alpha and seed\. Called with 50 images .*, this one raised TypeError: math.sqrt"),
    "another answer": (["builtins:dict"], r"raised (TypeError|ValueError)"),
    "unknown argument": (["--arguments", '{"m": 5}'], r"raised in options.py, line \d+ TypeError: .*'m'"),
    "alpha": (["--alpha", "0.95"], r"--?`?alpha`? must be a failure probability .* looks like the confidence"),
    "radius": (["--radii", "40"], r"--radii` is|--radii is in"),
    "confirm": (["--confirm", "1"], r"--confirm must be at least 3 for a verdict"),
}  # fmt: skip


@pytest.mark.parametrize(("words", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_explained(capsys, words, message):
    assert main(["audit", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("hf-smoothing audit: ") and re.search(message, said), said


@pytest.mark.parametrize("given", ["n=5", "[5]", "{"])
def test_arguments_that_are_no_json_object_are_refused(capsys, given):
    with pytest.raises(SystemExit, match="2"):
        main(["audit", "--arguments", given])
    assert (
        f"argument --arguments: must be a JSON object such as '{{\"n\": 1000}}', got '{given}'"
        in capsys.readouterr().err
    )


def test_the_help_can_be_read(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["audit", "--help"])
    assert "by default hf_smoothing:certify" in " ".join(capsys.readouterr().out.split())
