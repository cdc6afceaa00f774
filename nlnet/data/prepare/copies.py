"""Copies of the videos of a data set that are fast to read: smaller H.264 files, or images.

A copy is written whole or not at all. It says which original it was made from, and how, so that an
interrupted command goes on where it was.
"""

import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nlnet.data.decoding.frame_folder import FrameFolderStream
from nlnet.data.decoding.opening import open_video
from nlnet.data.decoding.reader import DecodeError
from nlnet.data.decoding.stream import FrameStream, PyAVStream
from nlnet.data.encoding import VideoWriter, read_comment, scaled_frame
from nlnet.data.image_encoding import encode_image
from nlnet.data.index.manifest import OK, VideoFacts, file_digest
from nlnet.data.prepare.probe import probe_video, same_file
from nlnet.data.prepare.status import DAMAGED, NOT_COPIED
from nlnet.errors import UserError
from nlnet.files import cannot_write

NOTE = ".nlnet"  # the file in a folder of images that says what it was made from
PARTIAL = ".nlnet_partial"
LEFTOVER = re.compile(rf"\..*{re.escape(PARTIAL)}(\.\d+\.partial)?", re.DOTALL)
IMAGE_NAME = "img_{:05}"


@dataclass(frozen=True)
class CopyForm:
    """What copies are like."""

    size: tuple[int, int] | int | None  # width and height, or the short side; None keeps it
    gop: int  # frames from one key frame to the next
    crf: int  # quality of x264
    images: str | None  # the kind of the images of folders of frames; None writes H.264 files

    def target(self, original: Path) -> Path:
        """The name of the copy of a video."""
        bare = original if original.is_dir() else original.with_suffix("")
        return bare if self.images else bare.with_name(f"{bare.name}.mp4")

    def shown_size(self, facts: VideoFacts) -> tuple[int, int]:
        """Width and height of the copy, which are even. A short side is never enlarged."""
        if isinstance(self.size, tuple):
            return self.size
        width, height = facts.width, facts.height
        short = min(width, height)
        scale = 1.0 if self.size is None else min(self.size / short, 1.0)
        if self.images and scale == 1:
            return width, height
        return max(round(width * scale / 2) * 2, 2), max(round(height * scale / 2) * 2, 2)

    @property
    def note(self) -> str:
        """The form as one word, in the note of each copy."""
        size = "x".join(map(str, self.size)) if isinstance(self.size, tuple) else str(self.size)
        return f"{size}-{self.images}" if self.images else f"{size}-gop{self.gop}-crf{self.crf}"


@dataclass(frozen=True)
class CopyTask:
    """A video to copy, and where to."""

    original: Path
    facts: VideoFacts  # of the original
    copy: Path
    form: CopyForm
    verify: str  # how the copy is read when it is measured
    known: VideoFacts | None = None  # of an earlier copy
    replaces: bool = False  # remove the original after the copy was written


@dataclass(frozen=True)
class WriteFailure:
    """The system refused to write a copy; all others would fail, too."""

    cause: str


def copy_video(task: CopyTask) -> VideoFacts | WriteFailure:
    """Write a copy; the facts of the copy, or of the original with a status that is not ok."""
    note = f"{task.form.note} of {task.facts.sha256[:32]}"
    if task.replaces and _note(task.original).startswith(f"nlnet {task.form.note} "):
        return task.facts  # it was replaced before
    if _note(task.copy) == f"nlnet {note}":
        if task.known is not None and same_file(task.copy, task.known):
            return task.known
        facts = probe_video(task.copy, task.verify)
        if facts.status == OK:
            return facts
    if task.copy != task.original and task.copy.exists() and not _note(task.copy):
        cause = f"{task.copy} is in its place and no copy; move it"
        return replace(task.facts, status=NOT_COPIED, cause=cause)
    hidden = task.copy.with_name(f".{task.copy.name}{PARTIAL}")
    try:
        task.copy.parent.mkdir(parents=True, exist_ok=True)
        _write(task, hidden, f"nlnet {note}")
        facts = probe_video(hidden, task.verify)
        if (facts.status, facts.num_frames) != (OK, task.facts.num_frames):
            cause = f"its copy has {facts.num_frames} frames, {task.facts.num_frames} are expected"
            return replace(task.facts, status=NOT_COPIED, cause=facts.cause or cause)
        _put(hidden, task)
    except DecodeError as error:
        return replace(task.facts, status=DAMAGED, cause=error.cause)
    except OSError as error:
        return WriteFailure(str(cannot_write(task.copy, error)))
    except UserError as error:
        return WriteFailure(str(error))
    finally:
        _remove(hidden)
    return facts


