"""Reading folders of frames, with one JPEG or PNG image for each frame, like videos."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from nlnet.data.decoding.container import MAX_PIXELS, RgbConverter
from nlnet.data.decoding.frame_names import frame_names
from nlnet.data.decoding.reader import DecodeError, VideoReader
from nlnet.data.decoding.stream import DEFAULT_RATE, Frame, FrameStream

CODECS = {".jpg": "mjpeg", ".jpeg": "mjpeg", ".png": "png"}
JPEG_END = b"\xff\xd9"  # without it, decoders invent the rest of an image


class FrameFolderReader(VideoReader):
    """The frames of a folder. Images of other sizes are scaled to the size of the first one.

    A folder declares no frame rate. Raises DecodeError if a frame is missing, or is no whole image.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._names = frame_names(path)
        self.num_frames = len(self._names)
        self.size = self._size()  # width and height of all frames
        self._rgb = RgbConverter(self.size)

    def close(self) -> None:
        """There is nothing to close: each image is opened when it is read."""

    @property
    def files(self) -> list[Path]:
        """The images, frame by frame."""
        return [self.path / name for name in self._names]

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec of the first image."""
        return CODECS[Path(self._names[0]).suffix.lower()]

    def pixels(self, number: int) -> np.ndarray:
        """The frame with this number: uint8 RGB (H, W, 3)."""
        context, data = self._open(number)
        try:
            decoded = [*context.decode(av.Packet(data)), *context.decode(None)]
        except av.FFmpegError as error:
            raise self._broken(number, error.strerror) from error
        if len(decoded) != 1 or decoded[0].is_corrupt:
            raise self._broken(number, "it does not decode")
        return self._rgb(decoded[0])

    def _frames(self, wanted: list[int]) -> Iterator[np.ndarray]:
        return map(self.pixels, wanted)

    def _open(self, number: int) -> tuple[av.VideoCodecContext, bytes]:
        """A decoder for an image, and its bytes."""
        file = self.path / self._names[number]
        try:
            data = file.read_bytes()
        except OSError as error:
            raise self._broken(number, error.strerror) from error
        codec = CODECS[file.suffix.lower()]
        if not data or (codec == "mjpeg" and JPEG_END not in data):
            raise self._broken(number, "its end is missing" if data else "the file is empty")
        context = av.VideoCodecContext.create(codec, "r")
        context.thread_type, context.thread_count = "NONE", 1
        context.options = {"max_pixels": str(MAX_PIXELS), "err_detect": "explode+crccheck"}
        return context, data

    def _size(self) -> tuple[int, int]:
        """Width and height in the header of the first image."""
        context, data = self._open(0)
        context.skip_frame = "ALL"
        try:
            context.decode(av.Packet(data))
        except av.FFmpegError as error:
            raise self._broken(0, error.strerror) from error
        if not context.width or not context.height:
            raise self._broken(0, "it does not decode")
        return context.width, context.height

    def _broken(self, number: int, cause: str | None) -> DecodeError:
        return DecodeError(self.path, f"{self._names[number]} is not a whole image ({cause})")


class FrameFolderStream(FrameStream):
    """The frames of a folder in order. They have no times: `rate` counts as their rate."""

    is_live = False

    def __init__(self, path: Path, rate: float | None = None) -> None:
        self._reader = FrameFolderReader(path)
        self.path = path
        self.rate = rate or DEFAULT_RATE

    def __iter__(self) -> Iterator[Frame]:
        for i in range(self._reader.num_frames):
            pixels = self._reader.pixels(i)
            yield Frame(i / self.rate, pixels.nbytes, pixels.view)

    def close(self) -> None:
        """There is nothing to close."""
