from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nlnet.data.index.read import read_index
from nlnet.data.index.video_index import VideoIndex
from nlnet.errors import UserError


@pytest.fixture
def touch(tmp_path: Path) -> Callable[..., None]:
    """Make empty files below `tmp_path`."""

    def make(*names: str) -> None:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    return make


@pytest.fixture
def listed(tmp_path: Path) -> Callable[[VideoIndex], list[tuple[str, str]]]:
    """The path below `tmp_path` and the class name of each video."""

    def pairs(index: VideoIndex) -> list[tuple[str, str]]:
        return [
            (index.path(i).relative_to(tmp_path).as_posix(), index.class_names[index.labels[i]])
            for i in range(len(index))
        ]

    return pairs


@pytest.fixture
def label_sets() -> Callable[[VideoIndex], list[set[str]]]:
    """The names of the labels of each video, from the matrix of indicators."""

    def sets(index: VideoIndex) -> list[set[str]]:
        assert index.labels.dtype == np.float32
        assert index.labels.shape == (len(index), len(index.class_names))
        assert set(index.labels.flatten().tolist()) <= {0.0, 1.0}
        rows = index.labels.tolist()
        return [{n for n, x in zip(index.class_names, row, strict=True) if x} for row in rows]

    return sets


@pytest.fixture
def mistake(tmp_path: Path, touch: Callable[..., None]) -> Callable[[str, str], str]:
    """The error message of a split with this content; the only video is a.mp4."""

    def message(split: str, content: str) -> str:
        touch("a.mp4")
        (tmp_path / split.partition("#")[0]).write_text(content)
        with pytest.raises(UserError) as caught:
            read_index(tmp_path, split)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return message
