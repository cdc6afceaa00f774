"""The videos in shards, as open files."""

import hashlib
import io
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from nlnet.data.decoding.reader import DecodeError
from nlnet.data.shards.store import ShardError, ShardStore

WHOLE = 32 << 20  # bytes; a video up to this size is read at once, and its digest is compared
DIGEST = 8  # bytes; enough for changes that nobody intends
PART = 1 << 20  # bytes that are read at once of a larger video


class MemberTable(NamedTuple):
    """Where N videos are. Arrays, so that forked workers share the memory."""

    shard: np.ndarray  # (N,) int32, the number of the shard
    offset: np.ndarray  # (N,) int64, of the first byte in the shard
    size: np.ndarray  # (N,) int64, bytes
    digest: np.ndarray  # (N, DIGEST) uint8, the first bytes of its SHA-256


class ShardMembers:
    """N videos in shards."""

    def __init__(self, store: ShardStore, table: MemberTable) -> None:
        self._store = store
        self._table = table
        self._verified = np.zeros(len(table.size), bool)  # videos that this process has compared

    def select(self, rows: np.ndarray) -> "ShardMembers":
        """The videos of these rows."""
        return ShardMembers(self._store, MemberTable(*(array[rows] for array in self._table)))

    def check_start(self) -> None:
        """Raise UserError for shards that are seen at once to be missing or not the right ones."""
        self._store.check_start(np.unique(self._table.shard).tolist())

    def check(self, i: int, path: Path) -> None:
        """Raise DecodeError if the bytes of video i are not those that were written."""
        part, state = self._part(i, path), hashlib.sha256()
        while data := part.read(PART):
            state.update(data)
        self._compare(i, path, state.digest())

    def open(self, i: int, path: Path) -> BinaryIO:
        """Video i as a file, which needs no closing; `path` is its name.

        Raises DecodeError if its bytes cannot be read, or are not those that were written. Reading
        a large video later can raise it, too.
        """
        part = self._part(i, path)
        if part.size > WHOLE:
            return io.BufferedReader(part, PART)
        data = part.read_all()
        if not self._verified[i]:
            self._compare(i, path, hashlib.sha256(data).digest())
            self._verified[i] = True
        return NamedBytes(data, str(path))

    def _part(self, i: int, path: Path) -> "_Part":
        shard, offset, size = (int(array[i]) for array in self._table[:3])
        return _Part(self._store, path, shard, offset, size)

    def _compare(self, i: int, path: Path, digest: bytes) -> None:
        if digest[:DIGEST] != self._table.digest[i].tobytes():
            raise DecodeError(path, "its bytes in the shard have changed; copy the shard again")


class NamedBytes(io.BytesIO):
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
        self.size = size
        self._position = 0

    def read_all(self) -> bytes:
        """All bytes; raises DecodeError."""
        return self._read(0, self.size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        length = max(min(len(buffer), self.size - self._position), 0)
        buffer[:length] = self._read(self._position, length) if length else b""
        self._position += length
        return length

    def _read(self, position: int, length: int) -> bytes:
        try:
            return self._store.read(self._shard, self._offset + position, length)
        except ShardError as error:
            raise DecodeError(self._path, str(error)) from error
