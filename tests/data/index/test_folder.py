from pathlib import Path

import pytest

from nlnet.data.index.read import read_index
from nlnet.errors import UserError


def test_folder_of_class_folders(tmp_path: Path, touch, listed):
    touch("train/walk/2.MP4", "train/walk/1.mp4", "train/eat cake/x.webm")
    touch("train/.cache/y.mp4", "train/walk/notes.txt", "train/README", "train/walk/._1.mp4")
    assert listed(read_index(tmp_path, "train")) == [
        ("train/eat cake/x.webm", "eat cake"),
        ("train/walk/1.mp4", "walk"),
        ("train/walk/2.MP4", "walk"),
    ]


def test_folders_named_by_numbers_are_names(tmp_path: Path, touch):
    touch("train/10/a.mp4", "train/2/b.mp4")
    assert read_index(tmp_path, "train").class_names == ("10", "2")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train/a.mp4"], "a.mp4 .*outside a class folder"),
        (["train/walk/notes.txt"], "walk has no video"),
        (["train/wlak/a.mp4"], "'wlak', which is none of the 2 classes; did you mean 'walk'"),
        (["train/1/a.mp4"], "'1', which is none of the 2 classes; correct it or class_names"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(files: list[str], message: str, tmp_path: Path, touch):
    touch(*files)
    with pytest.raises(UserError, match=message) as caught:
        read_index(tmp_path, "train", class_names=("eat", "walk"))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no split column"):
        read_index(tmp_path, "train#val")


def test_videos_of_every_container_at_any_depth_are_read_and_others_counted(
    tmp_path: Path, touch, listed
):
    touch("train/run/a.mp4", "train/run/b.MTS", "train/run/c.ogv", "train/run/v_01/d.m2ts")
    touch("train/walk/e.asf", "train/walk/x.txt", "train/walk/y.txt", "train/walk/z")
    index = read_index(tmp_path, "train")
    assert [path.split("/")[-1][0] for path, _ in listed(index)] == list("abcde")
    (remark,) = index.remarks
    assert "3 files are no videos" in remark and "2 .txt" in remark


def test_a_loop_of_links_ends(tmp_path: Path, touch, listed):
    touch("train/run/a.mp4")
    (tmp_path / "train" / "run" / "again").symlink_to(tmp_path / "train")
    assert ("train/run/a.mp4", "run") in listed(read_index(tmp_path, "train"))


def test_folders_of_frames_are_videos_where_no_file_is_one(tmp_path: Path, touch, listed):
    touch("train/run/v1/img_00001.jpg", "train/run/v1/img_00002.jpg", "train/run/v1/flow_x_1.jpg")
    touch("train/run/in/v.2/000000.png", "train/run/._1.jpg", "train/run/readme.txt")
    touch("train/walk/a.mp4", "train/walk/pictures/a1.jpg", "train/walk/pictures/a2.jpg")
    index = read_index(tmp_path, "train")
    assert listed(index) == [
        ("train/run/in/v.2", "run"),
        ("train/run/v1", "run"),
        ("train/walk/a.mp4", "walk"),
    ]
    (remark,) = index.remarks
    assert "3 files are no videos" in remark and "2 .jpg" in remark


def test_videos_below_numbered_images_are_found(tmp_path: Path, touch, listed):
    """A folder with pictures is no folder of frames if videos are below it."""
    touch("train/run/day/cover1.jpg", "train/run/day/v/a.mp4", "train/run/day/v/b.mp4")
    touch("train/walk/v1/img_1.jpg", "train/walk/v1/flow/img_1.jpg", "train/walk/v1/flow/x.txt")
    index = read_index(tmp_path, "train")
    assert listed(index) == [
        ("train/run/day/v/a.mp4", "run"),
        ("train/run/day/v/b.mp4", "run"),
        ("train/walk/v1", "walk"),
    ]
    (tmp_path / "l.txt").write_text("a 0\n")  # a name without path and suffix
    assert listed(read_index(tmp_path, "l.txt")) == [("train/run/day/v/a.mp4", "0")]


def test_frames_beside_one_another_have_no_video(tmp_path: Path, touch):
    touch("train/run/img_00001.jpg", "train/run/img_00002.jpg")
    with pytest.raises(UserError, match=r"run has images but no video; move [^\n]*$"):
        read_index(tmp_path, "train")
