"""Opening one video of a shard by its name, as results and messages write it."""

import tarfile
from pathlib import Path
from typing import BinaryIO

from nlnet.data.decoding.reader import DecodeError
from nlnet.data.shards.members import NamedBytes


def is_present(path: Path) -> bool:
    """Whether there is such a file or folder, or the shard of a name shard/member."""
    return path.exists() or _shard_of(path) is not None


def open_in_shard(path: Path) -> BinaryIO | None:
    """The video with such a path, read into memory; None if the path goes through no shard.

    The names of the shard are searched. Training knows the places of the videos instead. Raises
    DecodeError if the shard has no such video.
    """
    shard = _shard_of(path)
    if shard is None:
        return None
    try:
        with tarfile.open(shard, "r:") as tar:
            member = tar.extractfile(path.relative_to(shard).as_posix())
            if member is not None:
                return NamedBytes(member.read(), str(path))
    except (KeyError, tarfile.TarError, OSError):
        pass
    raise DecodeError(path, f"{shard.name} has no such video that can be read")


def _shard_of(path: Path) -> Path | None:
    """The tar file that a path such as shards/train-000003.tar/a/0.mp4 goes through, if any."""
    return next((each for each in path.parents if each.suffix == ".tar" and each.is_file()), None)
