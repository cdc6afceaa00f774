import pickle
from pathlib import Path

import numpy as np
import pytest

from nlnet.data.index.video_index import PathTable, VideoIndex


def test_index_returns_the_paths_and_labels_that_it_was_given():
    paths = [Path("a/b.mp4"), Path("c d/ü.avi"), Path("x"), Path("x\udcff.mp4")]
    index = VideoIndex(paths, [1, 0, 1, 0], ("no", "yes"))
    for copy in (index, pickle.loads(pickle.dumps(index))):
        assert [copy.path(i) for i in range(len(copy))] == paths
        assert copy.labels.tolist() == [1, 0, 1, 0]
        assert copy.labels.dtype == np.int64


def test_index_has_no_object_per_video():
    index = VideoIndex((Path(f"videos/{i:011d}.mp4") for i in range(10_000)), [0] * 10_000, ("a",))
    assert len(pickle.dumps(index)) < 10_000 * (22 + 8 + 8) + 1000


def test_a_part_of_the_videos_is_spread_over_the_index():
    index = VideoIndex([Path(str(i)) for i in range(9)], list(range(9)), ("a",), ("gone",))
    for count, rows in ((1, [0]), (3, [0, 4, 8]), (9, list(range(9))), (20, list(range(9)))):
        part = index.spread(count)
        assert part.labels.tolist() == rows
        assert [part.path(i) for i in range(len(part))] == [Path(str(row)) for row in rows]
        assert (part.class_names, part.missing) == (("a",), ("gone",))
    several = VideoIndex([Path("x"), Path("y")], np.eye(2, dtype=np.float32), ("a", "b"))
    assert several.spread(1).labels.tolist() == [[1, 0]]


def test_an_index_without_some_files_is_that_of_the_others():
    paths = [Path(f"videos/{'x' * i}.mp4") for i in range(1, 9)]
    index = VideoIndex(paths, list(range(8)), tuple("abcdefgh"))
    gone = {str(paths[i]) for i in (0, 3, 4)} | {"elsewhere.mp4"}
    rest = index.without(gone)
    assert [rest.path(i) for i in range(len(rest))] == [paths[i] for i in (1, 2, 5, 6, 7)]
    assert rest.labels.tolist() == [1, 2, 5, 6, 7] and rest.class_names == index.class_names


@pytest.mark.parametrize("folder", [b"", b"/data/", b"data//videos/"])
def test_names_are_the_texts_of_the_paths(folder: bytes):
    names = [b"a.mp4", b"./b.mp4", b"c//d.mp4", b"e/./f.mp4", b"g/../h", b"..", b"i/.", b"\xff.mp4"]
    data = np.frombuffer(b"".join(names), np.uint8)
    table = PathTable(data, np.cumsum([len(name) for name in names]), folder)
    for rows in (range(8), range(3, 6), range(7, 8)):
        assert table.names(rows) == [str(table[i]) for i in rows]
