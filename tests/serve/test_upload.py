"""Storing uploads within the limits, and the answer after an error of the program."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from nlnet.demo import VIDEOS
from nlnet.serve.app import Handlers, build_app
from nlnet.serve.limits import Limits, Refusal
from nlnet.serve.upload import Upload, store

VIDEO = VIDEOS[0].read_bytes()


async def body(*chunks: bytes, pause: float = 0.0) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await asyncio.sleep(pause)
        yield chunk


@pytest.mark.parametrize("size", [1, 7, 199, 200, 201, len(VIDEO)])
def test_the_file_has_the_bytes_of_the_body(size: int):
    """However they are split. The name is gone when the file is closed."""
    chunks = [VIDEO[i : i + size] for i in range(0, len(VIDEO), size)]
    with closing(asyncio.run(store(body(*chunks), None, Limits()))) as upload:
        assert (upload.form, upload.size) == ("mov", len(VIDEO))
        assert Path(upload.path).read_bytes() == VIDEO
    assert not Path(upload.path).exists()


@pytest.mark.parametrize(
    ("limits", "pause", "part"),
    [
        ({"idle_seconds": 0.05}, 1.0, "no data arrived"),
        ({"upload_seconds": 0.2}, 0.05, "the upload took more than 0.2 seconds"),
    ],
)
def test_slow_uploads_end(limits: dict[str, float], pause: float, part: str):
    chunks = [VIDEO[:100]] * 30
    with pytest.raises(Refusal, match=part) as refused:
        asyncio.run(store(body(*chunks, pause=pause), None, replace(Limits(), **limits)))
    assert refused.value.status == 408


@pytest.mark.parametrize("size", [len(VIDEO) - 1, len(VIDEO)])
def test_the_limit_is_exact(size: int):
    limits = replace(Limits(), upload_bytes=size)
    if size == len(VIDEO):
        asyncio.run(store(body(VIDEO), None, limits)).close()
    else:
        with pytest.raises(Refusal, match="larger than") as refused:
            asyncio.run(store(body(VIDEO), None, limits))
        assert refused.value.status == 413


def test_a_full_disk_is_named():
    """/dev/full refuses every byte, as a full disk does."""
    with closing(Upload()) as upload, Path("/dev/full").open("wb", buffering=0) as full:
        upload._file.close()
        upload._file = full
        with pytest.raises(Refusal, match="No space left on device") as refused:
            upload.write(VIDEO)
    assert refused.value.status == 507


def test_an_error_of_the_program_is_json_too():
    """There is no analyzer, so that the handler fails; the error itself goes on to the log."""
    handlers = Handlers(None, Limits(), "none", {})  # type: ignore[arg-type]
    sent: list[dict] = []

    async def receive() -> dict:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/api/network", "query_string": b""}
    scope |= {"headers": [(b"host", b"localhost")], "http_version": "1.1", "root_path": ""}
    with pytest.raises(AttributeError):
        asyncio.run(build_app(handlers, None)(scope, receive, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 500
    assert (b"x-content-type-options", b"nosniff") in sent[0]["headers"]
    assert "its output says why" in json.loads(sent[1]["body"])["error"]
