"""Reading bytes of shards, from a folder on this machine or from a URL."""

import os
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path

from nlnet.data.index.manifest import ShardRecord
from nlnet.data.shards.layout import shard_head
from nlnet.errors import UserError

MOST_OPEN = 16  # shards that a thread keeps open


class ShardError(Exception):
    """Bytes of a shard cannot be read; the text says why and what to do."""


class ShardStore(ABC):
    """The shards of a manifest. Each process may use its own copy, forked or unpickled."""

    def __init__(self, shards: Sequence[ShardRecord]) -> None:
        self._shards = tuple(shards)
        self._checked: set[int] = set()

    @abstractmethod
    def _read(self, name: str, offset: int, size: int) -> bytes:
        """The bytes that are there of this range; raises ShardError if there is no such shard."""

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """`size` bytes of a shard. Raises ShardError, also for a shard that was replaced."""
        record = self._shards[shard]
        if shard not in self._checked:
            self._check(record)
            self._checked.add(shard)
        data = self._read(record.name, offset, size)
        if len(data) != size:
            raise ShardError(
                f"{self._place(record)} is cut short; copy the shard again, its size is "
                f"{record.size:,} bytes"
            )
        return data

    def check_start(self, used: Iterable[int]) -> None:
        """Raise UserError for shards that are seen at once to be missing or not the right ones."""
        for shard in self._checked_at_start(used):
            try:
                self._check(self._shards[shard])
            except ShardError as error:
                raise UserError(str(error)) from error

    @abstractmethod
    def _checked_at_start(self, used: Iterable[int]) -> Iterable[int]:
        """The shards whose check is cheap enough before anything is read."""

    @abstractmethod
    def _place(self, record: ShardRecord) -> str:
        """The full name of a shard, for messages."""

    def _check(self, record: ShardRecord) -> None:
        head = shard_head(record.digest)
        if self._read(record.name, 0, len(head)) != head:
            raise ShardError(
                f"{self._place(record)} is not the shard that the manifest describes; use the "
                "manifest that was written with it, or copy the shard again"
            )


class _Descriptor:
    """An open file, which is closed when nothing refers to it any more."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class _OpenFiles(threading.local):
    """The open shards of each thread: no thread can close a file that another one reads."""

    def __init__(self) -> None:
        self.files: OrderedDict[str, _Descriptor] = OrderedDict()  # the last used is the last one

    def __reduce__(self) -> tuple[type["_OpenFiles"], tuple[()]]:
        return _OpenFiles, ()  # another process opens its own


class LocalShards(ShardStore):
    """Shards in a folder.

    A read names its position, so that forked processes can share an open file.
    """

    def __init__(self, folder: Path, shards: Sequence[ShardRecord]) -> None:
        super().__init__(shards)
        self._folder = folder
        self._open = _OpenFiles()

    def _read(self, name: str, offset: int, size: int) -> bytes:
        try:
            descriptor = self._descriptor(name)
            data = b""
            while len(data) < size:
                # The system may give fewer bytes at once than it is asked for.
                more = os.pread(descriptor.number, size - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            place = self._folder / name
            raise ShardError(
                f"{place} cannot be read ({error.strerror}); copy the shard there"
            ) from error
        return data

    def _descriptor(self, name: str) -> _Descriptor:
        files = self._open.files
        descriptor = files.pop(name, None)
        if descriptor is None:
            descriptor = _Descriptor(os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC))
        files[name] = descriptor
        if len(files) > MOST_OPEN:
            files.popitem(last=False)
        return descriptor

    def _checked_at_start(self, used: Iterable[int]) -> Iterable[int]:
        return used

    def _place(self, record: ShardRecord) -> str:
        return str(self._folder / record.name)

    def _check(self, record: ShardRecord) -> None:
        super()._check(record)
        size = os.fstat(self._descriptor(record.name).number).st_size
        if size != record.size:
            raise ShardError(
                f"{self._place(record)} has {size:,} bytes, not {record.size:,}; copy the shard "
                "again"
            )
