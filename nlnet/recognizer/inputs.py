"""The forms in which a user gives a video, and how each of them is read."""

import io
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from nlnet.data.decoding.array import ArrayReader
from nlnet.data.decoding.frame_folder import FrameFolderStream
from nlnet.data.decoding.opening import open_video
from nlnet.data.decoding.reader import VideoReader
from nlnet.data.decoding.stream import ArrayStream, FrameStream, PyAVStream, is_live
from nlnet.data.index.files import frame_folders, is_frame_folder, is_video
from nlnet.data.index.text import read_text
from nlnet.data.shards.by_name import is_present, open_in_shard
from nlnet.demo import DEMO, VIDEOS
from nlnet.errors import UserError

# A file, a folder of frames, or shard/member; a camera (/dev/video0) or a URL (rtsp://...); frames
# uint8 RGB (T, H, W, 3); or an open binary file.
Video = str | Path | np.ndarray | BinaryIO


def video_name(video: Video) -> str:
    """The name of a video in messages and results."""
    if isinstance(video, str | Path):
        return str(video)
    return "array" if isinstance(video, np.ndarray) else "file object"


def open_reader(video: Video, live_frames: int) -> VideoReader:
    """Open a video for access to any frame.

    Of a camera or a URL, the first `live_frames` frames are read.

    Raises:
        UserError: there is no such video, or it cannot be read.
    """
    if isinstance(video, np.ndarray):
        return ArrayReader(video)
    name = Path(video_name(video))
    if not isinstance(video, str | Path):
        return open_video(name, _seekable(video))
    if is_live(video):
        with PyAVStream(video) as stream:
            frames = [frame.pixels() for frame in islice(stream, live_frames)]
        return ArrayReader(np.stack(frames), name)
    return open_video(_existing(video))


def open_stream(video: Video, frame_rate: float | None = None) -> FrameStream:
    """Open a video whose frames are read once, in order.

    Args:
        frame_rate: frames per second of an array, or of a folder of frames (default 25), which
            have no times of their own

    Raises:
        UserError: there is no such video, or it cannot be opened.
    """
    if isinstance(video, np.ndarray):
        if frame_rate is None or frame_rate <= 0:
            raise UserError("an array of frames has no times; give frame_rate=FRAMES_PER_SECOND")
        return ArrayStream(video, frame_rate)
    if not isinstance(video, str | Path):
        return PyAVStream(video_name(video), video)
    if is_live(video):
        return PyAVStream(video)
    path = _existing(video)
    if path.is_dir():
        return FrameFolderStream(path, frame_rate)
    return PyAVStream(path, None if path.is_file() else open_in_shard(path))


def find_videos(sources: Sequence[str | Path]) -> list[str | Path]:
    """Replace folders by the videos below them, lists (.txt) by their lines, and the word `demo`.

    A folder without video files gives the folders of frames below it, or itself. A line of a list
    is a path, relative to the list. It may end with a label, or with a number of frames and a
    label, which are not used.
    Other sources stay as they are.

    Raises:
        UserError: a folder or a list names no video, or does not exist.
    """
    found: list[str | Path] = []
    for source in sources:
        path = Path(source)
        if str(source) == DEMO:
            found += VIDEOS
        elif path.is_dir():
            found += _videos_below(path)
        elif path.suffix == ".txt":
            found += _listed_videos(path)
        else:
            found.append(source)
    return found


def _videos_below(folder: Path) -> list[Path]:
    videos = sorted(path for path in folder.rglob("*") if is_video(path) and path.is_file())
    if not videos:
        videos = [folder] if is_frame_folder(folder) else frame_folders(folder)
    if not videos:
        raise UserError(f"{folder}: has no video; give a folder that contains video files")
    return videos


def _listed_videos(listing: Path) -> list[Path]:
    if not listing.is_file():
        raise UserError(f"{listing}: no such file; give the path of a list of videos")
    videos = []
    for line in filter(None, map(str.strip, read_text(listing).splitlines())):
        names = (line, line.rsplit(maxsplit=1)[0], line.rsplit(maxsplit=2)[0])
        paths = [listing.parent / name for name in names]
        found = (path for path in paths if path.is_file() or is_frame_folder(path))
        videos.append(next(found, paths[0]))
    if not videos:
        raise UserError(f"{listing}: lists no video; write one path in each line")
    return videos


def _existing(video: str | Path) -> Path:
    path = Path(video)
    if not is_present(path):
        raise UserError(f"{path}: no such file; give the path of a video")
    return path


def _seekable(file: BinaryIO) -> BinaryIO:
    """Random access needs a file in which one can go back; others are read into memory."""
    return file if file.seekable() else io.BytesIO(file.read())
