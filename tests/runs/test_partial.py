"""Partial results of an evaluation: what is read back, and what is not."""

import time
from pathlib import Path

import numpy as np
import pytest

from nlnet.clip import Failure
from nlnet.runs.partial import LEAST, SHARE, PartialResults, ScorePart, remove_partial

KEY = "0123456789abcdef" * 4


def part(first: int) -> ScorePart:
    rng = np.random.default_rng(first)
    return ScorePart(
        video=np.array([first, first + 1]),
        totals=rng.random((2, 3)),
        num_views=np.array([2, 1]),
        views=rng.random((3, 3)).astype(np.float16),
        view_video=np.array([first, first, first + 1]),
        failures=[Failure(f"{first}.mp4", "no é")],
    )


def assert_equal(found: list[ScorePart], expected: list[ScorePart]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.failures == other.failures
        for name in ("video", "totals", "num_views", "views", "view_video"):
            a, b = getattr(one, name), getattr(other, name)
            assert a.dtype == b.dtype and (a == b).all()


def write_three(folder: Path) -> list[Path]:
    partial = PartialResults(folder, KEY, 0)
    for i, end in enumerate((2, 5, 6)):
        partial.write(part(10 * i), end)
    return sorted(partial.folder.iterdir())


def test_parts_are_read_back_with_the_same_bits(tmp_path: Path):
    write_three(tmp_path)
    again = PartialResults(tmp_path, KEY, 0)
    assert_equal(again.read(), [part(0), part(10), part(20)])
    assert again.batches == 6


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped", "empty", "other"])
def test_parts_after_a_damaged_one_are_not_used(tmp_path: Path, damage: str):
    _, second, third = write_three(tmp_path)
    data = bytearray(second.read_bytes())
    if damage == "gone":
        second.unlink()
    elif damage == "other":
        second.write_bytes(third.read_bytes())
    else:
        data[len(data) // 3] ^= 1
        second.write_bytes({"cut": data[:-100], "flipped": data, "empty": b""}[damage])
    again = PartialResults(tmp_path, KEY, 0)
    assert_equal(again.read(), [part(0)])
    assert again.batches == 2


def test_parts_belong_to_one_rank_and_one_key(tmp_path: Path):
    write_three(tmp_path)
    assert PartialResults(tmp_path, KEY, 1).read() == []
    assert PartialResults(tmp_path, KEY[::-1], 0).read() == []
    remove_partial(tmp_path, except_key=KEY)
    assert len(PartialResults(tmp_path, KEY, 0).read()) == 3
    remove_partial(tmp_path, except_key=KEY[::-1])
    assert PartialResults(tmp_path, KEY, 0).read() == []
    write_three(tmp_path)
    remove_partial(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_time_between_parts_grows_with_the_time_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Few parts, and a kill loses at most 2 % of the time, or a second."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    partial = PartialResults(tmp_path, KEY, 0)
    written = []
    for _ in range(100_000):
        now[0] += 0.36  # ten hours together
        if partial.is_due:
            written.append(now[0])
            partial.written = now[0]
    gaps = np.diff([0.0, *written])
    assert (gaps <= np.maximum(LEAST, SHARE * np.array(written)) + 0.37).all()
    assert len(written) < 500


def test_a_folder_that_cannot_be_written_does_not_end_the_evaluation(tmp_path: Path):
    (tmp_path / "partial").touch()
    partial = PartialResults(tmp_path, KEY, 0)
    partial.write(part(0), 1)
    partial.written -= 1000
    assert not partial.is_due
