"""Parts of pages that are made from the code: `<!-- part -->` in a page is replaced by Markdown.

Without the site, the page is readable as it is.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from importlib import import_module
from inspect import cleandoc
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import omegaconf
from comments import field_comments
from sphinx.application import Sphinx

from nlnet import config
from nlnet.cli.choices import CONFIG_DIR, choices, config_groups, group_word

DOCS = Path(__file__).parents[1]
SHOWN = {"../configs/README.md": "words.md", "../CONTRIBUTING.md": "contributing.md"}


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _fill(app: Sphinx, page: str, content: list[str]) -> None:
    for name, make in PARTS.items():
        mark = f"<!-- {name} -->"
        if mark in content[0]:
            content[0] = content[0].replace(mark, "\n".join(make(content[0])))
    content[0] = _link_outside(_show_files(content[0]))


# Files outside the folder of the site


def _show_files(page: str) -> str:
    """Replace a line that ends with <!-- shown here --> by the Markdown file that it links to."""

    def text_of(line: "re.Match[str]") -> str:
        path = DOCS / line[1]
        title, text = path.read_text().split("\n", 1)
        assert title.startswith("# "), f"{path} has no title"
        return re.sub(r"\]\(docs/", "](", text)  # of a file at the top

    return re.sub(
        r"^.*\]\((\.\./[\w/]+\.md)\).*<!-- shown here -->$", text_of, page, flags=re.MULTILINE
    )


def _link_outside(page: str) -> str:
    """Link files outside the folder: to the page that shows them, or as files to download."""
    for path, shown in SHOWN.items():
        page = page.replace(f"]({path}", f"]({shown}")
    return re.sub(r"\]\((\.\./[\w/]+\.md)", r"](path:\1", page)


# Configuration


def configuration_keys(page: str = "") -> Iterator[str]:
    """A section for each class of nlnet.config: keys, types, defaults, meanings."""
    yield from _section("", config.RunConfig, "A run")
    for cls in config.RunConfig.__subclasses__():
        yield from _section("", cls, cls.__name__)


def _section(prefix: str, cls: type, title: str) -> Iterator[str]:
    """The section of a class, then those of its kinds and of the classes inside it."""
    yield f"\n## {title}\n"
    yield cleandoc(cls.__doc__ or "") + "\n"
    own = [field for field in fields(cls) if field.name in vars(cls).get("__annotations__", {})]
    inner = {field.name: kind for field in own if is_dataclass(kind := _types(cls)[field.name])}
    rows = [_row(prefix, cls, field) for field in own if field.name not in inner]
    if rows:
        yield "| key | type | default | meaning |"
        yield "|---|---|---|---|"
        yield from rows
    if prefix:
        for kind in cls.__subclasses__():
            yield from _section(prefix, kind, f"`{prefix}*` of {kind.__name__}")
    for name, kind in inner.items():
        key = f"{prefix}{name}."
        yield from _section(key, kind, f"`{key}*`")


def _row(prefix: str, cls: type, field: "Field[Any]") -> str:
    kind, meaning = _types(cls)[field.name], field_comments(cls)[field.name]
    if found := re.search(r"a name in ([A-Z_]+) of (nlnet/[\w/]+)\.py", meaning, re.IGNORECASE):
        table = getattr(import_module(found[2].replace("/", ".")), found[1])
        meaning += ": " + ", ".join(f"`{name}`" for name in table)
    cells = [f"`{prefix}{field.name}`", _type_name(kind), f"`{_default(field)}`", _plain(meaning)]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _types(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _type_name(kind: Any) -> str:
    """int | None -> "int or null"."""
    if NoneType in get_args(kind):
        return " or ".join(_type_name(part) for part in get_args(kind))
    if kind is NoneType:
        return "null"
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)


def _default(field: "Field[Any]") -> str:
    """The default as it is typed on the command line."""
    value = field.default if field.default_factory is MISSING else field.default_factory()
    if value == omegaconf.MISSING:
        return "required"
    return value if isinstance(value, str) and value else json.dumps(value)


def configuration_groups(page: str = "") -> Iterator[str]:
    """The choices of each folder of configs/, with the first line of their head comments."""
    for group in config_groups():
        yield f"\n### `{group}`\n"
        for choice in choices(group):
            head = _head_comment(CONFIG_DIR / group / f"{choice}.yaml")
            yield f"- `{group_word(group, choice)}`" + (f": {head}" if head else "")


def _head_comment(path: Path) -> str:
    """The first line of the comment at the top of a YAML file; empty if there is none."""
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            return ""
        text = line.lstrip("# ")
        if text and not text.startswith("@package"):
            return _plain(text)
    return ""


def _plain(text: str) -> str:
    """A comment as Markdown: only `code` is markup."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([*_<>])", r"\\\1", part) for part in parts
    )


# API


def api_modules(page: str) -> Iterator[str]:
    """The reference of each module that the first column of a table in the page names."""
    for cell in re.findall(r"^\| ([^|]*`nlnet[^|]*) \|", page, re.MULTILINE):
        yield from map(_reference_of, re.findall(r"`([\w.]+)`", cell))


def _reference_of(name: str) -> str:
    return f"\n## {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n```"


# Notebook


def notebook_cells(page: str) -> Iterator[str]:
    """The cells of notebook.ipynb."""
    for cell in json.loads((DOCS / "notebook.ipynb").read_text())["cells"]:
        text = "".join(cell["source"])
        language = "text" if re.search("^!", text, re.MULTILINE) else "python"
        code = f"\n```{language}\n{text}\n```\n"
        yield code if cell["cell_type"] == "code" else f"\n{_below_title(text)}\n"


def _below_title(text: str) -> str:
    """The Markdown of a cell without the title of the notebook, which is that of the page."""
    return re.sub(r"^# .*\n", "", text)


PARTS: dict[str, Callable[[str], Iterable[str]]] = {
    "configuration keys": configuration_keys,
    "configuration groups": configuration_groups,
    "api modules": api_modules,
    "notebook cells": notebook_cells,
}
