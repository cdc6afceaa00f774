"""What a run remembers about its videos, and how a change is said."""

import hashlib
import os
from pathlib import Path

import pytest

from nlnet.runs.video_list import VideoList, VideoRow, split_changes, videos_path

ROWS = [VideoRow(f"run/{i}.mp4", "run", 100 + i) for i in range(5)]
ODD = VideoRow(os.fsdecode(b"walk/caf\xe9, 1\n.mp4"), 'walk|"run"', 7)  # bytes, comma, line end


def write(folder: Path, rows: list[VideoRow], manifest: str | None = None) -> VideoList:
    videos = VideoList(rows, manifest)
    videos.write(videos_path(folder, "train"))
    return videos


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ([*ROWS, ODD], []),
        ([*ROWS[4:], ODD], ["4 videos removed (run/0.mp4, run/1.mp4, run/2.mp4, ...)"]),
        ([*ROWS, ODD, ROWS[0]._replace(path="a.mp4")], ["1 video added (a.mp4)"]),
        ([ROWS[0]._replace(size=0), *ROWS[1:], ODD], ["1 video replaced by another file (run/0"]),
        (
            [*(row._replace(labels="jog") for row in ROWS), ODD],
            ["5 videos with another class (run/0.mp4: run -> jog, ", ", ...)"],
        ),
        ([ODD, *ROWS], ["the same 6 videos in another order"]),
        ([ODD._replace(path="b.mp4"), *ROWS], ["removed (walk/caf", "added (b.mp4)"]),
    ],
)
def test_a_change_is_said_with_numbers_and_names(
    tmp_path: Path, now: list[VideoRow], said: list[str]
):
    saved = write(tmp_path, [*ROWS, ODD]).facts()
    changes = split_changes(tmp_path, "train", saved, VideoList(now))
    assert bool(changes) == bool(said)
    for part in said:
        assert part in "; ".join(changes)
    assert all(change.startswith("train: ") for change in changes)


def test_without_the_list_of_the_folder_numbers_are_given(tmp_path: Path):
    saved = write(tmp_path, ROWS).facts()
    write(tmp_path, ROWS[1:])  # of other data than those of the checkpoint
    for _ in range(2):
        changes = split_changes(tmp_path, "train", saved, VideoList(ROWS[2:]))
        assert changes == ["train: 5 -> 3 videos"]
        videos_path(tmp_path, "train").unlink(missing_ok=True)


def test_another_manifest_of_the_same_videos_is_a_change(tmp_path: Path):
    saved = write(tmp_path, ROWS, "a" * 64).facts()
    assert split_changes(tmp_path, "train", saved, VideoList(ROWS, "a" * 64)) == []
    changes = split_changes(tmp_path, "train", saved, VideoList(ROWS, "b" * 64))
    assert changes == ["train: another manifest of the same videos"]


def test_the_digest_of_a_long_list_is_that_of_its_file(tmp_path: Path):
    rows = [VideoRow(f"run/{i}.mp4", "run", i) for i in range(10_000)]
    path = videos_path(tmp_path, "train")
    videos = VideoList([*rows, ODD])
    facts = videos.write(path)
    assert videos.facts() == facts
    assert (facts.videos, facts.sha256) == (10_001, hashlib.sha256(path.read_bytes()).hexdigest())
    assert path.read_bytes().count(b"\n") == 10_003  # with the header, and one in a name
