"""Frames that nobody needs are not decoded, and all others are the same, bit for bit.

Both sides decode with FFmpeg, whose decoders of these codecs are exact.
"""

from pathlib import Path

import av
import numpy as np
import pytest

from nlnet.data.decoding.droppable import droppable_packets
from nlnet.data.decoding.pyav import PyAVReader
from nlnet.data.decoding.reader import DecodeError
from tests.data.decoding.videos import FORMATS, write_moving_video

LONG = {"num_frames": 120, "gop": 120}
H264 = {"bf": "3", "x264-params": "cpu-independent=1"}
# Each file, and whether frames are left out.
FILES: dict[str, tuple[dict, bool]] = {
    "long.mp4": ({**LONG, "options": H264}, True),
    "long.mkv": ({**LONG, "options": H264}, True),
    "pyramid.mp4": ({**LONG, "options": {**H264, "b-pyramid": "normal", "refs": "4"}}, True),
    "open.mp4": ({"options": {**H264, "x264-params": "cpu-independent=1:open-gop=1"}}, True),
    "slices.mp4": ({**LONG, "options": {**H264, "slices": "3"}}, True),
    "no_b_frames.mp4": ({"options": {**H264, "bf": "0"}}, False),
    "hevc.mp4": ({"codec": "libx265", "options": FORMATS["hevc.mp4"][1]}, True),
    "hevc_open.mkv": (
        {
            "codec": "libx265",
            "options": {"x265-params": "log-level=none:pools=none:keyint=12:open-gop=1"},
        },
        True,
    ),
    "hevc_layers.mp4": (
        {
            "codec": "libx265",
            "options": {"x265-params": "log-level=none:pools=none:keyint=48:temporal-layers=3"},
        },
        False,
    ),
    "vp9.webm": ({"codec": "libvpx-vp9", "options": {"lag-in-frames": "12"}}, False),
    "mpeg4.mp4": ({"codec": "mpeg4", "options": {"bf": "2"}}, False),
}


def plain_decoding(path: Path) -> list[np.ndarray]:
    with av.open(str(path), metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        return [frame.to_ndarray(format="rgb24", threads=1) for frame in container.decode(stream)]


def check(path: Path, truth: list[np.ndarray], rng: np.random.Generator) -> tuple[int, int]:
    """Read clips of several strides; count the frames that were decoded and that were needed."""
    decoded = needed = 0
    for stride in (1, 2, 3, 8):
        for _ in range(4):
            first = int(rng.integers(len(truth)))
            clip = np.arange(first, min(first + 8 * stride, len(truth)), stride)
            with PyAVReader(path) as video:
                before = video.num_decoded  # a file without an index was decoded to count it
                for number, pixels in zip(clip, video.frames(clip), strict=True):
                    assert np.array_equal(pixels, truth[number]), (path.name, number)
                if video._index is None:
                    needed += clip[-1] + 1
                else:
                    key = video._index.keys[np.searchsorted(video._index.keys, first, "right") - 1]
                    needed += clip[-1] + 1 - key
                decoded += video.num_decoded - before
    return decoded, int(needed)


@pytest.mark.parametrize("name", FILES)
def test_all_frames_are_those_of_plain_decoding(name: str, tmp_path: Path):
    options, leaves_out = FILES[name]
    path = write_moving_video(tmp_path / name, **options)
    decoded, needed = check(path, plain_decoding(path), np.random.default_rng(0))
    assert (decoded < 0.9 * needed) is leaves_out, f"{decoded} of {needed}"


@pytest.mark.slow
def test_all_frames_of_real_files_are_those_of_plain_decoding(shared_data: Path):
    rng = np.random.default_rng(0)
    ratios = {}
    for path in sorted((shared_data / "clips" / "real").iterdir()):
        if path.name in ("decord__video_90.mov", "ssv2__10015.gif"):  # turned, transparent
            continue
        try:
            decoded, needed = check(path, plain_decoding(path), rng)
        except DecodeError as error:
            raise AssertionError(path) from error
        ratios[path.name] = decoded / needed
    assert min(ratios.values()) < 0.75, ratios


@pytest.mark.parametrize("config", [None, b"", b"\x01", bytes(range(2, 42))])
def test_a_stream_without_a_known_configuration_is_decoded_in_full(config: bytes | None):
    for codec in ("h264", "hevc", "vp9", "av1", "mpeg4"):
        rule = droppable_packets(codec, config)
        assert not rule(memoryview(b"")) and not rule(memoryview(b"\x00\x00"))
