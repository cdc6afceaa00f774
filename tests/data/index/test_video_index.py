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
