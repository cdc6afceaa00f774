import csv
import hashlib
import os
from pathlib import Path

import av
import pytest

from nlnet.data.decoding.pyav import PyAVReader
from nlnet.data.decoding.truncation import missing_bytes
from nlnet.data.index.manifest import VideoFacts
from nlnet.data.prepare.probe import probe_video
from tests.conftest import write_gray_video

KINDS = {"mp4": "libx264", "mkv": "libx264", "avi": "mpeg4", "ts": "libx264", "webm": "libvpx-vp9"}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole video of 48 frames in each container."""
    path = tmp_path_factory.mktemp("kinds") / f"whole.{request.param}"
    options = {"movflags": "faststart"} if request.param == "mp4" else None
    return write_gray_video(path, codec=KINDS[request.param], container_options=options)


@pytest.mark.parametrize("verify", ["packets", "full"])
def test_the_facts_are_those_that_decoding_finds(kind: Path, verify: str):
    facts = probe_video(kind, verify)
    with PyAVReader(kind) as reader:
        assert facts.num_frames == reader.num_frames == 48
        assert (facts.height, facts.width) == reader.read([0]).shape[1:3] == (48, 64)
    assert (facts.status, facts.cause, facts.verified) == ("ok", "", verify)
    assert facts.rate == pytest.approx(30, rel=0.03) and facts.duration == pytest.approx(1.6, 0.03)
    assert facts.sha256 == hashlib.sha256(kind.read_bytes()).hexdigest()
    assert facts.size == kind.stat().st_size
    assert facts.key_frames[:1] == (0,) or kind.suffix == ".avi"  # AVI has no times of its frames


def test_key_frames_are_where_the_decoder_says(kind: Path):
    if kind.suffix == ".avi":
        return
    facts = probe_video(kind)
    with av.open(str(kind)) as container:
        frames = list(container.decode(video=0))
    assert facts.key_frames == tuple(i for i, frame in enumerate(frames) if frame.key_frame)
    assert facts.key_times == tuple(frame.pts for frame in frames if frame.key_frame)


@pytest.mark.parametrize("share", [0.5, 0.8, 0.98])
def test_a_cut_file_is_never_ok(kind: Path, share: float, tmp_path: Path):
    data = kind.read_bytes()
    path = tmp_path / kind.name
    path.write_bytes(data[: int(len(data) * share)])
    facts = probe_video(path)
    with kind.open("rb") as file:
        assert missing_bytes(file) == 0
    if kind.suffix == ".ts":  # a stream has no announced end
        assert facts.num_frames < 48
        return
    assert facts.status in ("cut short", "unreadable")
    assert f"{len(data) - path.stat().st_size:,} bytes are missing" in facts.cause


def test_a_cut_between_two_packets_is_seen(tmp_path: Path):
    """Nothing that is left is damaged: only the container says that there was more."""
    whole = write_gray_video(tmp_path / "a.mp4", container_options={"movflags": "faststart"})
    with av.open(str(whole)) as container:
        starts = sorted(packet.pos for packet in container.demux(video=0) if packet.size)
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: starts[28]])
    facts = probe_video(path)
    assert facts.status == "cut short" and 0 < facts.num_frames <= 28


def test_bytes_after_the_end_are_not_missing(tmp_path: Path):
    whole = write_gray_video(tmp_path / "a.mp4")
    for tail in (b"\0" * 64, b"some text that a program appended", b"\0\0\0\x08free"):
        (tmp_path / "b.mp4").write_bytes(whole.read_bytes() + tail)
        with (tmp_path / "b.mp4").open("rb") as file:
            assert missing_bytes(file) == 0


DISPLAY = [(0, False), (90, False), (180, False), (0, True), (90, True), (270, True)]


@pytest.mark.parametrize(("degrees", "mirrored"), DISPLAY)
def test_rotation_and_mirroring_of_the_display_matrix(degrees: int, mirrored: bool, tmp_path: Path):
    plain = write_gray_video(tmp_path / "plain.mp4", num_frames=4)
    path = tmp_path / "turned.mp4"
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(degrees, hflip=mirrored)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    facts = probe_video(path)
    assert facts.mirrored == mirrored
    assert (facts.width, facts.height) == ((48, 64) if degrees % 180 else (64, 48))


def test_what_is_no_video_is_named(tmp_path: Path):
    def probe(name: str, content: bytes) -> VideoFacts:
        (tmp_path / name).write_bytes(content)
        return probe_video(tmp_path / name)

    assert "empty" in probe("empty.mp4", b"").cause
    assert probe("text.mp4", b"this is no video\n" * 40).status == "unreadable"
    whole = write_gray_video(tmp_path / "a.mp4").read_bytes()
    unknown = whole.replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC")
    assert "no decoder" in probe("unknown.mp4", unknown).cause
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "regular file" in probe_video(tmp_path / "pipe.mp4").cause
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    assert probe_video(tmp_path / "loop.mp4").status == "unreadable"
    assert probe_video(tmp_path / "absent.mp4").status == "unreadable"


def test_full_verification_finds_damage_inside(tmp_path: Path):
    path = write_gray_video(tmp_path / "a.mp4", size=(96, 128), options={"qp": "10"})
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][20]
        at = packet.pos + packet.size // 3
    data = bytearray(path.read_bytes())
    for i in range(at, at + 8):
        data[i] ^= 0x5A
    path.write_bytes(data)
    facts = probe_video(path, "full")
    assert facts.status == "damaged" and facts.cause


def test_real_files_are_as_their_manifest_says(shared_data: Path):
    root = shared_data / "clips"
    with (root / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 40
    for row in rows:
        facts = probe_video(root / row["file"])
        assert facts.num_frames == int(row["decoded_frames"]), row["file"]
        name = Path(row["file"]).name
        if name.startswith("truncated"):
            assert facts.status in ("cut short", "unreadable"), name
        elif int(row["decoded_frames"]) and not name.startswith("bitflips"):
            assert facts.status == "ok", (name, facts.cause)
            assert len(facts.sha256) == 64 and facts.sha256.startswith(row["sha256"])
        elif not int(row["decoded_frames"]):
            assert facts.status == "unreadable", name
