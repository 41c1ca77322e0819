"""Tools that are named in several places have one version."""

import re

from tests.support.processes import ROOT


def test_ruff_has_one_version():
    pinned = re.search(r"^ruff==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    hook = re.search(r"rev: v(.+)$", (ROOT / ".pre-commit-config.yaml").read_text(), re.MULTILINE)
    assert pinned is not None and hook is not None and pinned[1] == hook[1]
