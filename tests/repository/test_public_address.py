"""What is published from the repository says where it is, and only a release writes that down."""

from __future__ import annotations

import re
import shutil
import tomllib

import pytest
import yaml
from markdown_it import MarkdownIt

from tests.support.processes import ROOT
from tests.support.scripts import script


ADDRESS, REF = "https://host.example/owner/name", "v1.0.0"
public_address = script("public_address")


@pytest.fixture
def checkout(tmp_path):
    """A copy of the repository to throw away, without weights and tests."""
    left_out = (".git", ".venv*", ".*_cache", ".hypothesis", "runs", "_build", "__pycache__", "tests", "*.safetensors")
    return shutil.copytree(ROOT, tmp_path / "checkout", ignore=shutil.ignore_patterns(*left_out))


def links(text):
    """Targets of all links and pictures, as a renderer finds them; the front matter of a card is no text."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL))
    spans = [inner for token in tokens for inner in token.children or [] if inner.type in ("link_open", "image")]
    written = re.findall(r"\b(?:src|href)=\"([^\"]+)\"", text)
    return [str(span.attrs.get("href") or span.attrs.get("src")) for span in spans] + written


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_no_link_of_the_readme_stays_relative(checkout):
    before = links((checkout / "README.md").read_text())
    assert sum(not link.startswith("https://") for link in before) > 20
    public_address.write(checkout, ADDRESS, REF)
    after = links((checkout / "README.md").read_text())
    assert len(after) == len(before) and all(link.startswith("https://") for link in after)
    picture = next(link for link in after if link.endswith(".png"))
    assert picture == f"{ADDRESS}/raw/{REF}/docs/figures/explanation/certificate.png"
    assert f"{ADDRESS}/blob/{REF}/docs/smoothing_transfer.md#full-grid" in after


def test_links_of_a_card_lead_to_its_folder_or_to_the_repository(checkout):
    public_address.write(checkout, ADDRESS, REF)
    found = {}
    for page in (checkout / "model_cards").glob("*/README.md"):
        found[page.parent.name] = links(page.read_text())
        for link in found[page.parent.name]:
            assert link.startswith("https://") or (page.parent / link).is_file(), (page, link)
    assert f"{ADDRESS}/blob/{REF}/docs/interval.md#cifar-10" in found["cnn7-linf-cifar10"]
    assert "records/training.json" in found["resnet-mixture"]


def test_the_package_and_the_citation_say_where_they_come_from(checkout):
    before = tomllib.loads((checkout / "pyproject.toml").read_text())
    assert "urls" not in before["project"]
    public_address.write(checkout, ADDRESS, REF)
    after = tomllib.loads((checkout / "pyproject.toml").read_text())
    urls = after["project"].pop("urls")
    assert after == before
    assert set(urls) == {"Homepage", "Documentation", "Source", "Changelog", "Issues"}
    assert all(url == ADDRESS or url.startswith(ADDRESS + "/") for url in urls.values())
    for url in urls.values():
        path = re.sub(rf"^{ADDRESS}/?((blob|tree)/{REF})?/?", "", url)
        assert path == "issues" or (checkout / path).exists()
    assert yaml.safe_load((checkout / "CITATION.cff").read_text())["repository-code"] == ADDRESS


def test_twice_is_once(checkout):
    assert public_address.write(checkout, ADDRESS, REF, "organisation")
    once = contents(checkout)
    assert public_address.write(checkout, ADDRESS, REF, "organisation") == []
    assert contents(checkout) == once


def test_models_are_loaded_from_the_hub(checkout):
    public_address.write(checkout, ADDRESS, REF, "organisation")
    for page in (checkout / "model_cards").glob("*/README.md"):
        loads = [line for line in page.read_text().splitlines() if "_pretrained(" in line and '"' in line]
        assert loads and all(f'"organisation/{page.parent.name}"' in line for line in loads), page
    assert '"model_cards/' not in (checkout / "README.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("http://host.example/owner/name", REF), "must be https://HOST/OWNER/NAME"),
        (("https://host.example/owner/name/", REF), "must be https://HOST/OWNER/NAME"),
        (("https://host.example/owner/name.git", REF), "must be https://HOST/OWNER/NAME"),
        (("https://host.example/owner", REF), "must be https://HOST/OWNER/NAME"),
        (("https://user:secret@host.example/owner/name", REF), "must be https://HOST/OWNER/NAME"),
        (("https://host.example/owner/name?tab=readme", REF), "must be https://HOST/OWNER/NAME"),
        (("https:///owner/name", REF), "must be https://HOST/OWNER/NAME"),
        (("", REF), "must be https://HOST/OWNER/NAME"),
        ((ADDRESS, ""), "ref must be a tag, a branch or a commit"),
        ((ADDRESS, "../v1"), "ref must be a tag, a branch or a commit"),
        ((ADDRESS, REF, "owner/name"), "owner on the Hub must be the name"),
    ],
)
def test_a_wrong_address_is_refused(checkout, words, message):
    before = contents(checkout)
    with pytest.raises(ValueError, match=re.escape(message)):
        public_address.write(checkout, *words)
    assert contents(checkout) == before


def test_another_address_is_refused(checkout):
    public_address.write(checkout, ADDRESS, REF)
    before = contents(checkout)
    with pytest.raises(ValueError, match=r"must have no \[project.urls\] yet.*Begin with a fresh checkout"):
        public_address.write(checkout, "https://host.example/other/name", REF)
    assert contents(checkout) == before


def test_links_by_kind_and_place(tmp_path):
    for name in ("docs/page.md", "docs/picture.png", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def written(text):
        return public_address.absolute_links(text, tmp_path / "README.md", tmp_path, "A", "R")

    assert written("[a](docs/page.md#b) ![c](docs/picture.png)") == (
        "[a](A/blob/R/docs/page.md#b) ![c](A/raw/R/docs/picture.png)"
    )
    assert written("[![c](docs/picture.png)](docs)") == "[![c](A/raw/R/docs/picture.png)](A/tree/R/docs)"
    assert written('[`a.py`](docs/page.md "A title")') == '[`a.py`](A/blob/R/docs/page.md "A title")'
    assert written('<a href="docs/page.md"><img src="docs/picture.png"></a>') == (
        '<a href="A/blob/R/docs/page.md"><img src="A/raw/R/docs/picture.png"></a>'
    )
    assert written("[a](#b) [r](.)") == "[a](A/blob/R/README.md#b) [r](A)"
    untouched = "[a](https://b.example/c) [m](mailto:a@b.example) `[a](docs)`\n```\n[a](docs)\n```\n"
    assert written(untouched) == untouched
    for lost in ("nowhere.md", "../outside"):
        with pytest.raises(
            ValueError, match=rf"README.md: each link must lead to a file of the repository, got '{lost}'"
        ):
            written(f"[a]({lost})")
