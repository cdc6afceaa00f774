"""Faulty files end in frames or in a named error: no crash, no hang, no file left open."""

import io
import os
import struct
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nlnet.bench.memory import peak_resident_bytes, reset_peak, resident_bytes
from nlnet.data.decoding.container import open_video_stream
from nlnet.data.decoding.opening import open_video
from nlnet.data.decoding.reader import DecodeError, FrameCountError
from nlnet.data.decoding.truncation import check_whole
from tests.data.decoding.videos import write_moving_video

LIMIT = 30.0  # seconds for one file; the machine may be busy
CODECS = {
    "h264": ("libx264", {"bf": "2", "x264-params": "cpu-independent=1"}),
    "hevc": ("libx265", {"x265-params": "log-level=none:pools=none:keyint=12"}),
    "mpeg4": ("mpeg4", {}),
    "mpeg2": ("mpeg2video", {"bf": "2"}),
}
CONTAINERS = ("mp4", "mkv", "avi", "ts")
FILES = [
    (codec, suffix)
    for codec in CODECS
    for suffix in CONTAINERS
    if (codec, suffix) != ("hevc", "avi")  # FFmpeg cannot write it
]


def outcome(path: Path, **options) -> int | str:
    """The number of frames that were read, or the cause of the error."""
    start = time.monotonic()
    try:
        with open_video(path, **options) as video:
            for attempt in range(2):
                try:
                    count = sum(1 for _ in video.frames(range(video.num_frames)))
                    break
                except FrameCountError:
                    assert attempt == 0, "the second count is exact"
            assert count == video.num_frames
            assert video.read([0, count - 1]).dtype == np.uint8
            return count
    except DecodeError as error:
        assert error.path == path and error.cause and "\n" not in error.cause
        return error.cause
    finally:
        assert time.monotonic() - start < LIMIT


@pytest.fixture(autouse=True)
def no_file_stays_open() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) <= before  # those of earlier tests may be closed


def video(path: Path) -> Path:
    return write_moving_video(path, num_frames=24)


def audio_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux([*stream.encode(frame), *stream.encode(None)])


def without_duration(path: Path) -> None:
    """As a live stream is recorded: no length, no index."""
    source = video(path.with_name("whole.mp4"))
    with (
        av.open(str(source)) as whole,
        av.open(str(path), "w", options={"live": "1"}) as container,
    ):
        stream = container.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.size:
                packet.stream = stream
                container.mux(packet)


def huge_header(path: Path) -> None:
    """A box of 2 GB that is not there."""
    data = video(path.with_name("whole.mp4")).read_bytes()
    path.write_bytes(data[:32] + (2**31 - 1).to_bytes(4, "big") + b"moov" + bytes(100))


def huge_table(path: Path) -> None:
    """A table of 500,000 packets of a byte each, in a file of some kilobytes."""
    data = bytearray(video(path.with_name("whole.mp4")).read_bytes())
    count = (500_000).to_bytes(4, "big")
    sizes, chunks = data.index(b"stsz") + 8, data.index(b"stsc") + 8
    data[sizes : sizes + 8] = (1).to_bytes(4, "big") + count
    data[chunks + 8 : chunks + 12] = count
    path.write_bytes(data)


def huge_picture(path: Path) -> None:
    """A GIF of 40 bytes that announces 16,000 x 16,000 pixels."""
    side = 2 * (16_000).to_bytes(2, "little")
    image = b"," + bytes(4) + side + b"\x00\x02\x02\x4c\x01\x00;"
    path.write_bytes(b"GIF89a" + side + b"\x80\x00\x00" + bytes(6) + image)


