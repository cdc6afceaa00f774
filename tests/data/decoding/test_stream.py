"""A stream gives every frame once, in order, with its time; the pixels are those of the reader."""

import io
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest

from nlnet.data.decoding.array import ArrayReader
from nlnet.data.decoding.pyav import PyAVReader
from nlnet.data.decoding.reader import DecodeError
from nlnet.data.decoding.stream import ArrayStream, FrameStream, PyAVStream, is_live
from nlnet.errors import UserError
from tests.data.decoding.test_pyav import KINDS
from tests.data.decoding.videos import write_moving_video

VideoFactory = Callable[..., Path]


def pixels(stream: FrameStream) -> np.ndarray:
    return np.stack([frame.pixels() for frame in stream])


@pytest.mark.parametrize("name", KINDS)
def test_the_frames_are_those_of_random_access(video_file: VideoFactory, name: str):
    """Bit for bit: both decode with FFmpeg, whose decoders are exact on any number of threads."""
    path = video_file(name, **KINDS[name][0])
    with PyAVReader(path) as reader, PyAVStream(path) as stream:
        expected = reader.read(range(reader.num_frames))
        assert np.array_equal(pixels(stream), expected)


@pytest.mark.parametrize("name", ["h264.mp4", "late_start.mp4", "low_fps.mp4", "h264.ts"])
def test_times_count_from_the_first_frame(video_file: VideoFactory, name: str):
    options = KINDS[name][0]
    rate = options.get("fps", 30)
    with PyAVStream(video_file(name, **options)) as stream:
        assert stream.rate == rate and not stream.is_live
        times = [frame.time for frame in stream]
    assert np.allclose(times, np.arange(48) / rate, atol=1e-4)


def test_a_raw_stream_has_times_that_rise(video_file: VideoFactory):
    with PyAVStream(video_file("no_time_stamps.h264")) as stream:
        times = [frame.time for frame in stream]
    assert len(times) == 48 and times[0] == 0 and (np.diff(times) > 0).all()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The URL of a server of the files in tmp_path."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_files_objects_and_urls_have_the_same_frames(video_file: VideoFactory, served: str):
    path = video_file("video.ts")
    with PyAVStream(path) as stream:
        expected = pixels(stream)
    data = path.read_bytes()
    with PyAVStream("object", io.BytesIO(data)) as stream:
        assert np.array_equal(pixels(stream), expected)
    with PyAVStream(f"{served}/video.ts") as stream:
        assert stream.is_live
        assert np.array_equal(pixels(stream), expected)
    with PyAVReader(Path("object"), io.BytesIO(data)) as reader:
        assert np.array_equal(reader.read(range(48)), expected)
    with pytest.raises(DecodeError, match=r"^[^\n]+$"):
        PyAVStream(f"{served}/gone.ts")


def test_arrays_are_read_as_files():
    frames = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
    with ArrayReader(frames) as reader, ArrayStream(frames, 10.0) as stream:
        assert reader.num_frames == 5
        assert np.array_equal(reader.read([4, 0, 0]), frames[[4, 0, 0]])
        assert np.array_equal(pixels(stream), frames)
        assert [frame.time for frame in stream] == [0, 0.1, 0.2, 0.3, 0.4]
        with pytest.raises(IndexError):
            reader.read([5])
    for wrong in (frames[0], frames.astype(np.float32), frames[:0], frames[..., :1]):
        with pytest.raises(UserError, match=r"^array: frames .* uint8 \(T, H, W, 3\)[^\n]*$"):
            ArrayReader(wrong)
        with pytest.raises(UserError):
            ArrayStream(wrong, 10.0)


def test_damage_is_named(video_file: VideoFactory, tmp_path: Path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(DecodeError, match=r"text\.mp4: [^\n]+$"):
        PyAVStream(tmp_path / "text.mp4")
    data = video_file("whole.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(data[: len(data) // 2])
    with (
        pytest.raises(DecodeError, match=r"half\.mp4: [^\n]+$"),
        PyAVStream(tmp_path / "half.mp4") as stream,
    ):
        list(stream)


@pytest.mark.parametrize(
    ("source", "live"),
    [
        ("/dev/video0", True),
        ("rtsp://camera/stream", True),
        ("video.mp4", False),
        (Path("rtsp:/folder/video.mp4"), False),
    ],
)
def test_cameras_and_urls_are_live(source: str | Path, live: bool):
    assert is_live(source) is live


def test_times_of_b_frames_in_avi_rise_by_one_frame(tmp_path: Path):
    """AVI has the times of the order of decoding; the decoder gives 1, 4, 3, 5, 2, ..."""
    options = {"bf": "3", "x264-params": "b-adapt=0:cpu-independent=1"}
    path = write_moving_video(tmp_path / "b.avi", options=options, num_frames=30)
    with av.open(str(path)) as container:
        stamps = [frame.pts for frame in container.decode(video=0)]
    assert stamps != sorted(stamps)
    with PyAVStream(path) as stream:
        assert [frame.time for frame in stream] == pytest.approx(np.arange(30) / 25)
