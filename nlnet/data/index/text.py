"""Reading annotation files: text, JSON, and the rows of a CSV."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nlnet.errors import UserError
from nlnet.files import reading


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    Raises UserError for other encodings, and for a file that cannot be read.
    """
    with _utf8(path):
        return path.read_text(encoding="utf-8-sig")


@contextmanager
def _utf8(path: Path) -> Iterator[None]:
    """Raise UserError if a file that the body reads is not UTF-8, or cannot be read."""
    try:
        with reading(path):
            yield
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason}); convert it") from error


def text_lines(path: Path) -> list[tuple[str, str]]:
    """The place, "file line n", and the text of each line that is not empty."""
    lines = enumerate(read_text(path).splitlines(), start=1)
    return [(f"{path} line {number}", line.strip()) for number, line in lines if line.strip()]


def read_json_annotation(path: Path) -> Any:
    """The content of a JSON file; raises UserError if it is not JSON."""
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); download it again") from error


def csv_columns(path: Path) -> tuple[str, ...]:
    """The fields of the first line; nothing else is read."""
    with _utf8(path), path.open(encoding="utf-8-sig") as file:
        return tuple(next(csv.reader(file.readline().splitlines()[:1]), []))


def csv_rows(
    path: Path, columns: Sequence[str], filled: Sequence[str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Each row of a CSV, with "file line n" for error messages.

    Raises UserError if one of `columns` is absent, if a row has another number of fields than the
    header, if a field of the columns `filled` is empty, or if the text is not CSV.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    absent = [column for column in columns if column not in (reader.fieldnames or ())]
    if absent:
        raise UserError(f"{path} has no column {', '.join(absent)}; add it")
    try:
        for row in reader:
            source = f"{path} line {reader.line_num}"
            if None in row or None in row.values():
                raise UserError(f"{source} does not have as many fields as the header; correct it")
            if not all(row[column].strip() for column in filled):
                raise UserError(f"{source} has an empty {' or '.join(filled)}; fill or remove it")
            yield source, row
    except csv.Error as error:
        line = reader.reader.line_num
        raise UserError(f"{path} line {line} is not CSV ({error}); correct it") from error
