"""Decoding in a child process: the same views as without one, and every limit holds."""

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import nlnet
from nlnet.data.decoding.stream import PyAVStream
from nlnet.data.windows import WindowViews
from nlnet.demo import DEMO
from nlnet.errors import UserError
from nlnet.serve.decoder import Decoder, start_decoders
from nlnet.serve.limits import Limits

VideoFactory = Callable[..., Path]


@pytest.fixture(scope="module")
def views() -> WindowViews:
    start_decoders()
    return nlnet.load(DEMO, device="cpu").window_views


def refusal(views: WindowViews, path: Path, form: str = "mov", **limits: float) -> str:
    decoder = Decoder(views, None, None, replace(Limits(), **limits))
    with pytest.raises(UserError) as error:
        list(decoder.windows(str(path), form))
    message = str(error.value)
    assert "\n" not in message and str(path) not in message
    return message


@pytest.mark.parametrize(("window", "step"), [(None, None), (1.0, 0.25)])
def test_the_windows_are_those_of_the_stream(
    views: WindowViews, video_file: VideoFactory, window: float | None, step: float | None
):
    """Bit for bit: the child decodes and crops with the same code."""
    path = video_file(num_frames=48)
    found = list(Decoder(views, window, step, Limits()).windows(str(path), "mov"))
    with PyAVStream(path) as stream:
        wanted = list(views.over(stream, window, step))
    assert len(found) == len(wanted) > 3
    for one, (part, pixels) in zip(found, wanted, strict=True):
        assert (one.start, one.end) == (part.start, part.end)
        assert torch.equal(one.views, pixels)


def test_a_long_video_is_refused(views: WindowViews, video_file: VideoFactory):
    path = video_file(num_frames=40)
    message = refusal(views, path, video_seconds=1.0)
    assert "longer than 1 seconds" in message and "--max-seconds" in message


def test_a_video_that_hides_its_length_is_refused(views: WindowViews, video_file: VideoFactory):
    """A file of MPEG frames without a length: the frames tell it."""
    path = video_file("raw.mpg", num_frames=60, codec="mpeg1video", b_frames=0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    assert "longer than 1 seconds" in refusal(views, path, "mpeg", video_seconds=1.0)


def test_large_frames_are_refused(views: WindowViews, video_file: VideoFactory):
    message = refusal(views, video_file(size=(480, 640), num_frames=2), frame_pixels=10**5)
    assert "0.3 megapixels are larger than 0.1" in message


def test_a_small_file_of_huge_frames_is_refused(views: WindowViews, video_file: VideoFactory):
    path = video_file(size=(2304, 4096), num_frames=2, options={"preset": "ultrafast"})
    assert path.stat().st_size < 10**6
    assert "9.4 megapixels are larger than 8.8" in refusal(views, path)


def test_a_small_file_that_pretends_to_have_huge_frames_is_refused(
    views: WindowViews, video_file: VideoFactory
):
    """Each JPEG picture says that it has 16384 x 16384 pixels, the container says 64 x 48."""
    path = video_file("bomb.avi", codec="mjpeg", b_frames=0, options={"strict": "-2"})
    start = b"\xff\xc0\x00\x11\x08"  # of a picture's header, before height and width
    small, huge = start + bytes([0, 48, 0, 64]), start + bytes([0x40, 0, 0x40, 0])
    assert small in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(small, huge))
    assert "cannot be read" in refusal(views, path, "avi")


def test_a_video_that_needs_too_much_memory_is_refused(
    views: WindowViews, video_file: VideoFactory
):
    path = video_file(size=(1080, 1920), num_frames=12, options={"preset": "ultrafast"})
    assert "GiB of memory" in refusal(views, path, decode_bytes=40 * 2**20)


def test_a_decoder_that_hangs_is_ended(views: WindowViews, tmp_path: Path):
    """Nobody writes to the pipe, so that opening it never ends."""
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    began = time.monotonic()
    assert "more than 1 seconds" in refusal(views, pipe, decode_seconds=1.0)
    assert time.monotonic() - began < 20


def test_a_decoder_that_crashes_is_an_error(views: WindowViews, tmp_path: Path):
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    killer = threading.Timer(1.0, kill_decoder_of, [pipe])
    killer.start()
    message = refusal(views, pipe)
    killer.join()
    assert "SIGSEGV" in message and "damaged" in message


def kill_decoder_of(path: Path) -> None:
    """Let the process crash that waits in this open call."""
    descriptor = os.open(path, os.O_RDWR)  # both ends, so that the open call of the decoder ends
    try:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            for process in Path("/proc").glob("[0-9]*"):
                if int(process.name) != os.getpid() and has_open(process, path):
                    os.kill(int(process.name), signal.SIGSEGV)
                    return
            time.sleep(0.1)
    finally:
        os.close(descriptor)


def has_open(process: Path, path: Path) -> bool:
    try:
        return any(os.readlink(entry) == str(path) for entry in (process / "fd").iterdir())
    except OSError:  # the process has ended, or is another user's
        return False


def test_a_stopped_decoder_ends_at_once(views: WindowViews, tmp_path: Path):
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    decoder = Decoder(views, None, None, Limits())
    threading.Timer(0.5, decoder.stop).start()
    with pytest.raises(UserError, match="the server ends"):
        list(decoder.windows(str(pipe), "mov"))


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("mov", b"\0\0\0\x18ftypisom" + b"no video at all" * 50),
        ("matroska", b"\x1a\x45\xdf\xa3" + bytes(500)),
        ("mov", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n" * 9),  # the format is not guessed
    ],
)
def test_damaged_files_are_errors(views: WindowViews, tmp_path: Path, form: str, content: bytes):
    path = tmp_path / "damaged"
    path.write_bytes(content)
    assert "the video cannot be read" in refusal(views, path, form)


def test_the_format_is_not_guessed(views: WindowViews, video_file: VideoFactory):
    path = video_file("video.mkv")
    assert "the video cannot be read" in refusal(views, path, "mov")
