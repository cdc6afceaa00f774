"""Docstrings and comments of nlnet, as the API reference shows them.

Docstrings are plain text with `code`, not reStructuredText: `x_i` would otherwise be a link, and
`*` the start of an emphasis. Their sections (Args, Returns, Raises) stay. A field of a class has
the comment beside it.
"""

import re
from importlib import import_module
from typing import Any

from comments import field_comments
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    # Before napoleon, which turns the sections into fields.
    app.connect("autodoc-process-docstring", _as_plain_text, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _as_plain_text(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    text = "\n".join(lines)
    if what == "attribute" and (not text or text.startswith("Alias for field number")):
        text = _comment_of(name)
    parts = re.split(r"(`[^`]+`)", text)
    lines[:] = "".join(_literal(part) for part in parts).splitlines()


def _literal(part: str) -> str:
    """`code` in reStructuredText, and other text without markup."""
    if len(part) > 1 and part.startswith("`"):
        return f"`{part}`"
    return re.sub(r"([\\*|_`])", r"\\\1", part)


def _comment_of(name: str) -> str:
    """The comment beside the field with a full name; empty if there is none."""
    path, field = name.rsplit(".", 1)
    module, cls = path.rsplit(".", 1)
    try:
        return field_comments(getattr(import_module(module), cls)).get(field, "")
    except ImportError:  # a field of a class inside a class
        return ""
