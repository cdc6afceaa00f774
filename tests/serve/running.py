"""A running server as a process of its own, and requests to it."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]
TIMEOUT = 90.0  # seconds


class Answer(NamedTuple):
    """Status, headers with names in lower case, and the body: JSON, or text."""

    status: int
    headers: dict[str, str]
    body: dict

    @property
    def error(self) -> str:
        """The one clear sentence of a refusal."""
        assert list(self.body) == ["error"], self.body
        assert "\n" not in self.body["error"] and "Traceback" not in self.body["error"]
        return self.body["error"]


@dataclass
class Server:
    """tools/serve.py with some words; `folder` holds its temporary files."""

    words: tuple[str, ...]
    folder: Path

    def __enter__(self) -> "Server":
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tools" / "serve.py"), *self.words],
            cwd=self.folder,
            env={**os.environ, "TMPDIR": str(self.folder), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://\S+", line)
        if found is None:
            raise AssertionError(f"{line}{self.process.communicate(timeout=TIMEOUT)}")
        self.address = found[0]
        place = urlsplit(self.address)
        self.host, self.port = "127.0.0.1", place.port or 0
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop(signal.SIGKILL)

    def stop(self, signum: int) -> tuple[int, str, str]:
        """End the server; returns its exit code and what it printed."""
        self.process.send_signal(signum)
        out, err = self.process.communicate(timeout=TIMEOUT)
        return self.process.returncode, out, err

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send a request, and read its answer."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            return read_answer(connection.getresponse())
        finally:
            connection.close()

    def upload(self, content: bytes) -> Answer:
        return self.ask("/api/videos", method="POST", body=content)

    def result(self, key: str) -> Answer:
        """Wait until a video is analyzed, or refused."""
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            answer = self.ask(f"/api/videos/{key}")
            if answer.status != 200 or answer.body["state"] == "done":
                return answer
            time.sleep(0.1)
        raise AssertionError(f"no result: {answer}")

    def connect(self) -> socket.socket:
        """A connection for requests that no HTTP client sends."""
        return socket.create_connection((self.host, self.port), timeout=TIMEOUT)

    def stored_bytes(self) -> int:
        """The bytes of all files that the server has stored, also of those without a name."""
        total = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        for entry in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # it is closed meanwhile
                target = os.readlink(entry)
                if str(self.folder) in target and "(deleted)" in target:
                    total += entry.stat().st_size
        return total


def read_answer(response: http.client.HTTPResponse) -> Answer:
    """Read all of an answer."""
    headers = {name.lower(): value for name, value in response.getheaders()}
    text = response.read().decode()
    is_json = headers.get("content-type", "").startswith("application/json")
    return Answer(response.status, headers, json.loads(text) if is_json else {"text": text})


def answer_of(connection: socket.socket) -> Answer:
    """Read the answer to a request that was sent by hand."""
    with http.client.HTTPResponse(connection) as response:
        response.begin()
        return read_answer(response)
