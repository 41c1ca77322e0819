"""What Tab completes: the verbs, then the options of the verb, then files."""

import shutil
import subprocess

import pytest

from hf_smoothing.cli import build_parser, main, verbs_of


def completed(script, *words):
    ask = f'{script}\nCOMP_WORDS=(hf-smoothing {" ".join(words)}); COMP_CWORD={len(words)}; _hf_smoothing; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_verbs_and_options_are_completed(capsys):
    assert main(["completion"]) == 0
    script = capsys.readouterr().out
    assert completed(script, "cer") == ["certify"]
    assert completed(script, "''") == list(verbs_of(build_parser()))
    assert completed(script, "report", "--th") == ["--thresholds"]
    assert set(completed(script, "certify", "--n")) == {"--n", "--n0", "--no-cover-run", "--noise-kind"}
    assert completed(script, "certify", "--mod") == ["--mode"]
    assert completed(script, "report", "ru") == []  # left to file names
