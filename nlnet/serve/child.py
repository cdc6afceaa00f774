"""The process that decodes one upload, with limits on its time, its memory and its files.

It sends the windows of the video and their views as JSON and pixels, which its parent checks. The
parent never unpickles what this process sends.
"""

import json
import math
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from nlnet.data.decoding.container import open_video_stream
from nlnet.data.decoding.reader import DecodeError
from nlnet.data.decoding.stream import Frame, FrameStream, PyAVStream
from nlnet.data.windows import WindowViews
from nlnet.errors import UserError
from nlnet.serve.limits import Limits

CPUS = 2  # that one decoder may use
OPEN_FILES = 64
MOST_BYTES = 8  # of one pixel of a frame, in FFmpeg's formats
NEARLY = 0.75  # of the memory limit
NO_MEMORY = "Cannot allocate memory"  # in FFmpeg's messages


def decode(
    path: str,
    form: str | None,
    views: WindowViews,
    steps: tuple[float | None, float | None],
    limits: Limits,
    sender: Connection,
) -> None:
    """Send each window of a video: its header, then its views; at the end, how it ended.

    Args:
        path: the file
        form: FFmpeg's name of its format; None detects it, which only a trusted file may have
        views: what is taken from a window
        steps: the window and the step of `WindowViews.over`
        limits: of time, memory and length
        sender: the connection to the parent
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    most = _limit_process(limits)
    with suppress(BrokenPipeError):  # the parent has ended
        try:
            _check_declared(path, form, limits)
            with PyAVStream(path, form=form) as stream, _LimitedStream(stream, limits) as limited:
                for part, pixels in views.over(limited, *steps):
                    _send(sender, start=part.start, end=part.end, shape=list(pixels.shape))
                    sender.send_bytes(pixels.numpy().tobytes())
            _send(sender, done=True)
        except (UserError, MemoryError) as error:
            # FFmpeg calls a frame damaged for which it has no memory.
            lacks_memory = isinstance(error, MemoryError) or _most_memory() > most
            _send(sender, error=_message(error, path, limits, lacks_memory))


def _message(error: UserError | MemoryError, path: str, limits: Limits, lacks_memory: bool) -> str:
    """The sentence about a video that cannot be read, without its path."""
    if lacks_memory or NO_MEMORY in str(error):
        return (
            "the video cannot be read: decoding needs more than "
            f"{limits.decode_bytes / 2**30:g} GiB of memory; give a smaller video"
        )
    if isinstance(error, DecodeError):
        return f"the video cannot be read: {error.cause}; give another file"
    return str(error).removeprefix(f"{path}: ")


def _send(sender: Connection, **message: object) -> None:
    sender.send_bytes(json.dumps(message).encode())


def _limit_process(limits: Limits) -> int:
    """Set the limits. Returns the memory in bytes from which on it may be too little."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CPUS])  # FFmpeg starts as many threads
    torch.set_num_threads(1)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _limit(resource.RLIMIT_AS, used + limits.decode_bytes)
    _limit(resource.RLIMIT_CPU, math.ceil(CPUS * limits.decode_seconds))
    _limit(resource.RLIMIT_FSIZE, 0)  # it writes no file
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    return used + round(NEARLY * limits.decode_bytes)


def _most_memory() -> int:
    """The largest size of this process so far, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmPeak:"))


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _check_declared(path: str, form: str | None, limits: Limits) -> None:
    """Refuse a video that declares to be too long or too large, before it is decoded."""
    container, stream = open_video_stream(path, path, form=form)
    with container:
        seconds = 0.0 if container.duration is None else container.duration / 1e6
        _check_seconds(seconds, limits)
        context = stream.codec_context
        _check_pixels(context.width * context.height, limits)


def _check_seconds(seconds: float, limits: Limits) -> None:
    if seconds > limits.video_seconds:
        raise UserError(
            f"the video is longer than {limits.video_seconds:g} seconds; cut it, or raise "
            "--max-seconds"
        )


def _check_pixels(pixels: float, limits: Limits) -> None:
    if pixels > limits.frame_pixels:
        raise UserError(
            f"the frames of {pixels / 1e6:.1f} megapixels are larger than "
            f"{limits.frame_pixels / 1e6:.1f}; give a smaller video"
        )


class _LimitedStream(FrameStream):
    """The frames of a stream, which ends with an error at the first one beyond a limit."""

    def __init__(self, stream: FrameStream, limits: Limits) -> None:
        self.path, self.rate, self.is_live = stream.path, stream.rate, stream.is_live
        self._stream = stream
        self._limits = limits

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._stream:
            _check_seconds(frame.time, self._limits)
            _check_pixels(frame.num_bytes / MOST_BYTES, self._limits)
            yield frame

    def close(self) -> None:
        self._stream.close()
