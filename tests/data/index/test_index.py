import pickle
from pathlib import Path

import numpy as np
import pytest

from nlnet.data.index.index import VideoIndex, read_class_names, read_index
from nlnet.errors import UserError

HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"
CHARADES = "id,subject,script,actions,length\n"


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def entries(index: VideoIndex, root: Path) -> list[tuple[str, str]]:
    return [
        (index.path(i).relative_to(root).as_posix(), index.class_names[index.labels[i]])
        for i in range(len(index))
    ]


def test_index_gives_back_what_it_was_given():
    paths = [Path("a/b.mp4"), Path("c d/ü.avi"), Path("x"), Path("x\udcff.mp4")]
    index = VideoIndex(paths, [1, 0, 1, 0], ("no", "yes"))
    for copy in (index, pickle.loads(pickle.dumps(index))):
        assert [copy.path(i) for i in range(len(copy))] == paths
        assert copy.labels.tolist() == [1, 0, 1, 0]
        assert copy.labels.dtype == np.int64


def test_index_needs_no_object_per_video():
    index = VideoIndex((Path(f"videos/{i:011d}.mp4") for i in range(10_000)), [0] * 10_000, ("a",))
    assert len(pickle.dumps(index)) < 10_000 * (22 + 8 + 8) + 1000


def test_folder_of_class_folders(tmp_path: Path):
    touch(tmp_path, "train/walk/2.MP4", "train/walk/1.mp4", "train/eat cake/x.webm")
    touch(tmp_path, "train/.cache/y.mp4", "train/walk/notes.txt", "train/README")
    assert entries(read_index(tmp_path, "train"), tmp_path) == [
        ("train/eat cake/x.webm", "eat cake"),
        ("train/walk/1.mp4", "walk"),
        ("train/walk/2.MP4", "walk"),
    ]


def test_class_names_of_training_number_the_labels_of_evaluation(tmp_path: Path):
    touch(tmp_path, "val/walk/1.mp4")
    index = read_index(tmp_path, "val", class_names=("eat", "run", "walk"))
    assert index.labels[0] == 2
    assert index.class_names == ("eat", "run", "walk")


def test_folders_named_by_numbers_are_names(tmp_path: Path):
    touch(tmp_path, "train/10/a.mp4", "train/2/b.mp4")
    assert read_index(tmp_path, "train").class_names == ("10", "2")


def test_kinetics_csv(tmp_path: Path):
    touch(tmp_path, "data/v0_000001_000011.mp4", "data/deep/v1.webm")
    rows = '"eating, cake",v0,1,11,val,0\nwalk,v1,2,12,val,1\n'
    (tmp_path / "val.csv").write_text(HEADER + rows)
    assert entries(read_index(tmp_path, "val.csv", videos="data"), tmp_path) == [
        ("data/v0_000001_000011.mp4", "eating, cake"),
        ("data/deep/v1.webm", "walk"),
    ]


def test_kinetics_csv_of_several_splits(tmp_path: Path):
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "all.csv").write_text(HEADER + "walk,a,0,9,train,0\nwalk,b,0,9,val,0\n")
    assert entries(read_index(tmp_path, "all.csv#val"), tmp_path) == [("b.mp4", "walk")]
    with pytest.raises(UserError, match=r"all\.csv#train or all\.csv#val"):
        read_index(tmp_path, "all.csv")
    with pytest.raises(UserError, match="no row of split 'test', only train, val"):
        read_index(tmp_path, "all.csv#test")


def test_of_two_files_the_one_in_the_named_folder_counts(tmp_path: Path):
    touch(tmp_path, "eat_cake/v.mp4", "walk/v.mp4", "train/walk/w.mp4", "val/walk/w.mp4")
    (tmp_path / "val.csv").write_text(HEADER + "eat cake,v,0,9,val,0\nwalk,w,0,9,val,0\n")
    assert entries(read_index(tmp_path, "val.csv"), tmp_path) == [
        ("eat_cake/v.mp4", "eat cake"),
        ("val/walk/w.mp4", "walk"),
    ]
    touch(tmp_path, "val/walk/w.avi")
    with pytest.raises(UserError, match=r"line 3 fits two files, .*w\.\w+ and .*w\.\w+"):
        read_index(tmp_path, "val.csv")


@pytest.mark.parametrize("separator", [" ", "\t", ",", ", "])
def test_list_of_paths_and_names(separator: str, tmp_path: Path):
    touch(tmp_path, "videos/a b.mp4", "videos/c.mp4")
    lines = [f"a b.mp4{separator}walk", "", f"c.mp4{separator}eat", ""]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    assert entries(read_index(tmp_path, "train.txt", videos="videos"), tmp_path) == [
        ("videos/a b.mp4", "walk"),
        ("videos/c.mp4", "eat"),
    ]


