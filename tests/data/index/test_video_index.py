import pickle
from pathlib import Path

import numpy as np

from nlnet.data.index.video_index import VideoIndex


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
