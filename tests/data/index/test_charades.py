from pathlib import Path

import pytest

from nlnet.data.index.read import read_index
from nlnet.errors import UserError

HEADER = "id,subject,script,actions,length\n"


def test_rows_and_files(tmp_path: Path, touch, label_sets):
    touch("videos/A.mp4", "videos/deep/B.avi", "videos/C.mp4")
    rows = (
        'A,X,"She says ""no"",\nand sits.",c092 11.90 21.20;c147 0.00 12.60;c092 1 2,24.8\n'
        "B,X,,,10\nC,Y,walks,c147 0 40.5,30\n"
    )
    (tmp_path / "train.csv").write_text(HEADER + rows)
    index = read_index(tmp_path, "train.csv", videos="videos")
    assert index.class_names == ("c092", "c147")
    assert label_sets(index) == [{"c092", "c147"}, set(), {"c147"}]
    paths = [index.path(i).relative_to(tmp_path).as_posix() for i in range(3)]
    assert paths == ["videos/A.mp4", "videos/deep/B.avi", "videos/C.mp4"]

    (tmp_path / "videos" / "A.mp4").unlink()
    found = read_index(tmp_path, "train.csv", videos="videos", allow_missing=True)
    assert (found.missing, label_sets(found)) == (("A",), [set(), {"c147"}])


def test_a_code_is_the_first_word_of_a_class_name(tmp_path: Path, touch):
    touch("A.mp4")
    (tmp_path / "test.csv").write_text(HEADER + "A,X,,c002 1 2;c000 0 1,10\n")
    names = ("c000 Holding some clothes", "c001 Putting clothes", "c002 Taking some clothes")
    index = read_index(tmp_path, "test.csv", class_names=names)
    assert index.labels.tolist() == [[1, 0, 1]]
    assert index.class_names == names


def test_a_code_that_is_no_class_is_named(tmp_path: Path, touch):
    touch("a.mp4")
    (tmp_path / "val.csv").write_text(HEADER + "a,X,,c000 1 2;c157 1 2,9\n")
    with pytest.raises(UserError, match=r"line 2 has the label 'c157', .* of the 2 cl"):
        read_index(tmp_path, "val.csv", class_names=("c000", "c156"))


MISTAKES = {
    "no action": ("a,X,,,9\n", "no video has a label"),
    "no id": (",X,,c000 1 2,9\n", "line 2 has an empty id"),
    "short action": ("a,X,,c000 1,9\n", "line 2 has the action 'c000 1'"),
    "word for a time": ("a,X,,c000 1 x,9\n", "line 2 has a time"),
    "time is nan": ("a,X,,,9\na,X,,c000 1 nan,9\n", "line 3 has a time"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_that_names_it(case: str, mistake):
    content, message = MISTAKES[case]
    assert message in mistake("train.csv", HEADER + content)
    assert "no split column" in mistake("train.csv#val", HEADER + content)
