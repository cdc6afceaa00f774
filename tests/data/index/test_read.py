import shutil
from pathlib import Path

import pytest

from nlnet.data.index.entries import SplitSource
from nlnet.data.index.files import all_files
from nlnet.data.index.folder import read_folder
from nlnet.data.index.labels import read_class_names
from nlnet.data.index.read import FORMATS, detect_format, read_index
from nlnet.data.index.text import csv_columns, read_text
from nlnet.data.index.video_index import VideoIndex
from nlnet.data.setting_names import SettingNames
from nlnet.errors import UserError

SPLITS = {
    "folder": None,
    "kinetics": "label,youtube_id,time_start,time_end\nwalk,a,0,9\n",
    "charades": "id,actions\na,walk 1 2\n",
    "listing": "walk/a.mp4 walk\n",
}


def test_every_format_is_tested():
    assert SPLITS.keys() == FORMATS.keys()


@pytest.mark.parametrize("kind", SPLITS)
def test_the_format_is_detected(kind: str, tmp_path: Path, touch):
    touch("walk/a.mp4")
    split, content = ".", SPLITS[kind]
    if content is not None:
        split = "split.txt"  # the suffix of a file does not count
        (tmp_path / split).write_text(content)
    path = tmp_path / split
    columns = csv_columns(path) if path.is_file() else ()
    assert detect_format(SplitSource(path, "", tmp_path, columns)) == kind
    index = read_index(tmp_path, split)
    assert [index.path(i) for i in range(len(index))] == [tmp_path / "walk" / "a.mp4"]
    assert index.class_names == ("walk",)


def test_class_names_of_training_number_the_labels_of_evaluation(tmp_path: Path, touch):
    touch("val/walk/1.mp4")
    index = read_index(tmp_path, "val", class_names=("eat", "run", "walk"))
    assert index.labels[0] == 2
    assert index.class_names == ("eat", "run", "walk")


def test_missing_files_are_an_error_or_reported(tmp_path: Path, touch, listed):
    touch("b.mp4")
    (tmp_path / "train.txt").write_text("a.mp4 eat\nb.mp4 walk\nc.mp4 walk\n")
    with pytest.raises(UserError, match=r"2 of the 3 .* a\.mp4 \(.*line 1\).*allow_missing=true"):
        read_index(tmp_path, "train.txt")
    index = read_index(tmp_path, "train.txt", allow_missing=True)
    assert index.missing == ("a.mp4", "c.mp4")
    assert index.class_names == ("walk",)  # classes never come from missing videos alone
    assert "eat" in index.remarks[0]
    assert listed(index) == [("b.mp4", "walk")]


def test_a_split_that_does_not_exist_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="absent does not exist"):
        read_index(tmp_path, "absent")


def test_what_vanished_is_named(tmp_path: Path, touch):
    """Between the look for a file or folder and its reading."""
    touch("train/walk/a.mp4")
    files = all_files(tmp_path / "train")
    shutil.rmtree(tmp_path / "train")
    with pytest.raises(UserError, match=r"train: cannot be read \(No such file"):
        next(files)
    with pytest.raises(UserError, match=r"train: cannot be read"):
        read_folder(SplitSource(tmp_path / "train", "", tmp_path))
    with pytest.raises(UserError, match=r"a\.txt: cannot be read"):
        read_text(tmp_path / "a.txt")


def test_an_empty_split_is_named(mistake):
    assert "train.txt lists no video" in mistake("train.txt", "\n")


def test_a_split_without_files_is_named(tmp_path: Path, mistake):
    assert "1 of the 1 videos" in mistake("train.txt", "b.mp4 0\n")
    with pytest.raises(UserError, match=r"none of the videos .* has a file"):
        read_index(tmp_path, "train.txt", allow_missing=True)


def test_messages_use_the_names_of_the_settings(tmp_path: Path, touch):
    touch("a.mp4")
    (tmp_path / "train.txt").write_text("a.mp4 1\n")
    (tmp_path / "other.txt").write_text("b.mp4 0\n")
    settings = SettingNames("A.root", "A.videos", "A.classes", "A.missing", "A.bad")

    def message(split: str, **options) -> str:
        with pytest.raises(UserError) as caught:
            read_index(tmp_path, split, settings=settings, **options)
        return str(caught.value)

    assert "A.root" in message("absent")
    assert "A.videos" in message("train.txt", videos="absent")
    assert "A.videos" in message("other.txt", allow_missing=True)
    assert "A.classes" in message("train.txt", class_names=("walk",))
    assert "A.missing=true" in message("other.txt")


def test_folders_and_csv_of_real_data_agree(shared_data: Path):
    root = shared_data / "jhmdb-small"

    def listed(index: VideoIndex) -> list[tuple[Path, str]]:
        return sorted(
            (index.path(i), index.class_names[index.labels[i]]) for i in range(len(index))
        )

    classes = read_class_names(root / "classes.txt")
    folders = {split: read_index(root, split, class_names=classes) for split in ("train", "val")}
    assert {split: len(index) for split, index in folders.items()} == {"train": 660, "val": 268}
    for split, index in folders.items():
        for csv in (f"{split}.csv", f"jhmdb-small.csv#{split}", f"splits/split1.csv#{split}"):
            assert listed(read_index(root, csv, class_names=classes)) == listed(index)