def test_list_of_paths_and_numbers(tmp_path: Path):
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "train.txt").write_text("a.mp4 0\nb.mp4 10\n")
    index = read_index(tmp_path, "train.txt")
    assert index.labels.tolist() == [0, 10]
    assert index.class_names == tuple(str(i) for i in range(11))
    named = read_index(tmp_path, "train.txt", class_names=tuple("abcdefghijk"))
    assert [named.class_names[label] for label in named.labels] == ["a", "k"]


def label_sets(index: VideoIndex) -> list[set[str]]:
    """The names of each video's labels, from the matrix that says them."""
    assert index.labels.dtype == np.float32
    assert index.labels.shape == (len(index), len(index.class_names))
    assert set(index.labels.flatten().tolist()) <= {0.0, 1.0}
    rows = index.labels.tolist()
    return [{n for n, x in zip(index.class_names, row, strict=True) if x} for row in rows]


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
def test_list_of_several_labels(lines: str, expected: list[set[str]], tmp_path: Path):
    touch(tmp_path, "a b.mp4", "c.MKV")
    (tmp_path / "train.txt").write_text(lines)
    index = read_index(tmp_path, "train.txt")
    assert index.class_names == tuple(sorted(set.union(*expected)))
    assert label_sets(index) == expected
    assert [index.path(i).name for i in range(2)] == ["a b.mp4", "c.MKV"]


def test_a_path_without_a_suffix_of_videos_bears_one_label(tmp_path: Path):
    touch(tmp_path, "a,b", "c 1")
    (tmp_path / "train.txt").write_text("a,b,walk\nc 1 eat\n")
    index = read_index(tmp_path, "train.txt")
    assert entries(index, tmp_path) == [("a,b", "walk"), ("c 1", "eat")]


def test_charades_csv(tmp_path: Path):
    touch(tmp_path, "videos/A.mp4", "videos/deep/B.avi", "videos/C.mp4")
    rows = (
        'A,X,"She says ""no"",\nand sits.",c092 11.90 21.20;c147 0.00 12.60;c092 1 2,24.8\n'
        "B,X,,,10\nC,Y,walks,c147 0 40.5,30\n"
    )
    (tmp_path / "train.csv").write_text(CHARADES + rows)
    index = read_index(tmp_path, "train.csv", videos="videos")
    assert index.class_names == ("c092", "c147")
    assert label_sets(index) == [{"c092", "c147"}, set(), {"c147"}]
    paths = [index.path(i).relative_to(tmp_path).as_posix() for i in range(3)]
    assert paths == ["videos/A.mp4", "videos/deep/B.avi", "videos/C.mp4"]

    (tmp_path / "videos" / "A.mp4").unlink()
    found = read_index(tmp_path, "train.csv", videos="videos", allow_missing=True)
    assert (found.missing, label_sets(found)) == (("A",), [set(), {"c147"}])


def test_codes_of_charades_are_the_first_words_of_its_classes(tmp_path: Path):
    touch(tmp_path, "A.mp4")
    (tmp_path / "test.csv").write_text(CHARADES + "A,X,,c002 1 2;c000 0 1,10\n")
    names = ("c000 Holding some clothes", "c001 Putting clothes", "c002 Taking some clothes")
    index = read_index(tmp_path, "test.csv", class_names=names)
    assert index.labels.tolist() == [[1, 0, 1]]
    assert index.class_names == names


def test_missing_files_are_an_error_or_reported(tmp_path: Path):
    touch(tmp_path, "b.mp4")
    (tmp_path / "train.txt").write_text("a.mp4 eat\nb.mp4 walk\nc.mp4 walk\n")
    with pytest.raises(UserError, match=r"2 of the 3 .* a\.mp4 \(.*line 1\).*allow_missing=true"):
        read_index(tmp_path, "train.txt")
    index = read_index(tmp_path, "train.txt", allow_missing=True)
    assert index.missing == ("a.mp4", "c.mp4")
    assert index.class_names == ("eat", "walk")
    assert entries(index, tmp_path) == [("b.mp4", "walk")]


