"""Reading video files with torchcodec, an extra that needs the libraries of FFmpeg."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nlnet.data.decoding.pyav import PyAVReader
from nlnet.errors import UserError

GROUP = 8  # frames that are decoded together
TOLERANCE = 1e-4  # seconds; torchcodec gives times as floating point numbers


class TorchcodecReader(PyAVReader):
    """A reader that decodes with torchcodec where the container declares the time of each frame.

    Each frame must have its declared time. Other files, and files that torchcodec cannot read, are
    read with PyAV. torchcodec does not report damaged frames, so damage that it conceals is not an
    error here.
    """

    def _frames(self, wanted: list[int]) -> Iterator[np.ndarray]:
        given = 0
        if self._index is not None and self._file is None:
            for pixels in self._decoded_frames(self.path, wanted, self._declared_times(wanted)):
                yield pixels
                given += 1
        if given < len(wanted):
            yield from super()._frames(wanted[given:])

    def _declared_times(self, wanted: list[int]) -> list[float]:
        assert self._index is not None and self._stream.time_base is not None
        base = self._stream.time_base
        return [float(self._index.times[number] * base) for number in wanted]

    def _decoded_frames(
        self, path: Path, wanted: list[int], times: list[float]
    ) -> Iterator[np.ndarray]:
        """The first of the wanted frames, up to one that torchcodec does not give as declared."""
        from torchcodec.decoders import VideoDecoder

        try:
            decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1)
            for first in range(0, len(wanted), GROUP):
                group = decoder.get_frames_at(wanted[first : first + GROUP])
                found = zip(group.data.numpy(), group.pts_seconds.tolist(), strict=True)
                for (pixels, time), declared in zip(found, times[first:], strict=False):
                    if abs(time - declared) > TOLERANCE:
                        return
                    yield pixels
        except (RuntimeError, ValueError, IndexError):
            return  # PyAV reads the rest, or names what is wrong


def check_torchcodec() -> None:
    """Raise UserError unless torchcodec and the libraries of FFmpeg can be loaded."""
    remedy = 'pip install "nlnet[torchcodec]", and install the shared libraries of FFmpeg'
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, RuntimeError) as error:
        raise UserError(f"torchcodec cannot be imported; {remedy}") from error
    try:
        VideoDecoder(b"no video")
    except (RuntimeError, ValueError) as error:
        if "Could not load" in str(error):
            raise UserError(f"torchcodec finds no libraries of FFmpeg; {remedy}") from error
