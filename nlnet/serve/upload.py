"""A request's body -> a temporary file, within limits. The content is never executed.

The file has no name: its disk space is free again when it is closed, and also when the process is
killed. A name that the client gives is not used.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from typing import IO

from nlnet.serve.formats import HEAD, NAMES, container_format
from nlnet.serve.limits import Limits, Refusal


class Upload:
    """A stored upload; `path` is valid on this machine while it is open."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self.path = f"/proc/{os.getpid()}/fd/{self._file.fileno()}"
        self.form = ""  # FFmpeg's name of the format
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append data; raises Refusal if the disk is full."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise Refusal(
                507, f"the server cannot store the video ({error.strerror}); free its disk space"
            ) from error
        self.size += len(data)

    def close(self) -> None:
        """Delete the file; a second call does nothing."""
        self._file.close()


async def store(body: AsyncIterator[bytes], length: str | None, limits: Limits) -> Upload:
    """Store a body while it arrives.

    Args:
        body: the chunks of the body
        length: the header Content-Length; None if there is none
        limits: the size is checked before each chunk is stored

    Raises:
        Refusal: the body is too large, is no video, stops to arrive, or cannot be stored. Nothing
            is kept then.
    """
    if length is not None and length.isdecimal() and int(length) > limits.upload_bytes:
        raise _too_large(limits)
    upload = Upload()
    try:
        await _fill(upload, body, limits)
    except BaseException:
        upload.close()
        raise
    return upload


async def _fill(upload: Upload, body: AsyncIterator[bytes], limits: Limits) -> None:
    head = b""  # until it is long enough to tell the format
    async for chunk in _in_time(body, limits):
        if upload.size + len(head) + len(chunk) > limits.upload_bytes:
            raise _too_large(limits)
        if upload.form:
            upload.write(chunk)
        else:
            head += chunk
            if len(head) >= HEAD:
                upload.form = _check_format(head)
                upload.write(head)
                head = b""
    if not upload.form:
        upload.form = _check_format(head)
        upload.write(head)


async def _in_time(body: AsyncIterator[bytes], limits: Limits) -> AsyncIterator[bytes]:
    """The chunks of a body; raises Refusal if it takes too long, or if none arrives for long.

    One `wait_for` keeps both limits: of two nested ones, Python 3.11 may miss the outer one.
    """
    idle, whole = limits.idle_seconds, limits.upload_seconds
    clock = asyncio.get_running_loop().time
    end = clock() + whole
    while True:
        rest = end - clock()
        try:
            chunk = await asyncio.wait_for(anext(body), min(idle, max(rest, 0)))
        except StopAsyncIteration:
            return
        except asyncio.TimeoutError as error:
            if rest < idle:
                text = f"the upload took more than {whole:g} seconds; give a smaller file"
            else:
                text = f"no data arrived for {idle:g} seconds; check the network and upload again"
            raise Refusal(408, text) from error
        yield chunk


def _check_format(head: bytes) -> str:
    if not head:
        raise Refusal(400, "the upload is empty; send the content of a video file as the body")
    form = container_format(head)
    if form is None:
        raise Refusal(415, f"the file is not a video of a known format; give {NAMES}")
    return form


def _too_large(limits: Limits) -> Refusal:
    megabytes = limits.upload_bytes / 1e6
    return Refusal(
        413, f"the file is larger than {megabytes:g} MB; give a smaller one, or raise --max-mb"
    )
