"""Measure one folder of frames, as probe.py measures a video file."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from nlnet.data.decoding.frame_folder import FrameFolderReader
from nlnet.data.decoding.frame_names import frame_names
from nlnet.data.decoding.reader import DecodeError
from nlnet.data.index.manifest import VideoFacts
from nlnet.data.prepare.status import DAMAGED, UNREADABLE

FRAMES = "frames"  # the container of a folder of frames in a manifest


def probe_frames(path: Path, verify: str) -> VideoFacts:
    """The facts of a folder of frames; it never raises, see status and cause.

    The digest is that of all images, one after the other. The first image is decoded, and all of
    them if `verify` is full. A folder has no duration and no rate.
    """
    known = VideoFacts(container=FRAMES, verified=verify)
    try:
        size, modified = folder_state(path)
        known = replace(known, size=size, modified=modified)
        reader = FrameFolderReader(path)
        facts = replace(
            known,
            num_frames=reader.num_frames,
            width=reader.size[0],
            height=reader.size[1],
            codec=reader.codec,
            sha256=_digest(reader.files),
        )
        for i in range(reader.num_frames if verify == "full" else 1):
            try:
                reader.pixels(i)
            except DecodeError as error:
                return replace(facts, status=DAMAGED, cause=error.cause)
    except DecodeError as error:
        return replace(known, status=UNREADABLE, cause=error.cause)
    except OSError as error:
        return VideoFacts(UNREADABLE, error.strerror or "the system cannot read it")
    return facts


def folder_state(path: Path) -> tuple[int, int]:
    """The bytes of the images of a folder, and the time of the last change.

    Raises DecodeError if the folder is no whole video.
    """
    states = [os.stat(path / name) for name in frame_names(path)]
    changes = [state.st_mtime_ns for state in states]
    return sum(state.st_size for state in states), max(changes)


def _digest(files: Iterable[Path]) -> str:
    state = hashlib.sha256()
    for file in files:
        state.update(file.read_bytes())
    return state.hexdigest()
