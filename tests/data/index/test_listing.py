import re
from pathlib import Path

import numpy as np
import pytest

from nlnet.data.decoding.reader import DecodeError
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


TWO_WORDS = ["playing guitar", "riding a bike"]
OTHER_FORMS = {
    "spaces in names": (
        "a.mp4,playing guitar\nb.mp4,riding a bike\n",
        ["playing guitar", "riding a bike"],
    ),
    "tabs": ("a.mp4\tplaying guitar\nb.mp4\triding a bike\n", TWO_WORDS),
    "all quoted": ('"a.mp4","0"\n"b.mp4","1"\n', ["0", "1"]),
    "semicolons": ("a;Drumming Fingers\nb;Swiping Left\n", ["Drumming Fingers", "Swiping Left"]),
    "zero-padded": ("a.mp4 000\nb.mp4 001\n", ["0", "1"]),
    "header": ("path,label\na.mp4,run\nb.mp4,walk\n", ["run", "walk"]),
    "header of numbers": ("video label\na.mp4 0\nb.mp4 1\n", ["0", "1"]),
    "more columns": ("id,file_name,label\n7,a.mp4,run\n8,b.mp4,walk\n", ["run", "walk"]),
    "quoted comma": ('a.mp4,"eat, drink"\nb.mp4,run\n', ["eat, drink", "run"]),
}


@pytest.mark.parametrize("case", OTHER_FORMS)
def test_lists_of_other_programs(case: str, tmp_path: Path, touch):
    text, names = OTHER_FORMS[case]
    touch("a.mp4", "b.mp4")
    (tmp_path / "l.csv").write_text(text)
    index = read_index(tmp_path, "l.csv")
    assert [index.class_names[label] for label in index.labels] == names
    assert [index.path(i).name for i in range(2)] == ["a.mp4", "b.mp4"]


def test_quoted_paths_may_have_separators(tmp_path: Path, touch, listed):
    touch("a,1.mp4", "b c.mp4")
    (tmp_path / "l.csv").write_text('"a,1.mp4",0\nb c.mp4,1\n')
    assert listed(read_index(tmp_path, "l.csv")) == [("a,1.mp4", "0"), ("b c.mp4", "1")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("walk_test_split1.txt", "a.mp4 1 \nb.mp4 2 \nc.mp4 0 \n"),
        ("trainlist01.txt", "walk/a.mp4 1\n"),
        ("testlist01.txt", "walk/a.mp4\n"),
    ],
)
def test_official_lists_are_refused_with_advice(name: str, text: str, mistake):
    assert re.search(r"tools/prepare\.py (hmdb51|ucf101)", mistake(name, text))


def test_names_are_compared_in_nfc(tmp_path: Path, touch):
    composed, two_characters = "caf\u00e9", "cafe\u0301"
    touch(f"train/{composed}/a.mp4", "train/run/a.mp4", f"val/{two_characters}/b.mp4")
    touch(f"{two_characters}.mp4")
    train = read_index(tmp_path, "train")
    val = read_index(tmp_path, "val", class_names=train.class_names)
    assert val.class_names[val.labels[0]] == composed
    (tmp_path / "l.txt").write_text(f"{composed}.mp4 0\n")
    assert read_index(tmp_path, "l.txt").path(0).is_file()


def test_numbers_count_the_classes_of_the_data_set(tmp_path: Path, touch):
    touch("a.mp4", "b.mp4")
    (tmp_path / "l.txt").write_text("a.mp4 0\nb.mp4 1\n")
    index = read_index(
        tmp_path, "l.txt", class_names=("run", "walk"), numbered_names=("walk", "run")
    )
    assert [index.class_names[label] for label in index.labels] == ["walk", "run"]
    assert "another order" in index.remarks[0]
    with pytest.raises(UserError, match=r"line 2 has the label '1' \(eat\)"):
        read_index(tmp_path, "l.txt", class_names=("run", "walk"), numbered_names=("walk", "eat"))


@pytest.mark.parametrize(
    ("text", "labels", "counts"),
    [
        ("v1 120 0\nin/v.2 9 1\n", ["0", "1"], [120, 9]),
        ("v1\t120\t0\nin/v.2,9,1\n", ["0", "1"], [120, 9]),
        ('"v1" 120 play 2 games\nin/v.2 9 1\n', ["play 2 games", "1"], [120, 9]),
        ("v1 run\nin/v.2 walk\n", ["run", "walk"], None),
        ("path,total_frames,label\nv1,120,run\nin/v.2,9,walk\n", ["run", "walk"], [120, 9]),
        ("a.mp4 0\nv1 120 1\nmy 3 videos/v 4 8 0\n", ["0", "1", "0"], [0, 120, 8]),
    ],
)
def test_lists_of_folders_of_frames(
    text: str, labels: list[str], counts: list[int] | None, tmp_path: Path, touch
):
    touch("a.mp4", "v1/img_00001.jpg", "in/v.2/000000.png", "my 3 videos/v 4/1.jpg")
    (tmp_path / "l.txt").write_text(text)
    names = tuple(dict.fromkeys(labels))
    if names == ("play 2 games", "1"):  # names and numbers are mixed
        with pytest.raises(UserError, match="use names or numbers"):
            read_index(tmp_path, "l.txt", class_names=names)
        return
    index = read_index(tmp_path, "l.txt", class_names=names)
    assert [names[label] for label in index.labels] == labels
    assert all(index.path(i).exists() for i in range(len(index)))
    found = index.listed_frames
    assert (None if found is None else found.tolist()) == counts


def test_a_list_of_frames_names_folders_that_are_missing(tmp_path: Path, touch):
    touch("v1/img_00001.jpg")
    (tmp_path / "l.txt").write_text("v1 120 0\nv2 60 0\n")
    with pytest.raises(UserError, match=r"first v2 \(.*line 2\)"):
        read_index(tmp_path, "l.txt")
    (tmp_path / "l.txt").write_text("v1 120 0 3\n")
    with pytest.raises(UserError, match="several numbers after the path, '0 3'"):
        read_index(tmp_path, "l.txt")


def test_missing_frames_are_a_fault_and_others_are_not_used(tmp_path: Path, touch):
    touch("v1/img_00001.jpg")
    (tmp_path / "l.txt").write_text("v1 120 0\n")
    index = read_index(tmp_path, "l.txt").select(np.array([0]))
    assert index.clip_range(0, 120) == index.clip_range(0, 121) == (0, 120)
    with pytest.raises(DecodeError, match="v1: has 119 frames, but its list says 120"):
        index.clip_range(0, 119)


def test_differences_between_the_classes_are_said(tmp_path: Path, touch):
    touch("a.mp4")
    (tmp_path / "l.txt").write_text("a.mp4 4\n")
    ours, theirs = ("run", "jump", "walk"), ("eat", "sit", "fly", "swim", "run")

    def remarks(ours: tuple[str, ...], theirs: tuple[str, ...] | None) -> tuple[str, ...]:
        return read_index(tmp_path, "l.txt", class_names=ours, numbered_names=theirs).remarks

    (line,) = remarks(ours, theirs)
    assert line.endswith(
        "2 only in the model (jump, walk), 4 only in class_names (eat, sit, fly and 1 more)"
    )
    assert remarks(theirs, theirs) == remarks(theirs, None) == ()
