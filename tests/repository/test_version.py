"""The version has one home, and a release writes it down wherever it is read."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml

import hf_smoothing
from tests.support.processes import ROOT
from tests.support.scripts import script


version = script("version")
NAMES = (version.PACKAGE, version.CITATION, version.CHANGES, version.README)
NOW = {name: (ROOT / name).read_text() for name in NAMES}
PUBLISHED = {version.README: "```\npip install hf_smoothing\n```\n"}


def test_the_build_and_the_citation_have_the_version_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"] and "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == version.PACKAGE
    assert yaml.safe_load(NOW[version.CITATION])["version"] == hf_smoothing.__version__


def test_a_release_and_what_follows_it():
    release = version.with_version(NOW, "7.8.9", "2030-01-31")
    version.check(release | PUBLISHED, "v7.8.9")
    citation = yaml.safe_load(release[version.CITATION])
    assert citation["version"] == "7.8.9" and str(citation["date-released"]) == "2030-01-31"
    notes = NOW[version.CHANGES].partition("## [Unreleased]\n")[2]
    assert f"## [Unreleased]\n\n## [7.8.9] - 2030-01-31\n{notes}" in release[version.CHANGES]
    after = version.with_version(release, "7.9.0.dev0", None)
    assert "date-released" not in after[version.CITATION]
    assert '__version__ = "7.9.0.dev0"' in after[version.PACKAGE]
    assert after[version.CHANGES] == release[version.CHANGES]
    with pytest.raises(ValueError, match="must have entries under"):
        version.with_version(after, "7.9.0", "2030-02-01")
    with pytest.raises(ValueError, match=r"no section of 7\.8\.9 yet"):
        version.with_version(release, "7.8.9", "2030-02-01")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("1.0", "2030-01-31"), "must be like 1.0.0"),
        (("v1.0.0", "2030-01-31"), "must be like 1.0.0"),
        (("1.0.0", None), "A release must have a date"),
        (("1.0.0.dev0", "2030-01-31"), "a version with .dev none"),
        (("1.0.0", "31.1.2030"), "Invalid isoformat string"),
    ],
)
def test_wrong_versions_and_dates_are_refused(words, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        version.with_version(NOW, *words)


def test_a_tag_of_another_version_or_a_half_written_release_is_refused():
    release = version.with_version(NOW, "7.8.9", "2030-01-31") | PUBLISHED
    with pytest.raises(ValueError, match=r"must be v and the version, got v7\.8\.8 and 7\.8\.9"):
        version.check(release, "v7.8.8")
    for name in (version.CITATION, version.CHANGES):
        with pytest.raises(ValueError, match=rf"{name} must have 7\.8\.9 and its date"):
            version.check({**release, name: NOW[name]}, "v7.8.9")
    with pytest.raises(ValueError, match="README.md must have a line `pip install hf_smoothing`"):
        version.check({**release, version.README: "pip install .\n"}, "v7.8.9")