MISTAKES = {
    "no file": ("absent", "", "absent does not exist"),
    "empty list": ("train.txt", "\n", "lists no video"),
    "no rows": ("train.csv", HEADER, "lists no video"),
    "path alone": ("train.txt", "a.mp4 0\na.mp4\n", "line 2 is not `path label`"),
    "kinds mixed": ("train.txt", "a.mp4 0\na.mp4 walk\n", "line 2 has the label 'walk'"),
    "counts from 1": ("train.txt", "a.mp4 1\n", "count the labels from 0"),
    "all missing": ("train.txt", "b.mp4 0\n", "1 of the 1 videos"),
    "short row": ("train.csv", HEADER + "walk,a,0,9,val,0\nwalk,a\n", "line 3 has not as many"),
    "long row": ("train.csv", HEADER + "walk,a,0,9,val,0,7\n", "line 2 has not as many"),
    "no label": ("train.csv", HEADER + ",a,0,9,val,0\n", "line 2 has an empty label"),
    "bad time": ("train.csv", HEADER + "walk,a,x,9,val,0\n", "line 2 has a time"),
    "open quote": ("train.csv", HEADER + '"walk,a,0,9,val,0\n', "is not CSV"),
    "no label column": ("train.csv", "youtube_id,time_start,time_end\na,0,9\n", "no column label"),
    "no split column": (
        "train.csv#val",
        "label,youtube_id,time_start,time_end\nwalk,a,0,9\n",
        "has no split column",
    ),
    "kinds mixed in a line": ("train.txt", "a.mp4 0\na.mp4 1,walk\n", "line 2 .* label 'walk'"),
    "labels from 1": ("train.txt", "a.mp4 1,2\n", "count the labels from 0"),
    "no labels": ("train.txt", "a.mp4 ,\n", "line 1 is not `path label`"),
    "no action": ("train.csv", CHARADES + "a,X,,,9\n", "no video has a label"),
    "no id": ("train.csv", CHARADES + ",X,,c000 1 2,9\n", "line 2 has an empty id"),
    "short action": ("train.csv", CHARADES + "a,X,,c000 1,9\n", "line 2 has the action 'c000 1'"),
    "word for a time": ("train.csv", CHARADES + "a,X,,c000 1 x,9\n", "line 2 has a time"),
    "endless time": ("train.csv", CHARADES + "a,X,,,9\na,X,,c000 1 nan,9\n", "line 3 has a time"),
    "split of charades": ("train.csv#val", CHARADES + "a,X,,c000 1 2,9\n", "has no split column"),
    "part of a list": ("train.txt#val", "a.mp4 0\n", "has no split column"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_split_is_one_line_that_names_it(mistake: str, tmp_path: Path):
    split, content, message = MISTAKES[mistake]
    touch(tmp_path, "a.mp4")
    if content:
        (tmp_path / split.partition("#")[0]).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read_index(tmp_path, split)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train/a.mp4"], "outside a class folder"),
        (["train/walk/notes.txt"], "walk holds no video"),
        (["train/wlak/a.mp4"], "'wlak', which is none of the 2 classes; did you mean 'walk'"),
        (["train/1/a.mp4"], "'1', which is none of the 2 classes"),
    ],
)
def test_a_mistake_in_a_folder_is_one_line_that_names_it(
    files: list[str], message: str, tmp_path: Path
):
    touch(tmp_path, *files)
    with pytest.raises(UserError, match=message):
        read_index(tmp_path, "train", class_names=("eat", "walk"))
    with pytest.raises(UserError, match="no split column"):
        read_index(tmp_path, "train#val")


def test_an_action_or_label_that_is_no_class_is_named(tmp_path: Path):
    touch(tmp_path, "a.mp4")
    (tmp_path / "val.csv").write_text(CHARADES + "a,X,,c000 1 2;c157 1 2,9\n")
    (tmp_path / "val.txt").write_text("a.mp4 c000,c157\n")
    for split, line in (("val.csv", 2), ("val.txt", 1)):
        with pytest.raises(UserError, match=rf"line {line} has the label 'c157', .* of the 2 cl"):
            read_index(tmp_path, split, class_names=("c000", "c156"))


def test_class_names_file(tmp_path: Path):
    path = tmp_path / "classes.txt"
    path.write_text("walk\neat cake\n")
    assert read_class_names(path) == ("walk", "eat cake")
    for content, message in {
        "walk\nrun\nwalk\n": "line 3 repeats 'walk' of line 1",
        "walk\n\nrun\n": "line 2 is empty",
        "": "is empty",
    }.items():
        path.write_text(content)
        with pytest.raises(UserError, match=message):
            read_class_names(path)
    with pytest.raises(UserError, match="does not exist"):
        read_class_names(tmp_path / "absent.txt")


def test_folders_and_csv_of_real_data_agree(shared_data: Path):
    root = shared_data / "jhmdb-small"
    classes = read_class_names(root / "classes.txt")
    folders = {split: read_index(root, split, class_names=classes) for split in ("train", "val")}
    assert {split: len(index) for split, index in folders.items()} == {"train": 660, "val": 268}
    for split, index in folders.items():
        for listed in (f"{split}.csv", f"jhmdb-small.csv#{split}", f"splits/split1.csv#{split}"):
            other = read_index(root, listed, class_names=classes)
            assert sorted(entries(other, root)) == sorted(entries(index, root))
