"""The folder of a Space: complete, and its metadata and packages those of this repository."""

import re
import tomllib

import pytest
import torch
import yaml

from examples.space import classifiers, gather
from hf_smoothing import Framing
from tests.support.processes import ROOT, printed, run_python


HERE = ROOT / "examples" / "space"
CONSTRAINTS = (ROOT / "constraints.txt").read_text().splitlines()


def test_the_metadata_names_the_tested_gradio():
    metadata = yaml.safe_load((HERE / "README.md").read_text().split("---\n")[1])
    assert metadata["sdk"] == "gradio" and f"gradio=={metadata['sdk_version']}" in CONSTRAINTS
    assert metadata["app_file"] == "app.py" and metadata["title"] and len(metadata["short_description"]) <= 60


def test_the_requirements_are_the_dependencies_at_their_tested_versions():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (HERE / "requirements.txt").read_text().splitlines()
    wanted = {re.match(r"[\w-]+", line)[0].lower(): line for line in lines if not line.startswith(("#", "--"))}
    assert wanted.keys() == {re.match(r"[\w-]+", entry)[0].lower() for entry in project["dependencies"]}
    del wanted["pillow"]  # Gradio does not take the newest
    assert [line for line in wanted.values() if line not in CONSTRAINTS] == []


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """The clean classifier, hardly trained."""
    folder = tmp_path_factory.mktemp("clean") / "runs" / "clean"
    return folder, classifiers.load_clean(folder, epochs=0.1)


def test_the_clean_classifier_is_kept_and_has_the_pixels_and_classes_of_the_robust_one(clean):
    folder, made = clean
    robust = classifiers.load_robust()
    assert made.config.id2label == robust.config.id2label
    assert made.config.framing() == robust.config.framing() == Framing(32)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]  # nothing of the training is left
    written = (folder / "model.safetensors").stat().st_mtime_ns
    again = classifiers.load_clean(folder)
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), again.parameters(), strict=True))
    assert (folder / "model.safetensors").stat().st_mtime_ns == written


def test_the_samples_are_one_of_each_class():
    robust_names = list(classifiers.load_robust().config.id2label.values())
    assert [name for _, name in classifiers.samples()] == robust_names
    assert {image.size for image, _ in classifiers.samples()} == {(32, 32)}


def test_a_gathered_folder_needs_no_repository(clean, tmp_path):
    folder = tmp_path / "space"
    files = {path.as_posix() for path in gather.gather(folder, clean=clean[0])}
    assert {"app.py", "README.md", "requirements.txt", "LICENSE", "examples/space/app.py"} <= files
    assert not [name for name in files if "__pycache__" in name]
    script = (
        "import examples, hf_smoothing; from examples.space import classifiers as c; c.load_robust(); c.load_clean(); "
        "print(len(c.samples()), examples.__file__, hf_smoothing.__file__)"
    )
    count, *places = printed(run_python("-c", script, cwd=folder, PYTHONPATH=str(folder))).split()
    assert count == "10" and all(place.startswith(str(folder)) for place in places)
    with pytest.raises(FileExistsError, match=r"must not exist, got .*space\. Remove it"):
        gather.gather(folder, clean=clean[0])
