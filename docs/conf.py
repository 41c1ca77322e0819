"""The documentation site: `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path


ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "docs"))

from _extensions import inventories  # noqa: E402


project = "hf_smoothing"
author = "The hf_smoothing authors"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "_extensions.docstrings",
    "_extensions.links",
    "_extensions.rooms",
    "_extensions.command_line",
    "_extensions.schemas",
    "_extensions.tested",
]
exclude_patterns = ["_build", "_extensions"]
html_theme = "furo"
html_title = "hf_smoothing"
html_static_path: list[str] = []
html_show_sourcelink = False
html_show_copyright = False
smartquotes_action = "D"  # dashes, and quotes as they are typed
highlight_language = "bash"  # a block without a language holds commands

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_type_aliases = {"ArrayLike": "numpy.typing.ArrayLike"}
autodoc_typehints_description_target = "all"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
copybutton_exclude = ".linenos, .gp"
intersphinx_mapping = inventories.mapping(ROOT / "docs")
