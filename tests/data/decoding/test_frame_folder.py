"""Folders of frames are read like videos, and what is wrong with them is named."""

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from nlnet.data.decoding.frame_folder import FrameFolderReader, FrameFolderStream
from nlnet.data.decoding.opening import choose_decoder, open_video, video_opener
from nlnet.data.decoding.probing import PROBES, probe_files
from nlnet.data.decoding.pyav import PyAVReader
from nlnet.data.decoding.reader import DecodeError
from nlnet.data.image_encoding import encode_image
from tests.data.decoding.videos import moving_frames

VideoFactory = Callable[..., Path]
NAMES = ["img_{:05}.jpg", "image_{:05}.jpg", "{:06}.jpg", "frame{:06}.png", "v1-{}.jpeg"]


def write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_image(pixels, "png" if path.suffix == ".png" else "jpg"))


def write_folder(folder: Path, frames: Sequence[np.ndarray], name: str, first: int = 1) -> Path:
    for i, pixels in enumerate(frames, first):
        write_image(folder / name.format(i), pixels)
    return folder


def cause(folder: Path, numbers: Sequence[int] = (0,)) -> str:
    with pytest.raises(DecodeError) as caught:
        open_video(folder).read(numbers)
    assert caught.value.path == folder and "\n" not in str(caught.value)
    return caught.value.cause


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_frames_are_read_in_the_order_of_their_numbers(name: str, first: int, tmp_path: Path):
    """The gray level of a frame tells its number; numbers without zeros do not sort as text."""
    levels = [20 * i for i in range(12)]
    frames = [np.full((32, 48, 3), level, np.uint8) for level in levels]
    folder = write_folder(tmp_path / "v.1", frames, name, first)
    (folder / ".img_00099.jpg").write_bytes(b"")  # hidden
    (folder / "notes.txt").write_text("x")
    with open_video(folder) as reader:
        assert reader.num_frames == 12 and reader.rate is None
        read = reader.read([11, 0, 3, 3])
    assert read.shape == (4, 32, 48, 3)
    assert read.mean((1, 2, 3)) == pytest.approx([220, 0, 60, 60], abs=1)


def test_lossless_images_have_the_frames_of_the_video(video_file: VideoFactory, tmp_path: Path):
    """Bit for bit on every processor: the frames that were decoded here are stored without loss."""
    path = video_file("v.mp4", num_frames=9)
    with PyAVReader(path) as video:
        frames = video.read(range(9))
    folder = write_folder(tmp_path / "png", frames, "frame{:06}.png")
    lossy = write_folder(tmp_path / "jpg", frames, "img_{:05}.jpg")
    numbers = [8, 2, 2, 5]
    with open_video(folder) as reader:
        np.testing.assert_array_equal(reader.read(numbers), frames[numbers])
    with FrameFolderStream(folder) as stream:
        np.testing.assert_array_equal([frame.pixels() for frame in stream], frames)
        assert stream.rate == 25
    with FrameFolderStream(folder, 10) as stream:
        assert [frame.time for frame in stream] == pytest.approx(np.arange(9) / 10)
    with open_video(lossy) as reader:
        difference = np.abs(reader.read(numbers).astype(int) - frames[numbers])
    assert difference.mean() < 1


def test_images_of_other_sizes_get_the_size_of_the_first(tmp_path: Path):
    big, small = (moving_frames(3, *size) for size in ((64, 96), (32, 48)))
    folder = write_folder(tmp_path / "v", [big[0], small[1], big[2]], "img_{:05}.png")
    with FrameFolderReader(folder) as reader:
        assert reader.size == (96, 64)
        np.testing.assert_array_equal(reader.read([0, 2]), big[[0, 2]])
    with FrameFolderReader(folder) as reader:  # also if the first frame is not read
        assert reader.read([1]).shape == (1, 64, 96, 3)


