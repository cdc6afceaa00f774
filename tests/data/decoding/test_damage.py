"""A damaged frame is named if a wanted frame may depend on it, in every container."""

from pathlib import Path

import av
import numpy as np
import pytest

from nlnet.data.decoding.pyav import PyAVReader
from nlnet.data.decoding.reader import DecodeError
from nlnet.data.decoding.stream import PyAVStream
from tests.data.decoding.videos import (
    FORMATS,
    moving_frames,
    packets,
    write_damaged,
    write_moving_video,
)

SIZE = (96, 128)  # large enough that a packet has more than its headers


def plain_decoding(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("name", FORMATS)
def test_no_wrong_frame_is_given(name: str, tmp_path: Path):
    """Every frame that is read from a damaged file is that of the undamaged one.

    Two exceptions are in the decoders. They may take the damaged bytes for other pixels and notice
    nothing. That of MPEG-4 Part 2, a codec without checks, may notice damage some frames late,
    or lose a frame.
    """
    codec, options = FORMATS[name]
    source = write_moving_video(tmp_path / name, codec=codec, options=options, size=SIZE)
    truth = plain_decoding(source)
    refused = 0
    for packet in (14, 20, 30):
        path = write_damaged(tmp_path / f"damaged_{name}", source, packet)
        is_seen = reports_damage(path)
        for number in range(0, len(truth), 1 if name.endswith("mp4") else 5):
            try:
                with PyAVReader(path) as video:
                    assert codec == "mpeg4" or video.num_frames == len(truth)
                    (pixels,) = video.read([number])
            except (DecodeError, IndexError) as error:
                assert codec == "mpeg4" or isinstance(error, DecodeError)
                assert str(path) in str(error) and "\n" not in str(error)
                refused += 1
                continue
            if is_seen and codec != "mpeg4":
                assert np.array_equal(pixels, truth[number]), number
    assert refused or name == "h264.ts"  # there, these bytes are padding


def reports_damage(path: Path) -> bool:
    try:
        with av.open(str(path)) as container:
            return any(frame.is_corrupt for frame in container.decode(video=0))
    except av.FFmpegError:
        return True


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "h264.ts"])
def test_the_first_damaged_frame_is_named(name: str, tmp_path: Path):
    codec, options = FORMATS[name]
    source = write_moving_video(
        tmp_path / name, codec=codec, options=options | {"bf": "0"}, size=SIZE
    )
    path = write_damaged(tmp_path / f"damaged_{name}", source, 20)
    truth = plain_decoding(source)
    with PyAVReader(path) as video:
        assert video.num_frames == 48
        for number in (0, 19, 24, 47):
            assert np.array_equal(video.read([number])[0], truth[number])
        for number in (20, 21, 23):
            with pytest.raises(DecodeError, match="frame 20 is damaged") as caught:
                video.read([0, number, 30])
            assert str(path) in str(caught.value)
    with PyAVStream(path) as stream, pytest.raises(DecodeError, match="frame 20 is damaged"):
        list(stream)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize(
    "name", ["h264.mp4", "hevc.mp4", "mpeg4.mp4", "h264.mkv", "vp9.webm", "h264.avi", "mpeg4.avi"]
)
def test_a_file_that_is_cut_short_is_named(name: str, share: float, tmp_path: Path):
    codec, options = FORMATS[name]
    path = write_moving_video(
        tmp_path / name, codec=codec, options=options, size=SIZE, faststart=name.endswith("mp4")
    )
    data = path.read_bytes()
    start, _ = packets(path)[int(48 * share)]
    for end in (start, start + 7):  # between two packets, and inside one
        path.write_bytes(data[:end])
        with pytest.raises(DecodeError, match=r"is cut short after \d+ ") as caught:
            PyAVReader(path)
        assert caught.value.path == path
    with path.open("rb") as file, pytest.raises(DecodeError, match="is cut short"):
        PyAVReader(Path("object"), file)
    path.write_bytes(data)
    PyAVReader(path).close()


def test_a_cut_inside_an_audio_packet_is_named(tmp_path: Path):
    """All packets of the video that are there are whole."""
    path = tmp_path / "sound.mp4"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        video = container.add_stream("libx264", rate=25)
        video.height, video.width, video.pix_fmt = *SIZE, "yuv420p"
        audio = container.add_stream("aac", rate=16000)
        audio.layout = "mono"
        for i, pixels in enumerate(moving_frames(48, *SIZE)):
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            noise = rng.standard_normal((1, 640)).astype(np.float32) / 5
            sound = av.AudioFrame.from_ndarray(noise, "fltp", "mono")
            sound.sample_rate, sound.pts = 16000, 640 * i
            container.mux(audio.encode(sound))
        container.mux([*video.encode(None), *audio.encode(None)])
    with av.open(str(path)) as container:
        sounds = sorted(packet.pos for packet in container.demux(audio=0) if packet.size)
    path.write_bytes(path.read_bytes()[: sounds[len(sounds) * 6 // 10] + 3])
    with pytest.raises(DecodeError, match=r"is cut short after \d+ frames; it declares 48"):
        PyAVReader(path)


def test_an_mp4_with_an_edit_list_is_whole(tmp_path: Path):
    """A cut by an edit list: the file has packets that are not shown."""
    source = write_moving_video(tmp_path / "source.mp4")
    path = tmp_path / "cut.mp4"
    with av.open(str(source)) as whole, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.size:
                packet.pts -= 6 * 512  # the first frames are before the start
                packet.dts -= 6 * 512
                packet.stream = stream
                container.mux(packet)
    truth = plain_decoding(path)
    with PyAVReader(path) as video:
        assert video.num_frames == len(truth)
        assert np.array_equal(video.read(range(len(truth))), truth)


def test_a_stream_without_a_decoder_is_named(tmp_path: Path):
    path = write_moving_video(tmp_path / "video.mp4")
    data = path.read_bytes().replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC")
    path.write_bytes(data)
    for opener in (PyAVReader, PyAVStream):
        with pytest.raises(DecodeError, match="no decoder") as caught:
            opener(path)
        assert caught.value.path == path


def test_decoding_has_a_time_limit(tmp_path: Path):
    path = write_moving_video(tmp_path / "video.mp4")
    with (
        PyAVReader(path, decode_seconds=0) as video,
        pytest.raises(DecodeError, match="decode_seconds=0 ") as caught,
    ):
        video.read([5])
    assert caught.value.path == path
