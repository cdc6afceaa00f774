"""The server as a process: its API, its limits, and that it goes on after every bad request."""

import io
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest

import nlnet
from nlnet.demo import DEMO, VIDEOS
from nlnet.errors import UsageError, UserError
from nlnet.recognizer.recognizer import Recognizer
from nlnet.serve.limits import Limits
from nlnet.serve.server import ServeOptions, serve
from tests.serve.conftest import MAX_MB
from tests.serve.running import ROOT, Answer, Server, answer_of

VideoFactory = Callable[..., Path]
VIDEO = VIDEOS[0].read_bytes()
HEAD = "POST /api/videos HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return nlnet.load(DEMO, device="cpu")


@pytest.fixture(autouse=True)
def still_alive(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test, the server still analyzes a video, and stores no file."""
    yield
    if "server" in request.fixturenames:
        server: Server = request.getfixturevalue("server")
        assert analyzed(server, VIDEO).body["state"] == "done"
        end = time.monotonic() + 10
        while server.stored_bytes() > 0 and time.monotonic() < end:
            time.sleep(0.1)  # the file is closed just after the result
        assert server.stored_bytes() == 0


def analyzed(server: Server, content: bytes) -> Answer:
    """Upload a video when the queue has a place, and wait for its result."""
    answer = server.upload(content)
    while answer.status == 503:
        time.sleep(0.2)
        answer = server.upload(content)
    assert answer.status == 202, answer
    return server.result(answer.body["id"])


def test_the_result_is_that_of_predict_over_time(
    server: Server, recognizer: Recognizer, video_file: VideoFactory
):
    path = video_file(num_frames=40)
    found = analyzed(server, path.read_bytes()).body["windows"]
    wanted = list(recognizer.predict_over_time(path))
    assert len(found) == len(wanted) > 3
    for part, expected in zip(found, wanted, strict=True):
        assert (part["start"], part["end"]) == (expected.start, expected.end)
        top = {each["name"]: each["probability"] for each in part["top"]}
        assert top == pytest.approx(dict(expected.top), abs=1e-6)  # other numbers of threads


def test_later_answers_hold_only_the_new_windows(server: Server, video_file: VideoFactory):
    answer = analyzed(server, video_file(num_frames=40).read_bytes())
    windows = answer.body["windows"]
    again = server.ask(f"/api/videos/{answer.body['id']}?from=2")
    assert again.body["windows"] == windows[2:]


def test_the_attention_is_that_of_the_recognizer(server: Server, recognizer: Recognizer):
    """The video has one window, which is the clip of Recognizer.attention."""
    key = analyzed(server, VIDEO).body["id"]
    query = "window=0&t=6&y=20&x=33"
    answer = server.ask(f"/api/videos/{key}/attention?{query}&block=res3.nl1")
    (wanted,) = recognizer.attention(VIDEOS[0], (6, 20, 33), "res3.nl1").maps
    (found,) = answer.body["maps"]
    assert (found["layer"], found["query"]) == ("res3.nl1", [6, 20, 33])
    assert found["terms"][0]["largest"] == pytest.approx(wanted.weights.max(), rel=1e-4)
    assert len(found["terms"][0]["frames"]) == 8
    assert answer.body["class"] == "same" and answer.body["probability"] > 0.5
    automatic = server.ask(f"/api/videos/{key}/attention?window=0").body["maps"]
    assert [each["layer"] for each in automatic] == ["res3.nl0", "res3.nl1"]
    (gradcam,) = server.ask(f"/api/videos/{key}/attention?window=0&method=gradcam").body["maps"]
    assert gradcam["query"] is None


def test_wrong_questions_have_one_clear_sentence(server: Server):
    key = analyzed(server, VIDEO).body["id"]
    for path, status, part in (
        (f"/api/videos/{key}/attention?window=0&t=8&y=0&x=0", 422, "outside the clip of 8 frames"),
        (f"/api/videos/{key}/attention?window=0&block=res4.nl3", 422, "res3.nl0, res3.nl1"),
        (f"/api/videos/{key}/attention?window=0&method=cam", 422, "rows, gradcam"),
        (f"/api/videos/{key}/attention?window=0&t=1&y=x&x=0", 400, "y=x must be a whole number"),
        (f"/api/videos/{key}/attention", 400, "window= must be a whole number"),
        (f"/api/videos/{key}/clip?window=1", 404, "1 windows"),
        (f"/api/videos/{key}/clip?window=-1", 404, "1 windows"),
        ("/api/videos/another", 404, "upload it again"),
        ("/api/nothing", 404, "Not Found"),
        ("/../../etc/passwd", 404, "Not Found"),
    ):
        answer = server.ask(path)
        assert (answer.status, part in answer.error) == (status, True), answer
    assert server.ask("/api/videos", method="DELETE").status == 405
    assert server.ask("/api/samples/other", method="POST").status == 404


def zip_bomb() -> bytes:
    """100 MB of zeros in 100 kB."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("video.mp4", bytes(100_000_000))
    return packed.getvalue()


def huge_gif(side: int) -> bytes:
    """A picture of side x side pixels, of which the first ones have data."""
    size = side.to_bytes(2, "little") * 2
    data = b"\x02" + (b"\xff" + bytes(255)) * 3 + b"\0"
    return b"GIF89a" + size + b"\x80\0\0" + bytes(6) + b"," + bytes(4) + size + b"\0" + data + b";"


REFUSED: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 400, "empty"),
    "text": (b"This is a text file.\n" * 1000, 415, "not a video"),
    "one byte": (b"x", 415, "not a video"),
    "zip bomb": (zip_bomb(), 415, "not a video"),
    "list of files": (b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", 415, "not a video"),
    "too large": (VIDEO + bytes(MAX_MB * 10**6), 413, f"larger than {MAX_MB} MB"),
}
DAMAGED: dict[str, tuple[bytes, str]] = {
    "only a head": (VIDEO[:400], "cannot be read"),
    "zip bomb with the head of a video": (VIDEO[:12] + zip_bomb(), "cannot be read"),
    "frames of 65535 x 65535 pixels in 800 bytes": (huge_gif(0xFFFF), "cannot be read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_content_is_refused_before_it_is_stored(server: Server, name: str):
    content, status, part = REFUSED[name]
    answer = server.upload(content)
    assert answer.status == status and part in answer.error


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_videos_are_refused(server: Server, name: str):
    content, part = DAMAGED[name]
    answer = server.upload(content)
    assert answer.status == 202
    answer = server.result(answer.body["id"])
    assert answer.status == 422 and part in answer.error


def test_a_form_is_refused_with_the_remedy(server: Server):
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = server.ask("/api/videos", method="POST", body=b"--x", headers=headers)
    assert answer.status == 415 and "--data-binary" in answer.error


def test_a_declared_size_above_the_limit_is_refused_at_once(server: Server):
    """No byte of the 2 GB is sent."""
    with server.connect() as connection:
        connection.sendall(f"{HEAD}Content-Length: 2000000000\r\n\r\n".encode())
        assert answer_of(connection).status == 413


def test_2_gb_in_chunks_are_refused_and_never_stored(server: Server):
    """The client would send 2 GB, and does not say so; it stops when it gets the answer."""
    chunk = b"%x\r\n" % 2**20 + (VIDEO + bytes(2**20))[: 2**20] + b"\r\n"
    sent, most = 0, 0
    with server.connect() as connection:
        connection.sendall(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
        while sent < 2 * 10**9 and not select.select([connection], [], [], 0)[0]:
            connection.sendall(chunk)
            sent += 2**20
            most = max(most, server.stored_bytes())
        answer = answer_of(connection)
    assert answer.status == 413 and f"{MAX_MB} MB" in answer.error
    assert 0 < most <= MAX_MB * 10**6
    assert sent < 10**9


@pytest.mark.slow
def test_a_client_that_sends_2_gb_whatever_the_answer_is(server: Server):
    with server.connect() as connection:
        connection.sendall(f"{HEAD}Content-Length: 2000000000\r\n\r\n".encode())
        data = memoryview(VIDEO + bytes(2**22))
        try:
            for _ in range(2 * 10**9 // len(data)):
                connection.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server reads for some seconds only
        assert server.stored_bytes() == 0


def test_a_body_that_is_shorter_than_declared(server: Server):
    with server.connect() as connection:
        connection.sendall(f"{HEAD}Content-Length: 100000\r\n\r\n".encode() + VIDEO)


def test_a_body_that_is_longer_than_declared(server: Server):
    """The rest is no request: the connection ends."""
    with server.connect() as connection:
        connection.sendall(f"{HEAD}Content-Length: 1000\r\n\r\n".encode() + VIDEO)
        with suppress(ConnectionResetError):  # the answer can be lost
            assert answer_of(connection).status in (202, 400)


@pytest.mark.parametrize(
    "request_text", ["GET\r\n\r\n", "\x16\x03\x01\x02", "GET / HTTP/1.1\r\n\r\n"]
)
def test_malformed_requests(server: Server, request_text: str):
    with server.connect() as connection:
        connection.sendall(request_text.encode("latin-1"))
        connection.shutdown(socket.SHUT_WR)
        received = connection.recv(1000)
    assert not received or b" 40" in received.splitlines()[0]


def test_a_full_queue_answers_503(server: Server):
    """Uploads that have begun hold their places."""
    with ExitStack() as stack:
        for _ in range(Limits().waiting):
            connection = stack.enter_context(server.connect())
            connection.sendall(f"{HEAD}Content-Length: 100000\r\n\r\n".encode() + VIDEO[:1000])
        time.sleep(0.5)
        answer = server.upload(VIDEO)
        assert answer.status == 503 and "try again in a moment" in answer.error
        assert int(answer.headers["retry-after"]) > 0
        assert server.ask("/api/network").status == 200  # only uploads wait


def test_20_parallel_uploads_are_queued_or_refused(server: Server):
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(server.upload, [VIDEO] * 20))
    assert {answer.status for answer in answers} <= {202, 503}
    accepted = [answer.body["id"] for answer in answers if answer.status == 202]
    assert len(accepted) >= 1 and len(set(accepted)) == len(accepted)
    for key in accepted:
        assert server.result(key).body["state"] == "done"


def test_an_upload_that_stops_is_ended(server: Server):
    """Its place in the queue is free again when the client goes away."""
    for _ in range(Limits().waiting + 1):
        with server.connect() as connection:
            connection.sendall(f"{HEAD}Content-Length: 100000\r\n\r\n".encode() + VIDEO[:1000])
    assert analyzed(server, VIDEO).status == 200


def test_every_answer_has_security_headers(server: Server):
    for answer in (
        server.ask("/"),
        server.ask("/api/network"),
        server.ask("/none"),
        server.upload(b""),
    ):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy and "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert (
            "server" not in answer.headers and "access-control-allow-origin" not in answer.headers
        )
    first, second = server.ask("/"), server.ask("/")
    assert first.headers["content-security-policy"] != second.headers["content-security-policy"]


def test_only_pages_of_this_server_may_ask(server: Server):
    local = f"127.0.0.1:{server.port}"
    for headers in (
        {"Host": "evil.example"},  # a name that leads here (DNS rebinding)
        {"Host": f"evil.example:{server.port}"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "[::1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://localhost:{server.port}"},  # not the name that was asked
        {"Origin": f"http://127.0.0.1:{server.port + 1}"},  # another program of this machine
    ):
        answer = server.ask("/api/samples/same", method="POST", headers=headers)
        assert answer.status == 403 and "open the" in answer.error, headers
    for headers in (
        {"Host": f"localhost:{server.port}"},
        {"Host": "[::1]:9000"},
        {"Host": local, "Origin": f"http://{local}"},
    ):
        assert server.ask("/api/network", headers=headers).status == 200


def test_the_network_and_its_samples(server: Server):
    network = server.ask("/api/network").body
    assert network["blocks"] == ["res3.nl0", "res3.nl1"]
    assert network["upload_bytes"] == MAX_MB * 10**6
    assert network["samples"] == ["same", "different"]
    for name in network["samples"]:
        answer = server.ask(f"/api/samples/{name}", method="POST")
        windows = server.result(answer.body["id"]).body["windows"]
        assert windows[0]["top"][0]["name"] == name


def test_a_port_in_use_is_one_line(server: Server):
    with pytest.raises(UserError) as error:
        serve("demo", None, "cpu", options(port=server.port))
    message = str(error.value)
    assert f"--port {server.port}" in message and "--port 0" in message and "\n" not in message


def options(**changes) -> ServeOptions:
    small = ServeOptions("127.0.0.1", 0, None, max_mb=1, max_seconds=1, window=None, step=None)
    return replace(small, **changes)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"port": 70000}, "--port=70000"),
        ({"max_mb": 0.0}, "--max-mb=0.0"),
        ({"max_seconds": -1.0}, "--max-seconds=-1.0"),
        ({"window": 0.0}, "--window=0.0"),
        ({"token": "short"}, "--token"),
        ({"token": "with spaces " * 3}, "--token"),
    ],
)
def test_a_wrong_option_is_named(changes: dict, part: str):
    with pytest.raises(UsageError, match=part):
        serve("demo", None, "cpu", options(**changes))


