"""Shards behind a URL that fsspec opens, an extra: https, s3, gs and others."""

import time
from collections.abc import Iterable, Sequence
from importlib.util import find_spec

from nlnet.data.index.manifest import ShardRecord
from nlnet.data.shards.store import ShardError, ShardStore
from nlnet.errors import UserError

PAUSES = (0.5, 2.0, 8.0)  # seconds before each further attempt, if the network fails


class RemoteShards(ShardStore):
    """Shards below a URL. Each read is one request for a range of bytes."""

    def __init__(self, url: str, shards: Sequence[ShardRecord]) -> None:
        require_fsspec()
        super().__init__(shards)
        self._url = url.rstrip("/")

    def _read(self, name: str, offset: int, size: int) -> bytes:
        from aiohttp import ClientError
        from fsspec.core import url_to_fs

        url = f"{self._url}/{name}"
        try:
            # fsspec keeps one file system in each process, also after a fork.
            files, path = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise UserError(f"{url}: {error}") from error
        pauses = iter(PAUSES)
        while True:
            try:
                data: bytes = files.cat_file(path, start=offset, end=offset + size)
                break
            except FileNotFoundError as error:
                raise ShardError(f"{url} does not exist; copy the shard there") from error
            except (OSError, ClientError) as error:
                pause = next(pauses, None)
                if pause is None:
                    cause = str(error).splitlines()[0] if str(error) else type(error).__name__
                    raise ShardError(f"{url} cannot be read ({cause})") from error
                time.sleep(pause)
        if len(data) > size:
            raise ShardError(f"{url}: the server does not send ranges of bytes; use another one")
        return data

    def _checked_at_start(self, used: Iterable[int]) -> Iterable[int]:
        return list(used)[:1]

    def _place(self, record: ShardRecord) -> str:
        return f"{self._url}/{record.name}"


def require_fsspec() -> None:
    """Raise UserError if the libraries that read URLs are not installed."""
    if find_spec("fsspec") is None or find_spec("aiohttp") is None:
        raise UserError('reading shards from a URL: not installed; run pip install "nlnet[remote]"')
