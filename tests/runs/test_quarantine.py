from pathlib import Path

import pytest

from nlnet.clip import Failure
from nlnet.errors import UserError
from nlnet.runs.quarantine import (
    QUARANTINE,
    START,
    TRAINING,
    add_to_quarantine,
    read_quarantine,
)


def test_failures_are_counted_by_file_and_stage(tmp_path: Path):
    assert read_quarantine(tmp_path) == []
    add_to_quarantine(tmp_path, TRAINING, [Failure("a, b.mp4", "cut"), Failure("c.mp4", "no\nx")])
    add_to_quarantine(tmp_path, START, [Failure("c.mp4", "empty")])
    add_to_quarantine(tmp_path, TRAINING, [Failure("a, b.mp4", "other"), Failure("d.mp4", "x")])
    assert [tuple(row) for row in read_quarantine(tmp_path)] == [
        ("a, b.mp4", "train", "cut", 2),
        ("c.mp4", "train", "no\nx", 1),
        ("c.mp4", "start", "empty", 1),
        ("d.mp4", "train", "x", 1),
    ]
    assert (tmp_path / QUARANTINE).read_text().startswith("path,stage,cause,count\n")


def test_a_name_that_is_not_utf_8_is_kept(tmp_path: Path):
    name = b"caf\xe9.mp4".decode(errors="surrogateescape")
    add_to_quarantine(tmp_path, START, [Failure(name, "empty")])
    assert read_quarantine(tmp_path)[0].path == name
    assert r"caf\udce9.mp4" in (tmp_path / QUARANTINE).read_text()


@pytest.mark.parametrize("text", ["", "path,cause\n", "path,stage,cause,count\na,b,c,many\n"])
def test_another_file_is_refused(text: str, tmp_path: Path):
    (tmp_path / QUARANTINE).write_text(text)
    with pytest.raises(UserError, match=r"quarantine\.csv: is not a list"):
        read_quarantine(tmp_path)
