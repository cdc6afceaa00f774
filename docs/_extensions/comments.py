"""The comments that say what the fields of a class mean."""

import ast
import inspect
import textwrap
from functools import cache


@cache
def field_comments(cls: type) -> dict[str, str]:
    """Field -> its comment, of the class and of those it inherits from.

    A comment is beside the field, above it, or both. A comment above a field is also that of the
    next fields, up to one that has a comment of its own.
    """
    found: dict[str, str] = {}
    for kin in reversed(cls.__mro__):
        if kin.__module__.split(".")[0] == "nlnet":
            own = _own_comments(kin)
            found |= {name: text for name, text in own.items() if text or name not in found}
    return found


def _own_comments(cls: type) -> dict[str, str]:
    lines = textwrap.dedent(inspect.getsource(cls)).splitlines()
    (definition,) = ast.parse("\n".join(lines)).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    shared = ""  # a comment above several fields
    for node in definition.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        above = _above(lines, node.lineno - 1)
        beside = _beside(lines[(node.end_lineno or node.lineno) - 1], node.end_col_offset or 0)
        if above:
            shared = above
        elif beside:
            shared = ""
        found[node.target.id] = ". ".join(
            text for text in (beside, shared if above or not beside else "") if text
        )
    return found


def _above(lines: list[str], at: int) -> str:
    """The comment lines directly above line `at`, as one text."""
    found: list[str] = []
    while at > 0 and lines[at - 1].strip().startswith("#"):
        at -= 1
        found.insert(0, lines[at].strip().lstrip("# "))
    return " ".join(found).rstrip(".")


def _beside(line: str, end: int) -> str:
    """The comment behind the code of a line; `end` is where the code ends."""
    return line[end:].strip().lstrip("# ").rstrip(".")
