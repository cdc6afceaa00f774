from pathlib import Path

import numpy as np
import pytest

from nlnet.data.index.video_index import VideoIndex
from nlnet.data.weighting import balanced_weights, read_video_weights
from nlnet.errors import UserError

ONE_LABEL = VideoIndex([Path(f"/v/{i}.mp4") for i in range(6)], [0, 0, 0, 0, 2, 2], ("a", "b", "c"))
SEVERAL = VideoIndex(
    [Path(f"/v/{i}.mp4") for i in range(5)],
    np.array([[1, 0], [1, 1], [1, 0], [1, 0], [0, 0]], np.float32),
    ("a", "b"),
)


@pytest.mark.parametrize(("balance", "ratio"), [(0.0, 1), (0.5, 2**0.5), (1.0, 2)])
def test_a_class_with_fewer_videos_weighs_more(balance: float, ratio: float):
    weights = balanced_weights(ONE_LABEL, balance)
    assert len(set(weights[:4])) == len(set(weights[4:])) == 1
    assert weights[4] / weights[0] == pytest.approx(ratio)


def test_a_balance_of_1_gives_all_classes_the_same_total():
    weights = balanced_weights(ONE_LABEL, 1.0)
    assert weights[:4].sum() == pytest.approx(weights[4:].sum())


def test_several_labels_have_the_mean_of_their_weights():
    weights = balanced_weights(SEVERAL, 1.0)
    assert weights.tolist() == [0.25, (0.25 + 1) / 2, 0.25, 0.25, 1.0]  # the last is unlabeled


def test_weights_are_read_by_path(tmp_path: Path):
    (tmp_path / "weights.txt").write_text("1.mp4 2.5\n\n./4.mp4  0\n")
    weights = read_video_weights(tmp_path / "weights.txt", Path("/v"), ONE_LABEL)
    assert weights.tolist() == [1, 2.5, 1, 1, 0, 1]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("1.mp4 2\n9.mp4 1\n", "line 2: '9.mp4' is not a video"),
        ("1.mp4\n", "line 1: '1.mp4' is not a video"),
        ("1.mp4 much\n", "line 1: the weight 'much' must be a number"),
        ("1.mp4 -1\n", "line 1: the weight '-1' must be a number, 0 or more"),
        ("1.mp4 nan\n", "'nan'"),
        ("".join(f"{i}.mp4 0\n" for i in range(6)), "all weights are 0"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, part: str, tmp_path: Path):
    (tmp_path / "weights.txt").write_text(text)
    with pytest.raises(UserError, match=part):
        read_video_weights(tmp_path / "weights.txt", Path("/v"), ONE_LABEL)
    with pytest.raises(UserError, match="does not exist"):
        read_video_weights(tmp_path / "no.txt", Path("/v"), ONE_LABEL)
