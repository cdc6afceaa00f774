from pathlib import Path

import pytest

from nlnet.data.index.read import read_index
from nlnet.errors import UserError


@pytest.mark.parametrize("separator", [" ", "\t", ",", ", "])
def test_list_of_paths_and_names(separator: str, tmp_path: Path, touch, listed):
    touch("videos/a b.mp4", "videos/c.mp4")
    lines = [f"a b.mp4{separator}walk", "", f"c.mp4{separator}eat", ""]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    assert listed(read_index(tmp_path, "train.txt", videos="videos")) == [
        ("videos/a b.mp4", "walk"),
        ("videos/c.mp4", "eat"),
    ]


def test_list_of_paths_and_numbers(tmp_path: Path, touch):
    touch("a.mp4", "b.mp4")
    (tmp_path / "train.txt").write_text("a.mp4 0\nb.mp4 10\n")
    index = read_index(tmp_path, "train.txt")
    assert index.labels.tolist() == [0, 10]
    assert index.class_names == tuple(str(i) for i in range(11))
    named = read_index(tmp_path, "train.txt", class_names=tuple("abcdefghijk"))
    assert [named.class_names[label] for label in named.labels] == ["a", "k"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("a b.mp4 walk,eat\nc.MKV\twalk\n", [{"walk", "eat"}, {"walk"}]),
        ("a b.mp4,walk,eat\nc.MKV,run\n", [{"walk", "eat"}, {"run"}]),
        ("a b.mp4, walk , eat\nc.MKV, run\n", [{"walk", "eat"}, {"run"}]),
        ("a b.mp4 walk\nc.MKV run,run\n", [{"walk"}, {"run"}]),
        ("a b.mp4 walk,\nc.MKV run\n", [{"walk"}, {"run"}]),
        ("a b.mp4 1,0\nc.MKV 2\n", [{"0", "1"}, {"2"}]),
    ],
)
def test_list_of_several_labels(
    lines: str, expected: list[set[str]], tmp_path: Path, touch, label_sets
):
    touch("a b.mp4", "c.MKV")
    (tmp_path / "train.txt").write_text(lines)
    index = read_index(tmp_path, "train.txt")
    assert index.class_names == tuple(sorted(set.union(*expected)))
    assert label_sets(index) == expected
    assert [index.path(i).name for i in range(2)] == ["a b.mp4", "c.MKV"]


def test_a_path_without_a_video_suffix_has_one_label(tmp_path: Path, touch, listed):
    touch("a,b", "c 1")
    (tmp_path / "train.txt").write_text("a,b,walk\nc 1 eat\n")
    index = read_index(tmp_path, "train.txt")
    assert listed(index) == [("a,b", "walk"), ("c 1", "eat")]


def test_a_label_that_is_no_class_is_named(tmp_path: Path, touch):
    touch("a.mp4")
    (tmp_path / "val.txt").write_text("a.mp4 c000,c157\n")
    with pytest.raises(UserError, match=r"line 1 has the label 'c157', .* of the 2 cl"):
        read_index(tmp_path, "val.txt", class_names=("c000", "c156"))


MISTAKES = {
    "path alone": ("a.mp4 0\na.mp4\n", "line 2 is not `path label`"),
    "no labels": ("a.mp4 ,\n", "line 1 is not `path label`"),
    "kinds mixed": ("a.mp4 0\na.mp4 walk\n", "line 2 has the label 'walk'"),
    "kinds mixed in a line": ("a.mp4 0\na.mp4 1,walk\n", "line 2 has the label 'walk'"),
    "counts from 1": ("a.mp4 1\n", "count the labels from 0"),
    "labels from 1": ("a.mp4 1,2\n", "count the labels from 0"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_that_names_it(case: str, mistake):
    content, message = MISTAKES[case]
    assert message in mistake("train.txt", content)
    assert "no split column" in mistake("train.txt#val", content)
