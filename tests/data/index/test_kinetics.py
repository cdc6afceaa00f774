from pathlib import Path

import pytest

from nlnet.data.index.read import read_index
from nlnet.errors import UserError

HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"


def test_rows_and_files(tmp_path: Path, touch, listed):
    touch("data/v0_000001_000011.mp4", "data/deep/v1.webm")
    rows = '"eating, cake",v0,1,11,val,0\nwalk,v1,2,12,val,1\n'
    (tmp_path / "val.csv").write_text(HEADER + rows)
    assert listed(read_index(tmp_path, "val.csv", videos="data")) == [
        ("data/v0_000001_000011.mp4", "eating, cake"),
        ("data/deep/v1.webm", "walk"),
    ]


def test_a_csv_of_several_splits(tmp_path: Path, touch, listed):
    touch("a.mp4", "b.mp4")
    (tmp_path / "all.csv").write_text(HEADER + "walk,a,0,9,train,0\nwalk,b,0,9,val,0\n")
    assert listed(read_index(tmp_path, "all.csv#val")) == [("b.mp4", "walk")]
    with pytest.raises(UserError, match=r"all\.csv#train or all\.csv#val"):
        read_index(tmp_path, "all.csv")
    with pytest.raises(UserError, match="no row of split 'test', only train, val"):
        read_index(tmp_path, "all.csv#test")


def test_of_two_files_the_one_in_the_folder_of_the_label_is_taken(tmp_path: Path, touch, listed):
    touch("eat_cake/v.mp4", "walk/v.mp4", "train/walk/w.mp4", "val/walk/w.mp4")
    (tmp_path / "val.csv").write_text(HEADER + "eat cake,v,0,9,val,0\nwalk,w,0,9,val,0\n")
    assert listed(read_index(tmp_path, "val.csv")) == [
        ("eat_cake/v.mp4", "eat cake"),
        ("val/walk/w.mp4", "walk"),
    ]
    touch("val/walk/w.avi")
    with pytest.raises(UserError, match=r"line 3 fits two files, .*w\.\w+ and .*w\.\w+"):
        read_index(tmp_path, "val.csv")


MISTAKES = {
    "no rows": (HEADER, "lists no video"),
    "short row": (HEADER + "walk,a,0,9,val,0\nwalk,a\n", "line 3 does not have as many fields"),
    "long row": (HEADER + "walk,a,0,9,val,0,7\n", "line 2 does not have as many fields"),
    "no label": (HEADER + ",a,0,9,val,0\n", "line 2 has an empty label"),
    "bad time": (HEADER + "walk,a,x,9,val,0\n", "line 2 has a time"),
    "open quote": (HEADER + '"walk,a,0,9,val,0\n', "line 2 is not CSV"),
    "no label column": ("youtube_id,time_start,time_end\na,0,9\n", "no column label"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_that_names_it(case: str, mistake):
    content, message = MISTAKES[case]
    assert message in mistake("train.csv", content)


def test_a_part_needs_a_split_column(mistake):
    content = "label,youtube_id,time_start,time_end\nwalk,a,0,9\n"
    assert "train.csv has no split column" in mistake("train.csv#val", content)