def test_the_frames_are_those_of_the_usual_prefix(tmp_path: Path):
    frames = [np.full((16, 16, 3), 200, np.uint8)] * 2
    folder = write_folder(tmp_path / "v", frames, "img_{:05}.png")
    for other in ("flow_x_{:05}.jpg", "flow_y_{:05}.jpg"):
        write_folder(folder, [0 * frames[0]] * 3, other)
    assert open_video(folder).read([0, 1]).min() == 200
    for file in folder.glob("img_*"):
        file.unlink()
    assert cause(folder) == "has frames of two kinds, flow_x_00001.jpg and flow_y_00001.jpg"


def test_faults_of_a_folder_are_named(tmp_path: Path):
    frames = list(moving_frames(6, 32, 48))

    def folder(name: str, pattern: str = "img_{:05}.jpg", first: int = 1) -> Path:
        return write_folder(tmp_path / name, frames, pattern, first)

    (folder("missing") / "img_00003.jpg").unlink()
    where = "between img_00002.jpg and img_00004.jpg"
    assert cause(tmp_path / "missing") == f"a frame is missing {where}"
    (tmp_path / "missing" / "img_00005.jpg").unlink()
    assert cause(tmp_path / "missing") == f"2 frames are missing, the first {where}"
    assert "first frame is img_00002.jpg" in cause(folder("late", first=2))
    write_image(folder("twice") / "img_1.jpg", frames[0])
    assert cause(tmp_path / "twice") == "img_00001.jpg and img_1.jpg have the same number"
    (tmp_path / "none").mkdir()
    assert "has no frame" in cause(tmp_path / "none")
    cut = folder("cut") / "img_00002.jpg"
    cut.write_bytes(cut.read_bytes()[:-20])
    assert cause(cut.parent, [1]) == "img_00002.jpg is not a whole image (its end is missing)"
    cut.write_bytes(b"")
    assert cause(cut.parent, [1]) == "img_00002.jpg is not a whole image (the file is empty)"
    assert open_video(cut.parent).read([0, 5]).shape == (2, 32, 48, 3)  # the others are whole
    text = folder("text", "{}.png") / "1.png"
    text.write_text("no image " * 9)
    assert cause(text.parent).startswith("1.png is not a whole image (")


def test_no_cut_and_no_change_of_a_png_is_silent(tmp_path: Path):
    """PNG has check sums; each damage is an error, or changes nothing that is shown."""
    pixels = moving_frames(1, 32, 48)[0]
    folder = write_folder(tmp_path / "v", [pixels], "{}.png")
    whole = (folder / "1.png").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        (folder / "1.png").write_bytes(data)
        try:
            np.testing.assert_array_equal(open_video(folder).read([0])[0], pixels)
        except DecodeError as error:
            assert error.cause.startswith("1.png is not a whole image (")
    for size in rng.integers(0, len(whole) - 12, 20):  # the last chunk holds nothing
        (folder / "1.png").write_bytes(whole[:size])
        assert "1.png is not a whole image" in cause(folder)


def test_probes_read_folders(tmp_path: Path):
    frames = list(moving_frames(3, 32, 48))
    good = write_folder(tmp_path / "good", frames, "{}.png")
    bad = write_folder(tmp_path / "bad", frames, "{}.png")
    (bad / "3.png").write_bytes(b"")
    (tmp_path / "none").mkdir()
    folders = [good, bad, tmp_path / "none"]
    for name, broken in (("open", ["none"]), ("decode", ["bad", "none"])):
        probe = PROBES[name]
        assert probe is not None
        assert [Path(f.path).name for f in probe_files(folders, probe)] == broken


def test_the_opener_of_training_reads_files_and_folders_in_other_processes(
    video_file: VideoFactory, tmp_path: Path
):
    opener = pickle.loads(pickle.dumps(video_opener(choose_decoder("pyav"), 60)))
    folder = write_folder(tmp_path / "v", moving_frames(3, 32, 48), "{}.png")
    with opener(folder) as reader, opener(video_file("v.mp4", num_frames=5)) as video:
        assert (reader.num_frames, video.num_frames) == (3, 5)
