"""What is published: the wheel, the same from an sdist as from a clone, and both used as a stranger does. `make wheel-check` runs it."""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest

from hf_smoothing import __doc__ as says
from hf_smoothing import __version__
from tests.support.processes import ROOT, printed, run_python
from tests.support.scripts import script


pytestmark = pytest.mark.slow
LARGEST_WHEEL, LARGEST_SDIST = 5_500_000, 15_000_000
SAMPLE = "model_cards/resnet-mixture-small/model.safetensors"


def built(folder, *options):
    """What the build leaves in a folder, offline."""
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", *options, "--outdir", str(folder), str(ROOT)],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The wheel, which was built from the sdist, and the sdist."""
    wheel, sdist = built(tmp_path_factory.mktemp("published"))
    assert wheel.name.endswith(".whl") and sdist.name.endswith(".tar.gz")
    return wheel, sdist


def test_the_wheel_of_the_sdist_is_that_of_the_clone(published, tmp_path):
    (clone,) = built(tmp_path, "--wheel")
    assert clone.name == published[0].name == f"hf_smoothing-{__version__}-py3-none-any.whl"
    assert clone.read_bytes() == published[0].read_bytes()


def test_the_wheel_holds_the_package_the_sample_and_the_licences(published):
    wheel = published[0]
    assert wheel.stat().st_size <= LARGEST_WHEEL
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if "/sample_files/" not in name}
    info = f"hf_smoothing-{__version__}.dist-info"
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "hf_smoothing").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    extra = ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE", "licenses/NOTICE")
    assert names == package | {f"{info}/{name}" for name in extra}
    assert "hf_smoothing/py.typed" in names


def test_the_metadata_say_what_the_project_file_says(published):
    with zipfile.ZipFile(published[0]) as archive:
        found = email.message_from_bytes(archive.read(f"hf_smoothing-{__version__}.dist-info/METADATA"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert found["Version"] == __version__ and found["Requires-Python"] == project["requires-python"]
    assert found["Summary"] == project["description"] == says.splitlines()[0]
    assert found["License-Expression"] == project["license"]
    assert found.get_all("License-File") == ["LICENSE", "NOTICE"]
    assert sorted(found.get_all("Classifier")) == sorted(project["classifiers"])
    needed = [line for line in found.get_all("Requires-Dist") if "extra ==" not in line]
    assert len(needed) == len(project["dependencies"])
    assert not [line for line in needed if line.startswith("evaluate")]
    assert found["Description-Content-Type"] == "text/markdown"


def test_the_sdist_holds_all_but_the_weights_that_no_wheel_carries(published):
    sdist = published[1]
    assert sdist.stat().st_size <= LARGEST_SDIST
    with tarfile.open(sdist) as archive:
        held = {name.split("/", 1)[1] for name in archive.getnames()}
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    known = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    files = {name for name in known if (ROOT / name).exists()}
    weights = {name for name in files if re.fullmatch(r"model_cards/[^/]+/model\.safetensors", name)}
    assert len(weights) > 3 and SAMPLE in weights
    assert held == (files - weights) | {SAMPLE, "PKG-INFO"}


def test_the_first_page_of_the_readme_works_in_a_fresh_environment(published):
    done = run_python(ROOT / ".ci" / "try_wheel.py", published[0], "--borrow", timeout=900.0)
    assert "| noise-mixture backbone |" in printed(done) and "within l2 radius" in done.stdout
    assert "installed and used." in done.stdout


def test_the_trial_refuses_a_wheel_that_is_not_what_answers(published, tmp_path):
    """An environment whose package comes from elsewhere, as with a forgotten PYTHONPATH."""
    trial = script("try_wheel")
    programs = tmp_path / "fresh" / "bin"
    programs.mkdir(parents=True)
    elsewhere = programs / "python"
    elsewhere.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} "$@"\n')
    os.chmod(elsewhere, 0o755)
    with pytest.raises(RuntimeError, match="must be the one that was installed in"):
        trial.use(programs, trial.first_block(published[0]), tmp_path / "empty")
