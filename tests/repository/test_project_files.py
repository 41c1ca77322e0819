"""The files around the package are true: what they name exists, workflows are pinned, and what says the same thing twice agrees."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import hf_smoothing
from tests.support.processes import ROOT


WORKFLOWS = {path.name: path.read_text() for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))}
PAGES = ["AGENTS.md", "CONTRIBUTING.md", "RELEASE.md", "SECURITY.md", ".github/pull_request_template.md"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TARGETS = set(re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))


def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_exists(page):
    text = text_of(page)
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert link.startswith("https://") or ((ROOT / page).parent / link).exists(), link
    code = re.findall(r"`([^`\n]+)`", text) + re.findall(r"^```\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    for word in " ".join(code).split():
        if (
            re.fullmatch(r"(\.ci|\.github|docs|examples|hf_smoothing|model_cards|skills|tests)/[\w./-]+", word)
            and "_build" not in word
        ):
            assert (ROOT / word).exists(), word
    for target in re.findall(r"\bmake ([a-z][\w-]*)", " ".join(code)):
        assert target in TARGETS, target


def test_every_target_is_phony():
    made = re.search(r"^\.PHONY: (.*)$", text_of("Makefile"), re.MULTILINE)
    assert made is not None and set(made[1].split()) == TARGETS


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_pinned_to_commits(name):
    used = re.findall(r"uses: (\S+)(.*)", WORKFLOWS[name])
    assert used
    for action, comment in used:
        if action.startswith("./"):
            assert (ROOT / action).is_file()
        else:
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action) and re.fullmatch(r" # v\d+\.\d+\.\d+", comment), (
                action
            )


def test_an_action_has_one_version():
    used = {line for text in WORKFLOWS.values() for line in re.findall(r"uses: ([^.\s]\S+.*)", text)}
    names = [line.partition("@")[0] for line in used]
    assert len(names) == len(set(names))


def test_workflows_may_read_alone_but_for_publishing():
    granted = {}
    for name, text in WORKFLOWS.items():
        workflow = yaml.safe_load(text)
        assert workflow["permissions"] in ({}, {"contents": "read"}), name
        granted |= {(name, job): facts.get("permissions", {}) for job, facts in workflow["jobs"].items()}
    more = {place: rights for place, rights in granted.items() if rights not in ({}, {"contents": "read"})}
    assert more == {("release.yml", "publish"): {"id-token": "write"}}


def test_the_hosted_workflow_runs_what_ci_runs():
    assert "- run: .ci/run\n" in WORKFLOWS["test.yml"] and text_of(".ci/run").rstrip().endswith("make test")
    assert set(yaml.safe_load(WORKFLOWS["weekly.yml"])["jobs"]["weekly"]["strategy"]["matrix"]["target"]) <= TARGETS


def test_the_versions_of_python_are_those_of_the_classifiers():
    said = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert said and PROJECT["requires-python"] == f">={said[0]}"
    for name, job in (("test.yml", "test"), ("release.yml", "try")):
        assert yaml.safe_load(WORKFLOWS[name])["jobs"][job]["strategy"]["matrix"]["python"] == said


def test_every_floor_is_tested():
    """torch apart, whose lowest has no CPU build, and what only development needs."""
    lines = [line.split("#")[0].strip() for line in text_of(".ci/lowest.txt").splitlines()]
    tested = {name.replace("_", "-"): Version(version) for name, version in (ln.split("==") for ln in lines if ln)}
    extras = [PROJECT["optional-dependencies"][name] for name in ("evaluate", "plots", "diffusion", "peft", "export")]
    for requirement in map(Requirement, PROJECT["dependencies"] + [line for extra in extras for line in extra]):
        for limit in requirement.specifier:
            if limit.operator == ">=" and requirement.name != "torch":
                assert tested[requirement.name.replace("_", "-")] == Version(limit.version), requirement


def test_a_release_is_published_only_after_it_was_tested_and_tried():
    jobs = yaml.safe_load(WORKFLOWS["release.yml"])["jobs"]
    assert set(jobs["publish"]["needs"]) == {"test", "build", "try"}
    assert jobs["publish"]["environment"]["name"] == "pypi"
    assert jobs["publish"]["steps"][-1]["with"] == {"attestations": True}
    steps = " ".join(step.get("run", "") for step in jobs["build"]["steps"])
    assert steps.index(".ci/version.py --check") < steps.index(".ci/public_address.py") < steps.index("-m build")
    for script in re.findall(r"\.ci/[\w.]+\w", " ".join(WORKFLOWS.values())):
        assert (ROOT / script).is_file(), script


def test_the_package_is_described_in_one_sentence_that_leans_on_no_extra():
    assert PROJECT["description"] == hf_smoothing.__doc__.splitlines()[0]
    assert not any(f" {extra}" in PROJECT["description"] for extra in PROJECT["optional-dependencies"])
    citation = yaml.safe_load(text_of("CITATION.cff"))
    assert citation["keywords"] == PROJECT["keywords"] == sorted(PROJECT["keywords"])
    assert citation["abstract"] and PROJECT["license"].startswith(citation["license"] + " AND ")


def test_the_readme_cites_as_the_citation_file_says():
    citation = yaml.safe_load(text_of("CITATION.cff"))
    entry = re.search(r"^```bibtex\n(.*?)^```$", text_of("README.md"), re.MULTILINE | re.DOTALL)
    assert entry is not None
    fields = dict(re.findall(r"^  (\w+) += \{(.*)\},?$", entry[1], re.MULTILINE))
    assert fields["title"] == citation["title"]
    assert [{"name": fields["author"].strip("{}")}] == citation["authors"]
    assert set(fields) == {"title", "author", "note"}  # a version, a date and an address come with a release


def test_papers_of_the_pages_can_be_cited():
    """Every paper that a page names by its number stands in CITATION.cff, once."""
    cited = [
        one["url"].rpartition("/")[2] for one in yaml.safe_load(text_of("CITATION.cff"))["references"] if "url" in one
    ]
    assert len(cited) == len(set(cited))
    pages = [ROOT / "README.md", *(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)]
    named = {
        (number, page.name)
        for page in pages
        for number in re.findall(r"(?:arXiv |abs/)(\d{4}\.\d{5})", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 20
    assert not {(number, page) for number, page in named if number not in cited}


def test_every_other_licence_is_explained():
    others = re.findall(r"LicenseRef-[\w-]+", PROJECT["license"])
    notice = text_of("NOTICE")
    assert set(re.findall(r"^(LicenseRef-[\w-]+): ", notice, re.MULTILINE)) == set(others)
    cards = {path.parent.name: path.read_text() for path in (ROOT / "model_cards").glob("*/README.md")}
    free = {name for name, text in cards.items() if "\nlicense: apache-2.0\n" in text}
    named = re.search(r"model_cards, all folders but (.+)\n", notice)
    assert named is not None and free == set(re.split(", | and ", named[1]))
