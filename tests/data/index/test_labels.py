from pathlib import Path

import pytest

from nlnet.data.index.labels import read_class_names
from nlnet.errors import UserError


def test_class_names_are_the_lines_of_a_file(tmp_path: Path):
    path = tmp_path / "classes.txt"
    path.write_text("walk\neat cake\n")
    assert read_class_names(path) == ("walk", "eat cake")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("walk\nrun\nwalk\n", "line 3 repeats 'walk' of line 1"),
        ("walk\n\nrun\n", "line 2 is empty"),
        ("", "is empty"),
    ],
)
def test_a_mistake_in_a_file_of_class_names_is_named(content: str, message: str, tmp_path: Path):
    path = tmp_path / "classes.txt"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_class_names(path)


def test_an_absent_file_of_class_names_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"absent\.txt does not exist; correct class_names"):
        read_class_names(tmp_path / "absent.txt")
