"""Write the public address of the repository into what is published from it; RELEASE.md says when.

    python .ci/public_address.py https://HOST/OWNER/NAME REF [--hub OWNER]

The repository does not know where it is published, so its links are relative; pages of a package registry and of the Hub need
absolute ones. Changed in place, in a checkout to throw away: links and pictures of README.md and of the model cards, `[project.urls]` of
pyproject.toml, `repository-code` of CITATION.cff. With `--hub`, code that loads `"model_cards/NAME"` loads `"OWNER/NAME"`. A second run with
the same words changes nothing.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path


ADDRESS = re.compile(r"https://[a-z0-9][a-z0-9.-]*\.[a-z]+(?::\d+)?/[\w.-]+/[\w.-]*\w")
REF = re.compile(r"\w[\w.-]*(?:/[\w.-]+)*")
OWNER = re.compile(r"\w[\w.-]*")
MARKDOWN = re.compile(
    r"(?P<code>^```.*?^```|`[^`\n]*`)"
    r"|(?P<picture>!?)\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\](?:\([^()]*\))?)*)\]\((?P<link>[^()\s]+)(?P<title>\s+\"[^\"]*\")?\)"
    r"|(?P<attribute>\b(?:src|href)=)\"(?P<value>[^\"]+)\"",
    re.DOTALL | re.MULTILINE,
)


def checked(address: str, ref: str, hub: str | None = None) -> None:
    """Refuse what cannot be the address of a repository, one of its tags, branches or commits, and an owner on the Hub.

    Raises:
        ValueError: The message says which, and what is required.
    """
    if not ADDRESS.fullmatch(address) or address.endswith(".git"):
        raise ValueError(
            f"The address must be https://HOST/OWNER/NAME, without a slash or .git at the end, got {address!r}."
        )
    if not REF.fullmatch(ref) or ".." in ref:
        raise ValueError(f"The ref must be a tag, a branch or a commit, such as v1.0.0, got {ref!r}.")
    if hub is not None and not OWNER.fullmatch(hub):
        raise ValueError(f"The owner on the Hub must be the name of a user or an organisation, got {hub!r}.")


def absolute_links(text: str, page: Path, root: Path, address: str, ref: str, *, keep: Path | None = None) -> str:
    """The text of a page with absolute links and pictures; code is left as it is.

    Args:
        text: Markdown.
        page: Its file.
        root: Folder of the repository.
        address, ref: As `checked` takes them.
        keep: Links into this folder stay relative, since it is published as a whole.

    Raises:
        ValueError: If a link leads to no file of the repository.
    """

    def absolute(link: str, *, picture: bool) -> str:
        path, mark, heading = link.partition("#")
        if re.match(r"\w+:|//", link):
            return link
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or not target.is_relative_to(root):
            raise ValueError(
                f"{page.relative_to(root)}: each link must lead to a file of the repository, got {link!r}."
            )
        if keep is not None and target.is_relative_to(keep):
            return link
        kind = "raw" if picture else "tree" if target.is_dir() else "blob"
        place = target.relative_to(root).as_posix()
        return address if place == "." else f"{address}/{kind}/{ref}/{place}{mark}{heading}"

    def rewrite(found: re.Match[str]) -> str:
        if found["code"]:
            return found[0]
        if found["attribute"]:
            link = absolute(found["value"], picture=found["attribute"].startswith("src"))
            return f'{found["attribute"]}"{link}"'
        link = absolute(found["link"], picture=bool(found["picture"]))
        return f"{found['picture']}[{MARKDOWN.sub(rewrite, found['text'])}]({link}{found['title'] or ''})"

    return MARKDOWN.sub(rewrite, text)


def hub_names(text: str, owner: str, cards: list[str]) -> str:
    """The text with the Hub's names of the models where code loads them from the repository's folders."""
    return re.sub(rf'"model_cards/({"|".join(map(re.escape, cards))})"', rf'"{owner}/\1"', text)


def with_urls(text: str, address: str, ref: str) -> str:
    """pyproject.toml with `[project.urls]`.

    Raises:
        ValueError: If it has other ones already.
    """
    table = (
        "[project.urls]\n"
        f'Homepage = "{address}"\n'
        f'Documentation = "{address}/blob/{ref}/docs/index.md"\n'
        f'Source = "{address}/tree/{ref}"\n'
        f'Changelog = "{address}/blob/{ref}/CHANGELOG.md"\n'
        f'Issues = "{address}/issues"\n\n'
    )
    return _inserted(text, table, "[project.urls]", before="[project.scripts]\n")


def with_repository(text: str, address: str) -> str:
    """CITATION.cff with `repository-code`.

    Raises:
        ValueError: If it has another one already.
    """
    return _inserted(text, f'repository-code: "{address}"\n', "repository-code:", before="authors:\n")


def _inserted(text: str, lines: str, start: str, *, before: str) -> str:
    if lines in text:
        return text
    if start in text or text.count(before) != 1:
        raise ValueError(
            f"A file must have no {start} yet, and one line {before.strip()!r}. Begin with a fresh checkout of the repository."
        )
    return text.replace(before, lines + before)


def write(root: Path, address: str, ref: str, hub: str | None = None) -> list[Path]:
    """Change the files of a checkout; nothing is written unless all of them can be.

    Returns:
        The files that were changed.

    Raises:
        ValueError: As `checked`, `absolute_links`, `with_urls` and `with_repository` raise it.
    """
    checked(address, ref, hub)
    root = root.resolve()
    pages = sorted((root / "model_cards").glob("*/README.md"))
    cards = [page.parent.name for page in pages]

    def page_of(page: Path, keep: Path | None) -> Callable[[str], str]:
        def change(text: str) -> str:
            text = absolute_links(text, page, root, address, ref, keep=keep)
            return hub_names(text, hub, cards) if hub else text

        return change

    changes: dict[Path, Callable[[str], str]] = {
        root / "README.md": page_of(root / "README.md", None),
        **{page: page_of(page, page.parent) for page in pages},
        root / "pyproject.toml": lambda text: with_urls(text, address, ref),
        root / "CITATION.cff": lambda text: with_repository(text, address),
    }
    before = {file: file.read_text(encoding="utf-8") for file in changes}
    after = {file: change(before[file]) for file, change in changes.items()}
    changed = [file for file in changes if after[file] != before[file]]
    for file in changed:
        file.write_text(after[file], encoding="utf-8")
    return changed


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="where the repository is published")
    parser.add_argument("ref", help="what links lead to, such as the tag of the release")
    parser.add_argument("--hub", help="user or organisation that the models are published under on the Hub")
    args = parser.parse_args()
    root = Path(__file__).resolve().parents[1]
    try:
        changed = write(root, args.address, args.ref, args.hub)
    except ValueError as error:
        print(f"public_address: {error}", file=sys.stderr)
        return 1
    print("\n".join(str(file.relative_to(root)) for file in changed) or "nothing to change")
    return 0


if __name__ == "__main__":
    sys.exit(main())