def copy_error(task: CopyTask) -> float:
    """The mean squared error of a copy, over 8 frames and all channels, of values 0 to 255.

    It is compared with the frames of the original at the size of the copy.
    """
    numbers = np.unique(np.linspace(0, task.facts.num_frames - 1, 8).round().astype(int))
    size = task.form.shown_size(task.facts)
    with open_video(task.original) as original, open_video(task.copy) as copy:
        pairs = zip(original.frames(numbers), copy.frames(numbers), strict=True)
        differences = [scaled_frame(a, size).astype(np.float64) - b for a, b in pairs]
    return float(np.mean([(each**2).mean() for each in differences]))


def finish_replacement(copy: Path, original: Path) -> bool:
    """Remove an original if its copy is whole; False if the file is not its copy."""
    if _note(copy).endswith(f" of {file_digest(original)[:32]}"):
        original.unlink()
        return True
    return False


def remove_leftovers(folder: Path) -> None:
    """Remove what a command that was killed left of copies that were not finished."""
    for place, folders, files in os.walk(folder):
        for name in filter(LEFTOVER.fullmatch, [*folders, *files]):
            _remove(Path(place, name))
        folders[:] = [name for name in folders if not LEFTOVER.fullmatch(name)]


def _open(task: CopyTask) -> FrameStream:
    if task.original.is_dir():
        return FrameFolderStream(task.original)
    return PyAVStream(task.original, num_threads=1)


def _write(task: CopyTask, path: Path, note: str) -> None:
    """Write all frames; raises DecodeError if one is damaged, or if frames are missing."""
    size = task.form.shown_size(task.facts)
    count = 0
    with _open(task) as stream:
        if task.form.images is None:
            rate = task.facts.rate or stream.rate
            crf, gop = task.form.crf, task.form.gop
            with VideoWriter(path, rate, crf, size=size, gop=gop, comment=note) as writer:
                for count, frame in enumerate(stream, 1):  # noqa: B007
                    writer.write(frame.pixels(), frame.time)
                _check_count(task, count)
        else:
            _remove(path)
            path.mkdir()
            for count, frame in enumerate(stream, 1):
                name = f"{IMAGE_NAME.format(count)}.{task.form.images}"
                image = encode_image(frame.pixels(), task.form.images, size)
                (path / name).write_bytes(image)
            _check_count(task, count)
            (path / NOTE).write_text(note)


def _check_count(task: CopyTask, count: int) -> None:
    if count != task.facts.num_frames:
        cause = f"{count} frames decode, {task.facts.num_frames} were measured"
        raise DecodeError(task.original, cause)


def _put(hidden: Path, task: CopyTask) -> None:
    """Rename a finished copy, and remove the original if it is to be replaced."""
    if hidden.is_dir():
        _remove(task.copy)
    else:
        with hidden.open("rb") as file:
            os.fsync(file.fileno())
    hidden.replace(task.copy)
    if task.replaces and task.original != task.copy:
        task.original.unlink()


def _note(path: Path) -> str:
    """What a copy says about itself; empty if it is none."""
    if path.is_dir():
        file = path / NOTE
        note = file.read_text(errors="replace") if file.is_file() else ""
    else:
        note = read_comment(path) if path.is_file() else ""
    return note if note.startswith("nlnet ") else ""


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
