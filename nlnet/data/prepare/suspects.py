"""The files that a list of suspects names: a manifest, a table with a path column, or lines."""

import csv
import os
import re
from pathlib import Path

from nlnet.data.index.listing import PATH_COLUMNS
from nlnet.data.index.manifest import OK, is_manifest, read_manifest_rows
from nlnet.data.index.text import read_text
from nlnet.errors import UserError

ESCAPED = re.compile(rb"\\(?:x|udc)([89a-f][0-9a-f])")  # see nlnet/files.py and rows.py


def read_suspects(path: Path, folder: Path | None) -> list[Path]:
    """The files to test again, each once.

    Args:
        path: a manifest, of which the rows with a file that are not ok are taken; a CSV file with a
            column `path`; or a text with one path in each line
        folder: relative paths start here; the folder of a manifest, or the current one, by default

    Raises:
        UserError: there is no such file.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; give a list of files")
    if is_manifest(path):
        _, rows = read_manifest_rows(path)
        names = [row.path for row in rows if row.path and row.facts.status != OK]
        start = folder or path.parent
    else:
        names, start = _names(path), folder or Path()
    return list(dict.fromkeys(_located(start, name) for name in names))


def _located(folder: Path, name: str) -> Path:
    """The file of a name, in which bytes that are not UTF-8 may be written as \\xe9 or \\udce9."""
    path = folder / name
    if "\\" in name and not path.exists():
        encoded = ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), os.fsencode(name))
        unescaped = folder / os.fsdecode(encoded)
        if unescaped.exists():
            return unescaped
    return path


def _names(path: Path) -> list[str]:
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    header = [column.strip().lower() for column in next(csv.reader(lines[:1]), [])]
    column = next((i for i, name in enumerate(header) if name in PATH_COLUMNS), None)
    if column is None:
        return [line.strip() for line in lines]
    return [row[column] for row in csv.reader(lines[1:]) if len(row) > column]
