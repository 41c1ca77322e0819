"""Give the repository a version, or check that a tag has it; RELEASE.md says when.

    python .ci/version.py 1.0.0 --date 2030-01-31    # a release: its date goes into CITATION.cff and CHANGELOG.md
    python .ci/version.py 1.1.0.dev0                 # what follows it: no date
    python .ci/version.py --check v1.0.0             # whether the tag is that of the version, everywhere

The one home of the version is `hf_smoothing/__init__.py`; the build reads it there.
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
from pathlib import Path


VERSION = re.compile(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?(\.dev\d+)?")
PACKAGE, CITATION, CHANGES, README = "hf_smoothing/__init__.py", "CITATION.cff", "CHANGELOG.md", "README.md"
UNRELEASED = "## [Unreleased]\n"


def with_version(texts: dict[str, str], version: str, date: str | None) -> dict[str, str]:
    """The three files, by name, with a version.

    Args:
        texts: What they hold.
        version: Of a release, or with `.dev` and a number of what follows one.
        date: Day of the release, as 2030-01-31; None for what follows one.

    Raises:
        ValueError: If version and date do not go together, or a file has no place for them, or no notes for the release.
    """
    found = VERSION.fullmatch(version)
    if not found:
        raise ValueError(f"The version must be like 1.0.0, 1.0.0rc1 or 1.1.0.dev0, got {version!r}.")
    if bool(found[1]) == bool(date):
        raise ValueError(f"A release must have a date, a version with .dev none, got {version} and {date}.")
    package = _replaced(texts[PACKAGE], r'^__version__ = ".*"$', f'__version__ = "{version}"')
    citation = re.sub(r"^date-released: .*\n", "", texts[CITATION], flags=re.MULTILINE)
    citation = _replaced(
        citation, r"^version: .*$", f"version: {version}" + (f"\ndate-released: {date}" if date else "")
    )
    changes = texts[CHANGES]
    if date:
        datetime.date.fromisoformat(date)
        if f"## [{version}]" in changes:
            raise ValueError(f"{CHANGES} must have no section of {version} yet. Choose the next version.")
        notes = changes.partition(UNRELEASED)[2].partition("\n## ")[0]
        if not re.search(r"^- ", notes, re.MULTILINE):
            raise ValueError(f"{CHANGES} must have entries under {UNRELEASED.strip()}, got none. Write what changed.")
        changes = changes.replace(UNRELEASED, f"{UNRELEASED}\n## [{version}] - {date}\n", 1)
    return {PACKAGE: package, CITATION: citation, CHANGES: changes}


def check(texts: dict[str, str], tag: str) -> None:
    """Refuse a tag that is not the version's, or a release that is not written down everywhere.

    Raises:
        ValueError: The message says what differs.
    """
    version = re.search(r'^__version__ = "(.*)"$', texts[PACKAGE], re.MULTILINE)
    if not version or tag != f"v{version[1]}":
        raise ValueError(f"The tag must be v and the version, got {tag} and {version and version[1]}.")
    wanted = {
        CITATION: rf"^version: {re.escape(version[1])}\ndate-released: \d{{4}}-\d\d-\d\d$",
        CHANGES: rf"^## \[{re.escape(version[1])}\] - \d{{4}}-\d\d-\d\d$",
    }
    for name, pattern in wanted.items():
        if not re.search(pattern, texts[name], re.MULTILINE):
            raise ValueError(
                f"{name} must have {version[1]} and its date. Run .ci/version.py {version[1]} --date DATE."
            )
    if not re.search(r"^pip install (-U )?hf_smoothing\b", texts[README], re.MULTILINE):
        raise ValueError(
            f"{README} must have a line `pip install hf_smoothing`, which is true with this release, got none."
        )


def _replaced(text: str, pattern: str, line: str) -> str:
    text, count = re.subn(pattern, line, text, flags=re.MULTILINE)
    if count != 1:
        raise ValueError(f"A file must have one line {pattern}, got {count}.")
    return text


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", help="the version to set, or with --check the tag")
    parser.add_argument("--date", help="day of the release")
    parser.add_argument("--check", action="store_true", help="change nothing")
    args = parser.parse_args()
    root = Path(__file__).resolve().parents[1]
    texts = {name: (root / name).read_text(encoding="utf-8") for name in (PACKAGE, CITATION, CHANGES, README)}
    try:
        if args.check:
            check(texts, args.version)
            return 0
        after = with_version(texts, args.version, args.date)
    except ValueError as error:
        print(f"version: {error}", file=sys.stderr)
        return 1
    for name, text in after.items():
        (root / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
