"""A table as Markdown, LaTeX or HTML text."""

from collections.abc import Callable
from dataclasses import dataclass
from html import escape

from nlnet.cli.sweep import markdown_table

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
FIRST_NUMBER = 2  # columns before it are text


@dataclass(frozen=True)
class Table:
    """Cells below a header, with a title and notes."""

    title: str
    header: list[str]
    cells: list[list[str]]
    notes: list[str]


def _markdown(table: Table) -> str:
    """Return the table as Markdown, readable on a terminal too."""
    notes = "\n".join(f"- {note}" for note in table.notes)
    return f"**{table.title}**\n\n{markdown_table(table.header, table.cells)}\n\n{notes}\n"


def latex(table: Table) -> str:
    """Return the table as LaTeX; it needs the package booktabs."""
    columns = "l" * FIRST_NUMBER + "r" * (len(table.header) - FIRST_NUMBER)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex(table.title)}. {_latex(' '.join(table.notes))}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _latex_row(table.header),
        r"\midrule",
        *(_latex_row(row) for row in table.cells),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def html(table: Table) -> str:
    """Return the table as an HTML element."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in table.cells
    )
    notes = "\n".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return (
        f"<table>\n<caption>{escape(table.title)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{rows}\n</tbody>\n</table>\n<ul>\n{notes}\n</ul>\n"
    )


FORMATS: dict[str, Callable[[Table], str]] = {"markdown": _markdown, "latex": latex, "html": html}


def _latex_row(cells: list[str]) -> str:
    return " & ".join(_latex(cell) for cell in cells) + r" \\"


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)
