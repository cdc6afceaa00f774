"""Weights by name and URL, from a server on this machine."""

import threading
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlparse

import pytest
import torch

from nlnet.config import ResNetConfig
from nlnet.errors import UserError
from nlnet.model.build import build_model
from nlnet.weights import public as public_weights
from nlnet.weights.files import write_foreign
from nlnet.weights.load import load_weights
from nlnet.weights.public import PUBLISHERS, Publisher, locate


class Server(ThreadingHTTPServer):
    """Serves a folder's files; can break off in the middle."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(Handler))
        self.folder = folder
        self.asked: list[str] = []
        self.breaks_off = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = self.server.folder / self.path.lstrip("/")
        self.server.asked.append(path.name)
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if self.server.breaks_off else content)

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    server = Server(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def cache(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "home" / "hub" / "checkpoints").glob("*"))


TINY = ResNetConfig(depth=14, width=8)


def serve(server: Server, name: str, form: str = "slowfast") -> bytes:
    torch.manual_seed(0)
    path = server.folder / name
    write_foreign(path, build_model(TINY, 5).state_dict(), form, frame_kernels=True)
    return path.read_bytes()


def test_a_url_is_downloaded_once_and_loaded(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    serve(server, "tiny.pyth")
    model = build_model(TINY, 5)
    report = load_weights(model, server.url + "tiny.pyth")
    assert len(report.loaded) == len(model.state_dict()) and not report.new
    assert "100%" in capsys.readouterr().err  # the progress bar
    load_weights(build_model(TINY, 5), server.url + "tiny.pyth")
    assert server.asked == ["tiny.pyth"]
    assert [name.partition("-")[2] for name in cache(tmp_path)] == ["tiny.pyth"]


def test_files_of_one_name_and_two_addresses_are_two(server: Server):
    for folder, value in (("a", 1.0), ("b", 2.0)):
        (server.folder / folder).mkdir()
        torch.save({"x": torch.tensor(value)}, server.folder / folder / "best_20240115.pt")
    found = [locate(f"{server.url}{folder}/best_20240115.pt") for folder in "aba"]
    assert [torch.load(path, weights_only=True)["x"].item() for path in found] == [1, 2, 1]
    assert server.asked == ["best_20240115.pt"] * 2  # and its date is no checksum


def test_a_name_is_found_and_its_licence_said(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    publisher = PUBLISHERS["caffe2"]
    monkeypatch.setitem(
        PUBLISHERS, "caffe2", Publisher(server.url, publisher.licence, publisher.paths)
    )
    file = publisher.paths["i3d_nonlocal_8x8"]
    serve(server, file, "caffe2")
    assert locate("caffe2/i3d_nonlocal_8x8").name == file
    assert "CC BY-NC" in capsys.readouterr().err
    with pytest.raises(UserError, match="no such public weights; there are caffe2/c2d_32x2"):
        locate("caffe2/c3d")
    assert cache(tmp_path) == [file]


def test_a_published_checksum_is_checked(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    digest = sha256(serve(server, "a.pyth")).hexdigest()[:8]
    good, bad = f"good-{digest}.pyth", "bad_20220812-00000000.pyth"
    publisher = Publisher(server.url, "of a test", {"good": good, "bad": bad})
    monkeypatch.setitem(PUBLISHERS, "slowfast", publisher)
    (server.folder / "a.pyth").rename(server.folder / good)
    path = locate("slowfast/good")
    serve(server, bad)
    with pytest.raises(UserError, match=r"the download failed .*invalid hash"):
        locate("slowfast/bad")
    assert cache(tmp_path) == [good]
    path.write_bytes(b"spoilt")  # what lies in the cache is checked, too
    assert sha256(locate("slowfast/good").read_bytes()).hexdigest().startswith(digest)
    assert server.asked == [good, bad, good]


@pytest.mark.parametrize("prefix", ["", "torchvision/"])
def test_torchvision_s_own_names(prefix: str, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    monkeypatch.setattr(
        public_weights, "download", lambda url: asked.append(url) or Path("there.pth")
    )
    assert locate(f"{prefix}ResNet50_Weights.IMAGENET1K_V2") == Path("there.pth")
    assert asked == [PUBLISHERS["torchvision"].root + "resnet50-11ad3fa6.pth"]


@pytest.mark.parametrize("form", ["slowfast", "caffe2"])
def test_a_download_that_breaks_off_leaves_no_half_file(server: Server, tmp_path: Path, form: str):
    serve(server, "half.bin", form)
    server.breaks_off = True
    with pytest.raises(UserError, match=r"half.bin: the download failed .*; try again"):
        locate(server.url + "half.bin")
    assert cache(tmp_path) == []
    server.breaks_off = False
    assert locate(server.url + "half.bin").read_bytes() == (server.folder / "half.bin").read_bytes()


def test_what_is_not_there_is_told_in_a_line(server: Server, tmp_path: Path):
    with pytest.raises(UserError, match="404"):
        locate(server.url + "none.pyth")
    server.folder.joinpath("page.html").write_text("<html>moved</html>")
    with pytest.raises(UserError, match="the download failed"):
        locate(server.url + "page.html")
    with pytest.raises(UserError, match="no such file; give a path, a URL, or a public name"):
        locate(str(tmp_path / "none.pt"))
    with pytest.raises(UserError, match="torchvision knows no such weights"):
        locate("ResNet51_Weights.IMAGENET1K_V1")
    assert cache(tmp_path) == []


def test_no_server_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    with pytest.raises(UserError, match="the download failed"):
        locate("http://127.0.0.1:9/weights.pyth")
    assert cache(tmp_path) == []


def test_public_names_are_unambiguous():
    files = [
        Path(urlparse(publisher.root + path).path).name
        for publisher in PUBLISHERS.values()
        for path in publisher.paths.values()
    ]
    assert len(files) == len(set(files))  # one cache holds them all
    assert all(publisher.root.startswith("https://") for publisher in PUBLISHERS.values())