def huge_image(path: Path) -> None:
    """A folder of frames whose PNG image has 900 million pixels in a megabyte."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))

    path.mkdir()
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(10_000_000))  # ten megabytes in ten kilobytes
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    (path / "img_00001.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def symlink_loop(path: Path) -> None:
    path.symlink_to(path.name)


# What makes a file, and its outcome: the number of frames, or a part of the error.
SPECIAL: dict[str, tuple[str, Callable[[Path], object], int | str]] = {
    "empty": ("a.mp4", lambda path: path.write_bytes(b""), "Invalid data"),
    "text": ("a.mp4", lambda path: path.write_text("<html>404</html>"), "Invalid data"),
    "zeros": ("a.mp4", lambda path: path.write_bytes(bytes(10_000)), "Invalid data"),
    "audio only": ("a.mp4", audio_only, "no video stream"),
    "no duration": ("a.mkv", without_duration, 24),
    "huge header": ("a.mp4", huge_header, ""),
    "huge table": ("a.mp4", huge_table, "is cut short after"),
    "huge picture": ("a.gif", huge_picture, "16000 x 16000 pixels are too large"),
    "huge image": ("frames", huge_image, "is not a whole image"),
    "wrong extension": (
        "a.avi",
        lambda path: video(path.with_name("b.mp4")).rename(path),
        24,
    ),
    "named pipe": ("a.mp4", os.mkfifo, "not a regular file"),
    "folder": ("a.mp4", Path.mkdir, "has no frame"),
    "symlink loop": ("a.mp4", symlink_loop, "symbolic links"),
    "absent": ("a.mp4", lambda path: None, "No such file"),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_a_special_file_has_its_outcome(name: str, tmp_path: Path):
    """In less than 100 MB: a file of kilobytes can announce gigabytes."""
    file_name, make, expected = SPECIAL[name]
    make(tmp_path / file_name)
    reset_peak()
    before = resident_bytes()
    found = outcome(tmp_path / file_name)
    assert peak_resident_bytes() - before < 100e6
    if isinstance(expected, int):
        assert found == expected
    else:
        assert isinstance(found, str) and expected in found


def test_a_name_that_is_not_utf_8_is_read(tmp_path: Path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))
    video(tmp_path / "a.mp4").rename(path)
    assert outcome(path) == 24


@contextmanager
def another_user() -> Iterator[None]:
    """Root may read every file."""
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_file_without_permission_is_named():
    with tempfile.TemporaryDirectory() as folder:  # the folders of pytest are those of its user
        Path(folder).chmod(0o755)
        path = video(Path(folder) / "a.mp4")
        path.chmod(0)
        with another_user():
            assert outcome(path) == "Permission denied"


def test_a_file_that_vanishes_after_it_was_opened_is_named(tmp_path: Path):
    path = video(tmp_path / "a.avi")
    container, stream = open_video_stream(path, path)
    with container:
        path.unlink()
        with pytest.raises(DecodeError, match="No such file") as caught:
            check_whole(path, None, container, stream)
    assert caught.value.path == path


class Failing(io.BytesIO):
    """A file on a network that is lost after some calls of `read`."""

    calls = 0

    def read(self, size: int | None = -1) -> bytes:
        self.calls -= 1
        if self.calls < 0:
            raise ConnectionResetError("the server has closed the connection")
        return super().read(size)


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_a_file_that_fails_while_it_is_read_is_named(suffix: str, tmp_path: Path):
    path = write_moving_video(tmp_path / f"a.{suffix}", num_frames=24, size=(96, 128))
    outcomes = set()
    for calls in range(12):
        file = Failing(path.read_bytes())
        file.calls = calls
        try:
            with open_video(path, file) as reader:
                count = sum(1 for _ in reader.frames(range(reader.num_frames)))
            outcomes.add(str(count))
        except DecodeError as error:
            outcomes.add(error.cause)
    assert all("closed the connection" in each or each == "24" for each in outcomes), outcomes
    assert len(outcomes) > 1


def test_a_long_video_ends_at_its_time_limit(tmp_path: Path):
    path = write_moving_video(tmp_path / "a.avi", codec="mpeg4", num_frames=400)
    found = outcome(path, decode_seconds=0.005)
    assert isinstance(found, str) and "decode_seconds=0.005" in found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], bytes]:
    """Each codec in each container."""
    folder = tmp_path_factory.mktemp("files")
    made = {}
    for codec, suffix in FILES:
        encoder, options = CODECS[codec]
        path = write_moving_video(
            folder / f"{codec}.{suffix}", codec=encoder, options=options, num_frames=24
        )
        made[codec, suffix] = path.read_bytes()
    return made


@pytest.mark.parametrize(("codec", "suffix"), FILES)
def test_a_file_that_is_cut_anywhere(
    codec: str, suffix: str, files: dict[tuple[str, str], bytes], tmp_path: Path
):
    data = files[codec, suffix]
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(data)
    assert outcome(path) == 24
    for tenth in range(10):
        path.write_bytes(data[: len(data) * tenth // 10])
        found = outcome(path)
        # Only MPEG-TS may be cut: it is a stream that has no end of its own.
        assert isinstance(found, str) or suffix == "ts"


def changed(content: bytes, seed: int, count: int) -> bytes:
    """Content with other bytes at random places."""
    rng = np.random.default_rng(seed)
    data = np.frombuffer(content, np.uint8).copy()
    data[rng.integers(0, len(data), count)] = rng.integers(0, 256, count)
    return data.tobytes()


@pytest.mark.parametrize(("codec", "suffix"), FILES)
def test_200_random_bytes_are_changed(
    codec: str, suffix: str, files: dict[tuple[str, str], bytes], tmp_path: Path
):
    for seed in range(8):
        path = tmp_path / f"flipped{seed}.{suffix}"
        path.write_bytes(changed(files[codec, suffix], seed, 200))
        outcome(path)


@pytest.mark.parametrize(("codec", "suffix"), [file for file in FILES if file[1] != "ts"])
def test_no_declared_frame_is_lost_in_silence(
    codec: str, suffix: str, files: dict[tuple[str, str], bytes], tmp_path: Path
):
    """A file with damaged bytes is named, or gives a frame for each packet that it still declares.

    MPEG-TS declares no packets; a packet of it that is lost can leave no trace.
    """
    for seed in range(12):
        path = tmp_path / f"damaged{seed}.{suffix}"
        path.write_bytes(changed(files[codec, suffix], seed, 4))
        found = outcome(path)
        if isinstance(found, int):
            assert found == declared(path)


def declared(path: Path) -> int:
    """The packets of a file that are to be shown; those in the list of an AVI file."""
    with av.open(str(path), metadata_errors="ignore") as container:
        if path.suffix == ".avi":
            return sum(entry.size > 0 for entry in container.streams.video[0].index_entries)
        packets = container.demux(video=0)
        return sum(packet.size > 0 and not packet.is_discard for packet in packets)


CHANGES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=40)


def fuzz(files: dict[tuple[str, str], bytes], folder: Path, count: int) -> None:
    """Change bytes, remove a part and repeat a part of any of the files."""

    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(FILES), CHANGES, st.floats(0, 1), st.floats(0, 0.3), st.booleans())
    def check(
        file: tuple[str, str],
        changes: list[tuple[float, int]],
        start: float,
        share: float,
        is_repeated: bool,
    ) -> None:
        data = bytearray(files[file])
        for place, value in changes:
            data[int(place * (len(data) - 1))] = value
        first = int(start * len(data))
        part = data[first : first + int(share * len(data))]
        data[first : first + len(part)] = 2 * part if is_repeated else b""
        path = folder / f"fuzzed.{file[1]}"
        path.write_bytes(data)
        outcome(path)

    check()


def test_fuzzed_files_have_an_outcome(files: dict[tuple[str, str], bytes], tmp_path: Path):
    fuzz(files, tmp_path, 150)


@pytest.mark.slow
def test_fuzzed_files_have_an_outcome_for_a_minute(
    files: dict[tuple[str, str], bytes], tmp_path: Path
):
    fuzz(files, tmp_path, 5000)
