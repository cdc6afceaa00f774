"""The videos in shards, as open files."""

import hashlib
import io
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from nlnet.data.decoding.reader import DecodeError
from nlnet.data.shards.store import ShardError, ShardStore

WHOLE = 32 << 20  # bytes; a video up to this size is read at once, and its digest is compared
PART = 1 << 20  # bytes that are read at once of a larger video


class MemberTable(NamedTuple):
    """Where N videos are. Arrays, so that forked workers share the memory."""

    shard: np.ndarray  # (N,) int32, the number of the shard
    offset: np.ndarray  # (N,) int64, of the first byte in the shard
    size: np.ndarray  # (N,) int64, bytes
    sha256: np.ndarray  # (N, 32) uint8


class ShardMembers:
    """N videos in shards."""

    def __init__(self, store: ShardStore, table: MemberTable) -> None:
        self._store = store
        self._table = table
        self._verified = np.zeros(len(table.size), bool)  # videos that this process has compared

    def select(self, rows: np.ndarray) -> "ShardMembers":
        """The videos of these rows."""
        return ShardMembers(self._store, MemberTable(*(array[rows] for array in self._table)))

    def open(self, i: int, path: Path) -> BinaryIO:
        """Video i as a file, which needs no closing; `path` is its name.

        Raises DecodeError if its bytes cannot be read, or are not those that were written. Reading
        a large video later can raise it, too.
        """
        shard, size = int(self._table.shard[i]), int(self._table.size[i])
        part = _Part(self._store, path, shard, int(self._table.offset[i]), size)
        if size > WHOLE:
            return io.BufferedReader(part, PART)
        data = part.read_all()
        if not self._verified[i]:
            if hashlib.sha256(data).digest() != self._table.sha256[i].tobytes():
                raise DecodeError(path, "its bytes in the shard have changed; copy the shard again")
            self._verified[i] = True
        return _Bytes(data, str(path))


class _Bytes(io.BytesIO):
    """Bytes with a name, from which FFmpeg guesses the format as it does for a file."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


class _Part(io.RawIOBase):
    """A range of bytes of a shard, as a file that can seek."""

    def __init__(self, store: ShardStore, path: Path, shard: int, offset: int, size: int) -> None:
        super().__init__()
        self.name = str(path)
        self._store = store
        self._path = path
        self._shard = shard
        self._offset = offset
        self._size = size
        self._position = 0

    def read_all(self) -> bytes:
        """All bytes; raises DecodeError."""
        return self._read(0, self._size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        length = max(min(len(buffer), self._size - self._position), 0)
        buffer[:length] = self._read(self._position, length) if length else b""
        self._position += length
        return length

    def _read(self, position: int, length: int) -> bytes:
        try:
            return self._store.read(self._shard, self._offset + position, length)
        except ShardError as error:
            raise DecodeError(self._path, str(error)) from error
