"""Settings of the documentation site: `sphinx-build -W --keep-going -b html docs docs/_build/html`.

Building and reading need no network: equations are MathML, and the theme has no remote fonts or
scripts. The pages are Markdown that is readable without the site, too.
"""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS / "_extensions")]

import nlnet  # noqa: E402

project = "nlnet"
version = release = nlnet.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "docstrings",
    "generated_parts",
    "mathml",
]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_math_renderer = "mathml"

napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "undoc-members": True, "show-inheritance": True}
python_display_short_literal_types = True

html_theme = "furo"
html_title = f"nlnet {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
