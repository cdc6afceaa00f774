"""The pictures for TensorBoard: the color of a cell is the share of the label's videos."""

import numpy as np
import pytest

from nlnet.report.board_pictures import (
    BAR,
    DARK,
    LARGE_CELL,
    LINE,
    NAMED,
    PAIRS,
    SMALL_CELL,
    confusion_picture,
    strip_picture,
)


@pytest.mark.parametrize(
    ("count", "cell"), [(2, LARGE_CELL), (20, LARGE_CELL), (NAMED, SMALL_CELL)]
)
def test_the_cells_are_the_square_at_the_lower_right(count: int, cell: int):
    """The upper left pixel of each cell is not covered by its number."""
    matrix = np.random.default_rng(0).integers(0, 5, (count, count))
    matrix[0] = 0  # a class without videos
    picture = confusion_picture(matrix, [f"class {k}" for k in range(count)])
    assert picture.dtype == np.uint8 and picture.shape[0] > cell * count
    corners = picture[-cell * count :: cell, -cell * count :: cell].astype(float)
    shares = (255 - corners) / (255 - np.array(DARK))
    wanted = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    np.testing.assert_allclose(
        shares, wanted[..., None].repeat(3, axis=2), atol=0.5 / (255 - DARK[2])
    )


def test_many_classes_show_the_most_confused_pairs():
    """The bars are on the right, the longest first; their length is the share."""
    matrix = 10 * np.eye(NAMED + 1, dtype=int)
    matrix[3, 7], matrix[5, 1] = 30, 10  # 75 % and 50 % of the label's videos
    picture = confusion_picture(matrix, [f"class {k}" for k in range(NAMED + 1)])
    bars = (picture[LINE + LINE // 2 :: LINE, -BAR:] == DARK).all(axis=2).sum(axis=1)
    np.testing.assert_allclose(bars / BAR, [0.75, 0.5], atol=1 / BAR)
    matrix += 1
    assert confusion_picture(matrix, ["name"] * (NAMED + 1)).shape[0] == LINE * (PAIRS + 1) + 4


def test_long_names_and_long_lines_fit():
    assert confusion_picture(np.eye(2, dtype=int), ["a" * 300, "b"]).shape[1] < 600
    frames = np.full((3, 32, 48, 3), 128, np.uint8)
    picture = strip_picture(frames, ["a line that is much longer than the frames " * 3, "b"])
    assert picture.shape == (2 * LINE + 112, picture.shape[1], 3)
    assert (picture[2 * LINE :, : 3 * 168] == 128).all()
