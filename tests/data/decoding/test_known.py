"""With what a manifest knows, a reader decodes fewer frames, and gives the same ones."""

import os
from pathlib import Path

import numpy as np
import pytest

from nlnet.data.decoding.known import KnownFrames
from nlnet.data.decoding.pyav import PyAVReader
from nlnet.data.decoding.reader import DecodeError, FrameCountError
from nlnet.data.prepare.probe import probe_video
from tests.data.decoding.videos import FORMATS, write_damaged, write_moving_video

GOP = 12
X265 = {"x265-params": f"log-level=none:pools=none:keyint={GOP}"}
OPEN = f"open-gop=1:keyint={GOP}:scenecut=0:b-adapt=0:cpu-independent=1"
REFRESH = f"intra-refresh=1:keyint={GOP}:cpu-independent=1"
# With each file, whether prepare finds entries in it.
FILES = {
    **{
        name: (*form, name.endswith((".avi", ".ts", "mpeg4.mp4"))) for name, form in FORMATS.items()
    },
    "mpeg4.mkv": ("mpeg4", {"bf": "2"}, True),
    "mpeg4.ts": ("mpeg4", {"bf": "2"}, True),
    "mpeg4_b.avi": ("mpeg4", {"bf": "2"}, True),
    "mpeg2.ts": ("mpeg2video", {"bf": "2"}, True),
    "mpeg2.mpg": ("mpeg2video", {"bf": "2"}, True),
    "hevc.ts": ("libx265", X265, True),
    "vp9.avi": ("libvpx-vp9", {"lag-in-frames": "0"}, True),
    "vp8.webm": ("libvpx", {"lag-in-frames": "12"}, True),
    "open_gop.ts": ("libx264", {"bf": "3", "x264-params": OPEN}, None),
    "refresh.ts": ("libx264", {"x264-params": REFRESH}, None),
    "refresh.avi": ("libx264", {"bf": "0", "x264-params": REFRESH}, None),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, KnownFrames]]:
    """Each file, and what is known about it."""
    folder = tmp_path_factory.mktemp("known")
    made = {}
    for name, (codec, options, _) in FILES.items():
        path = write_moving_video(folder / name, codec=codec, options=options, gop=GOP)
        made[name] = (path, known_frames(path))
    return made


def known_frames(path: Path) -> KnownFrames:
    facts = probe_video(path)
    assert facts.status == "ok", facts
    entries = np.array(facts.entry_frames, np.int32), np.array(facts.entry_times, np.int64)
    return KnownFrames(facts.size, facts.modified, facts.num_frames, *entries)


@pytest.mark.parametrize("name", FILES)
def test_the_frames_are_those_of_a_reader_that_knows_nothing(
    name: str, files: dict[str, tuple[Path, KnownFrames]]
):
    """Equal bits: both decode the same packets, and entries were compared bit by bit."""
    path, known = files[name]
    with PyAVReader(path) as plain:
        count, rate, truth = plain.num_frames, plain.rate, plain.read(range(plain.num_frames))
    assert known.num_frames == count == 48
    has_entries = FILES[name][2]
    assert has_entries is None or (len(known.entry_frames) > 0) == has_entries
    rng = np.random.default_rng(0)
    with PyAVReader(path, known=known) as video:
        assert (video.num_frames, video.rate, video.num_decoded) == (count, rate, 0)
        for size in (1, 1, 1, 2, 2, 8, 48):
            wanted = rng.integers(0, count, size)
            np.testing.assert_array_equal(video.read(wanted), truth[wanted])
        for number in (0, 11, 12, 13, 47):
            np.testing.assert_array_equal(video.read([number]), truth[[number]])
    for number in (0, 30, 47):  # the first reading after opening
        with PyAVReader(path, known=known) as video:
            np.testing.assert_array_equal(video.read([number]), truth[[number]])


def test_a_clip_of_an_avi_file_decodes_what_it_needs(tmp_path: Path):
    path = write_moving_video(tmp_path / "a.avi", codec="mpeg4", num_frames=120)
    known = known_frames(path)
    assert known.entry_frames.tolist() == list(range(12, 120, 12))
    with PyAVReader(path, known=known) as video:
        video.read([5, 9])
        assert video.num_decoded == 10  # from the start, and not further
        video.read([90, 94])
        assert video.num_decoded == 10 + 11  # from frame 84 on
        video.read([90, 97, 119])
        assert video.num_decoded == 21 + 7 + 2 + 12  # from frames 84, 96 and 108 on
        video.read([20, 23, 24])
        assert video.num_decoded == 42 + 13  # from frame 12 on


def test_a_file_that_was_replaced_is_measured_again(tmp_path: Path):
    path = write_moving_video(tmp_path / "a.avi", codec="mpeg4", num_frames=48)
    known = known_frames(path)
    write_moving_video(path, codec="mpeg4", num_frames=30)
    with PyAVReader(path, known=known) as video:
        assert video.num_frames == 30
    status = path.stat()
    # As large as before, but of another time.
    with PyAVReader(path, known=known._replace(size=status.st_size)) as video:
        assert video.num_frames == 30


def test_wrong_numbers_are_found(tmp_path: Path):
    path = write_moving_video(tmp_path / "a.avi", codec="mpeg4", num_frames=48)
    known = known_frames(path)
    with PyAVReader(path) as plain:
        truth = plain.read([40])
    with PyAVReader(path, known=known._replace(num_frames=60)) as video:
        with pytest.raises(FrameCountError, match="48 frames decode, not 60"):
            video.read([40, 50])
        assert video.num_frames == 48
        np.testing.assert_array_equal(video.read([40]), truth)
    absent = known._replace(entry_times=known.entry_times + 10_000)
    with PyAVReader(path, known=absent) as video:
        np.testing.assert_array_equal(video.read([40]), truth)


def test_damage_that_came_later_is_named(tmp_path: Path):
    """The disk changed bytes, but not the time of the file."""
    path = write_moving_video(tmp_path / "a.avi", options=FORMATS["h264.avi"][1])
    known = known_frames(path)
    write_damaged(path, path, 40)
    os.utime(path, ns=(known.modified, known.modified))
    assert known.describes(path)
    with PyAVReader(path, known=known) as video:
        video.read([30])
        with pytest.raises(DecodeError, match="frame 40 is damaged"):
            video.read([30, 44])


def test_entries_that_could_not_be_tried_in_time_are_left_out(tmp_path: Path):
    path = write_moving_video(tmp_path / "a.avi", codec="mpeg4", num_frames=48)
    facts = probe_video(path, seconds=0)
    assert facts.num_frames == 48 and facts.entry_frames == ()


def test_frames_that_an_index_has_lost_are_named(tmp_path: Path):
    path = write_moving_video(tmp_path / "a.mkv", num_frames=24)
    known = known_frames(path)
    PyAVReader(path, known=known).close()
    with pytest.raises(DecodeError, match="has 24 frames, but had 30 before"):
        PyAVReader(path, known=known._replace(num_frames=30))