@pytest.mark.slow
def test_elsewhere_every_request_needs_the_token(tmp_path: Path):
    with Server(("demo", "--host", "0.0.0.0", "--port", "0"), tmp_path) as server:
        token = server.address.partition("?token=")[2]
        assert len(token) >= 32
        for path in ("/", "/api/network", f"/?token={token[:-1]}", "/?token=", "/none"):
            answer = server.ask(path)
            assert answer.status == 401 and "a token is needed" in answer.error
        assert server.upload(VIDEO).status == 401
        assert server.ask("/", headers={"Authorization": "Bearer \xe9"}).status == 401
        assert server.ask(f"/?token={token}").status == 200
        bearer = {"Authorization": f"Bearer {token}", "Host": "any.name"}
        assert server.ask("/api/network", headers=bearer).status == 200
        answer = server.ask("/api/videos", method="POST", body=VIDEO, headers=bearer)
        assert answer.status == 202
        assert server.stop(signal.SIGTERM) == (-signal.SIGTERM, "", "")


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_the_end_is_quiet_and_leaves_nothing(signum: int, video_file: VideoFactory):
    """Also while it decodes, while an upload arrives, and when it is killed."""
    path = video_file(num_frames=1700)
    with tempfile.TemporaryDirectory() as name:  # short, for the name of the decoders' socket
        folder = Path(name)
        with Server(("demo", "--port", "0"), folder) as server:
            server.upload(path.read_bytes())
            with server.connect() as connection:
                head = f"{HEAD}Content-Length: 100000\r\n\r\n"
                connection.sendall(head.encode() + VIDEO[:1000])
                time.sleep(1)
                assert server.stored_bytes() > 0
                code, out, err = server.stop(signum)
        assert (out, err) == ("", "")
        assert code == (0 if signum == signal.SIGINT else -signum)
        assert [path for path in folder.rglob("*") if path.is_file()] == []
        assert no_process_of(folder)


def test_a_long_name_of_the_temporary_folder_costs_one_line(tmp_path: Path):
    folder = tmp_path / ("x" * 80)
    folder.mkdir()
    command = [sys.executable, str(ROOT / "tools" / "serve.py"), "demo", "--port", "0"]
    environment = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {folder}: ") and "set TMPDIR" in done.stderr
    assert done.stderr.count("\n") == 1


def no_process_of(folder: Path) -> bool:
    """Whether all processes of a server end soon: they have its TMPDIR in their environment."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        alive = 0
        for process in Path("/proc").glob("[0-9]*"):
            try:
                alive += f"TMPDIR={folder}\0".encode() in (process / "environ").read_bytes()
            except OSError:
                continue
        if alive == 0:
            return True
        time.sleep(0.2)
    return False
