"""Which versions a record names."""

import torch

import hf_smoothing
from hf_smoothing.certification import settings
from hf_smoothing.certification.settings import versions_of


def test_what_is_imported_says_its_version_itself(monkeypatch):
    """The package of torch may be 2.13.0 where the module is 2.13.0+cu130; an installation of sources may be older than they are."""
    monkeypatch.setattr(settings, "version", lambda name: "0.0")
    assert versions_of("torch", "hf_smoothing") == {
        "torch": torch.__version__,
        "hf_smoothing": hf_smoothing.__version__,
    }
    assert versions_of("not-imported") == {"not-imported": "0.0"}


def test_what_is_neither_imported_nor_installed_has_none():
    assert versions_of("no-such-package") == {"no-such-package": None}
