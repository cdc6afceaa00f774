import csv
import gc
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import PictureType

from nlnet.data.decoding.pyav import PyAVReader
from nlnet.data.decoding.reader import DecodeError, FrameCountError

VideoFactory = Callable[..., Path]

# Options of a file, and whether its time stamps are enough to decode from a key frame.
KINDS = {
    "h264.mp4": ({}, True),
    "late_start.mp4": ({"first_pts": 45}, True),
    "late_start.mkv": ({"first_pts": 45}, True),
    "short_gop.mp4": ({"gop": 3}, True),
    "all_intra.mp4": ({"gop": 1, "b_frames": 0}, True),
    "high_fps.mp4": ({"fps": 120}, True),
    "low_fps.mp4": ({"fps": 2}, True),
    "open_gop.mp4": (
        {"b_frames": 3, "options": {"x264-params": "open-gop=1:keyint=12:scenecut=0:b-adapt=0"}},
        True,
    ),
    "intra_refresh.mp4": ({"options": {"x264-params": "intra-refresh=1:keyint=12"}}, False),
    "hevc.mp4": (
        {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=12:pools=none"}},
        True,
    ),
    "vp9.webm": ({"codec": "libvpx-vp9", "options": {"lag-in-frames": "12"}}, True),
    "vp8.webm": ({"codec": "libvpx", "options": {"lag-in-frames": "12"}}, False),
    "mpeg4.mp4": ({"codec": "mpeg4"}, False),
    "mpeg4.avi": ({"codec": "mpeg4"}, False),
    "h264.avi": ({}, False),
    "h264.ts": ({}, False),
    "no_time_stamps.h264": ({}, False),
    "one_frame.mp4": ({"num_frames": 1}, True),
    "two_frames.mp4": ({"num_frames": 2}, True),
}


def sequential(path: Path) -> Iterator[np.ndarray]:
    """The oracle: every frame that decodes from the start of the file."""
    with av.open(str(path), metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        for frame in container.decode(stream):
            pixels = frame.to_ndarray(format="rgb24", threads=1)
            yield np.rot90(pixels, frame.rotation // 90)


def digest(frame: np.ndarray) -> str:
    return f"{frame.shape} {sha256(np.ascontiguousarray(frame)).hexdigest()}"


@pytest.mark.parametrize("name", KINDS)
def test_any_access_gives_the_frames_of_sequential_decoding(name: str, video_file: VideoFactory):
    options, seeks = KINDS[name]
    path = video_file(name, **options)
    truth = np.stack(list(sequential(path)))
    rng = np.random.default_rng(0)
    with PyAVReader(path) as video:
        assert video.num_frames == len(truth) == options.get("num_frames", 48)
        before = video.num_decoded
        for i in reversed(range(len(truth))):
            np.testing.assert_array_equal(video.read([i]), truth[i : i + 1])
        shuffled = rng.integers(0, len(truth), 64)  # unsorted, with repeats
        np.testing.assert_array_equal(video.read(shuffled), truth[shuffled])
        np.testing.assert_array_equal(video.read(range(len(truth))), truth)
        cost = video.num_decoded - before
    if seeks:
        assert cost <= len(truth) * (14 / 2 + 2)
    else:
        assert cost >= len(truth) * (len(truth) + 1) / 2


def test_the_frames_have_the_right_numbers(video_file: VideoFactory):
    with PyAVReader(video_file()) as video:
        levels = video.read([40, 3, 17, 3]).mean((1, 2, 3))
    np.testing.assert_allclose(levels / 4, [40, 3, 17, 3], atol=0.3)


def test_a_late_clip_decodes_only_from_its_key_frame(video_file: VideoFactory):
    path = video_file(num_frames=600, gop=30, b_frames=0, options={"sc_threshold": "0"})
    with PyAVReader(path) as video:
        video.read([570, 575])
        assert video.num_decoded == 6
        video.read([31, 591])
        assert video.num_decoded == 6 + 2 + 22
        video.read([29, 30, 59])  # from one key frame on, without a second seek
        assert video.num_decoded == 6 + 2 + 22 + 60


def damaged_frames(path: Path) -> set[int]:
    """The frames that the decoder reports, those after them up to a key frame, and those of type B
    before them."""
    with av.open(str(path), metadata_errors="ignore") as container:
        frames = [
            (frame.is_corrupt, frame.key_frame, frame.pict_type)
            for frame in container.decode(video=0)
        ]
    damaged: set[int] = set()
    for i, (corrupt, _, _) in enumerate(frames):
        if corrupt:
            first = i
            while first and frames[first - 1][2] == PictureType.B:
                first -= 1
            end = next((k for k in range(i + 1, len(frames)) if frames[k][1]), len(frames))
            damaged.update(range(first, end))
    return damaged


def test_frame_counts_and_errors_are_those_of_the_manifest(shared_data: Path):
    with (shared_data / "clips" / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 45
    rng = np.random.default_rng(0)
    for row in rows:
        path = shared_data / "clips" / row["file"]
        frames = int(row["decoded_frames"])
        # Text that is not UTF-8 is no damage; the manifest agrees.
        if row["error"] and "metadata_errors" not in row["error"]:
            with pytest.raises(DecodeError) as caught, PyAVReader(path):
                pass
            assert caught.value.path == path
            assert "\n" not in str(caught.value)
            if frames:
                assert "is cut short after" in caught.value.cause
            continue
        truth = [digest(frame) for frame in sequential(path)]
        damaged = damaged_frames(path) if "bitflips" in row["file"] else set()
        with PyAVReader(path) as video:
            assert video.num_frames == len(truth) == frames, row["file"]
            for size in (1, 5, 32):
                indices = rng.integers(0, frames, size)
                if damaged.intersection(indices.tolist()):
                    with pytest.raises(DecodeError, match=r"frame \d+ is damaged"):
                        video.read(indices)
                    continue
                read = [digest(frame) for frame in video.read(indices)]
                assert read == [truth[i] for i in indices], row["file"]


def test_the_rotation_tag_is_applied(shared_data: Path):
    for name, shape in {"video_0": (320, 568), "video_90": (568, 320)}.items():
        with PyAVReader(shared_data / "clips" / "real" / f"decord__{name}.mov") as video:
            assert video.read([0]).shape == (1, *shape, 3)


def zero_packet(path: Path, number: int) -> None:
    """Overwrite packet `number` of the file with zeros."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        start, size = packets[number].pos, packets[number].size
    data = bytearray(path.read_bytes())
    data[start : start + size] = bytes(size)
    path.write_bytes(data)


def test_damage_is_an_error_only_if_a_wanted_frame_needs_it(video_file: VideoFactory):
    path = video_file(num_frames=48, gop=12, b_frames=0)
    truth = list(sequential(path))
    zero_packet(path, 20)
    with PyAVReader(path) as video:
        for i in (0, 11, 18, 24, 47):
            np.testing.assert_array_equal(video.read([i])[0], truth[i])
        with pytest.raises(DecodeError, match=r"after \d+ frames") as caught:
            video.read([22])
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "cause"),
    [(b"", "Invalid data"), (b"<html><body>404</body></html>", "Invalid data"), (None, "No such")],
)
def test_a_file_that_is_no_video_is_named(content: bytes | None, cause: str, tmp_path: Path):
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DecodeError, match=cause) as caught:
        PyAVReader(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_packets_without_a_frame_do_not_shift_numbers(tmp_path: Path):
    path = tmp_path / "padded.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libsvtav1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {"svtav1-params": "lp=1", "g": "12"}
        frames = [np.full((48, 64, 3), 4 * i, np.uint8) for i in range(48)]
        packets = [
            packet
            for frame in [*map(av.VideoFrame.from_ndarray, frames), None]
            for packet in stream.encode(frame)
        ]
        for number, packet in enumerate(packets):
            container.mux(packet)
            if number == 5:
                empty = av.Packet(b"\x2a\x06\x01\x00\x64\x00\x32\x80")  # only metadata
                empty.stream, empty.time_base = stream, Fraction(1, 1000)
                empty.pts = empty.dts = 5 * 40 + 20  # between frames 5 and 6
                container.mux(empty)
    truth = np.stack(list(sequential(path)))
    with PyAVReader(path) as video:
        assert video.num_frames == 49
        with pytest.raises(FrameCountError, match="48 frames decode, 49"):
            video.read([8])
        assert video.num_frames == len(truth) == 48
        np.testing.assert_array_equal(video.read([4, 8, 47]), truth[[4, 8, 47]])


@pytest.mark.parametrize("indices", [[-1], [48], []])
def test_numbers_outside_the_video_are_refused(indices: list[int], video_file: VideoFactory):
    with PyAVReader(video_file()) as video, pytest.raises(IndexError):
        video.read(indices)


def resources() -> tuple[int, int, int]:
    """Open files, threads, and resident memory in KiB."""
    status = Path("/proc/self/status").read_text()
    memory = int(status.split("VmRSS:")[1].split()[0])
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), memory


def test_many_reads_leave_no_files_threads_or_memory(video_file: VideoFactory, tmp_path: Path):
    path, bad = video_file(size=(240, 320)), tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")

    def use() -> None:
        with PyAVReader(path) as video:
            video.read([1, 30, 47])
        with pytest.raises(DecodeError):
            PyAVReader(bad)

    gc.collect()  # objects of other tests
    for _ in range(20):
        use()
    files, threads, memory = resources()
    for _ in range(200):
        use()
    files_after, threads_after, memory_after = resources()
    assert (files_after, threads_after) == (files, threads)
    assert memory_after - memory < 4096


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts"])
@pytest.mark.parametrize("fps", [12, 30])
def test_the_rate_is_that_of_the_frames(fps: int, name: str, video_file: VideoFactory):
    with PyAVReader(video_file(name, fps=fps)) as reader:
        assert reader.rate == pytest.approx(fps, rel=0.02)  # mkv has times in milliseconds
