"""The pixels of frames: display matrices, changes of size, sizes that are refused."""

from pathlib import Path

import av
import numpy as np
import pytest

from nlnet.data.decoding import container
from nlnet.data.decoding.pyav import PyAVReader
from nlnet.data.decoding.reader import DecodeError
from nlnet.data.decoding.stream import PyAVStream
from tests.data.decoding.videos import FORMATS, write_moving_video


def plain_decoding(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as opened:
        return [frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)]


@pytest.mark.parametrize("name", FORMATS)
def test_an_open_file_has_the_frames_of_the_file(name: str, tmp_path: Path):
    """The file is larger than FFmpeg's buffer, so that FFmpeg reads on from its position."""
    codec, options = FORMATS[name]
    rate = {"b": "6M", "minrate": "6M"}
    size = (144, 176)
    path = write_moving_video(tmp_path / name, codec=codec, options=options | rate, size=size)
    assert path.stat().st_size > 200_000
    with PyAVReader(path) as video, path.open("rb") as file, PyAVReader(path, file) as opened:
        assert opened.num_frames == video.num_frames == 48
        assert (opened._index is None) == (video._index is None)
        assert (opened._index is None) == (video._index is None)  # with it, one seek finds a frame
        assert np.array_equal(opened.read(range(48)), video.read(range(48)))


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize(("hflip", "vflip"), [(False, False), (True, False), (False, True)])
def test_the_whole_display_matrix_is_applied(
    degrees: int, hflip: bool, vflip: bool, tmp_path: Path
):
    """FFmpeg's matrix first turns the frame by an angle, counterclockwise, then mirrors it."""
    path = write_moving_video(
        tmp_path / "video.mp4", num_frames=3, rotation=(degrees, hflip, vflip)
    )
    stored = plain_decoding(path)
    expected = [
        np.rot90(pixels, degrees // 90)[:: -1 if vflip else 1, :: -1 if hflip else 1]
        for pixels in stored
    ]
    with PyAVReader(path) as video, PyAVStream(path) as stream:
        assert np.array_equal(video.read([0, 1, 2]), expected)
        assert np.array_equal([frame.pixels() for frame in stream], expected)


def test_frames_of_another_size_are_scaled_to_the_first(tmp_path: Path):
    first = write_moving_video(tmp_path / "first.ts", num_frames=20, size=(96, 128))
    second = write_moving_video(tmp_path / "second.ts", num_frames=20, size=(64, 96))
    path = tmp_path / "both.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    with PyAVReader(path) as video:
        assert video.num_frames == 40
        frames = video.read([3, 25, 39])
        assert frames.shape == (3, 96, 128, 3)
        assert np.array_equal(frames[0], plain_decoding(first)[3])
        small = plain_decoding(second)[19]
    with PyAVReader(path) as video:
        (only,) = video.read([39])  # the same without any frame of the first size
        assert np.array_equal(only, frames[2])
    with PyAVStream(path) as stream:
        streamed = [frame.pixels for frame in stream]
        assert np.array_equal(streamed[39](), only)
    # the scaled frame is the small one, enlarged: their coarse pictures agree
    coarse = only.reshape(8, 12, 8, 16, 3).mean((1, 3))
    assert np.abs(coarse - small.reshape(8, 8, 8, 12, 3).mean((1, 3))).mean() < 8


def test_frames_that_are_too_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_moving_video(tmp_path / "large.mp4", num_frames=2, size=(96, 128))
    monkeypatch.setattr(container, "MAX_PIXELS", 96 * 128 - 1)
    with pytest.raises(DecodeError, match="frames of 128 x 96 pixels are too large"):
        PyAVReader(path)
