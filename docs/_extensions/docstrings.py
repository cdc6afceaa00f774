"""Docstrings and comments of nlnet, as the API reference shows them.

Docstrings are plain text with `code`, not reStructuredText: `x_i` would otherwise be a link, and
`*` the start of an emphasis. Their sections (Args, Returns, Raises) stay. The fields of a class
are a list, each with the comment beside it; their types are in the signature.
"""

import re
from inspect import isclass, isroutine
from typing import Any

from comments import field_comments
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    # Before napoleon, which turns the sections into fields.
    app.connect("autodoc-process-docstring", _as_plain_text, priority=400)
    app.connect("autodoc-skip-member", _is_field)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _as_plain_text(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    text = "\n".join(lines)
    if what == "class" and isclass(obj):
        comments = field_comments(obj)
        rows = [f"    {field}: {comment}" for field, comment in comments.items() if comment]
        text += "\n".join(["\n\nAttributes:", *rows, ""]) if rows else ""
    parts = re.split(r"(`[^`]+`)", text)
    lines[:] = "".join(_literal(part) for part in parts).splitlines()


def _literal(part: str) -> str:
    """`code` in reStructuredText, and other text without markup."""
    if len(part) > 1 and part.startswith("`"):
        return f"`{part}`"
    return re.sub(r"([\\*|_`])", r"\\\1", part)


def _is_field(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out a field of a class, which is in the list of `_as_plain_text`."""
    if what != "class" or isroutine(obj) or isclass(obj) or isinstance(obj, property):
        return None
    return True
