"""Weights by public name and URL, from a server on this machine."""

import threading
from collections.abc import Iterator
from dataclasses import replace
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
from nlnet.weights.code_base import Publisher
from nlnet.weights.files import write_foreign
from nlnet.weights.load import load_weights
from nlnet.weights.public import locate
from nlnet.weights.sources.all import CODE_BASES


class Server(ThreadingHTTPServer):
    """Serves the files of a folder; can interrupt a transfer in the middle."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(Handler))
        self.folder = folder
        self.asked: list[str] = []
        self.interrupts = False

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
        self.wfile.write(content[: len(content) // 2] if self.server.interrupts else content)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


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


def publish(monkeypatch: pytest.MonkeyPatch, code_base: str, publisher: Publisher) -> None:
    changed = replace(CODE_BASES[code_base], publisher=publisher)
    monkeypatch.setitem(CODE_BASES, code_base, changed)


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


def test_files_with_the_same_name_at_two_urls_are_kept_apart(server: Server):
    for folder, value in (("a", 1.0), ("b", 2.0)):
        (server.folder / folder).mkdir()
        torch.save({"x": torch.tensor(value)}, server.folder / folder / "best_20240115.pt")
    found = [locate(f"{server.url}{folder}/best_20240115.pt") for folder in "aba"]
    assert [torch.load(path, weights_only=True)["x"].item() for path in found] == [1, 2, 1]
    assert server.asked == ["best_20240115.pt"] * 2  # the date in the name is not a checksum


def test_a_public_name_is_found_and_its_license_printed(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    publisher = CODE_BASES["caffe2"].publisher
    publish(monkeypatch, "caffe2", replace(publisher, root=server.url))
    file = publisher.paths["i3d_nl5_8x8"]
    serve(server, file, "caffe2")
    for name in ("i3d_nl5_8x8", "i3d_nonlocal_8x8"):  # the present and the former name
        assert locate(f"caffe2/{name}").name == file
        assert "CC BY-NC" in capsys.readouterr().err
    assert server.asked == [file]
    with pytest.raises(UserError, match="no such public weights; there are caffe2/c2d_32x2"):
        locate("caffe2/c3d")
    assert cache(tmp_path) == [file]


def test_a_published_checksum_is_checked(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    digest = sha256(serve(server, "a.pyth")).hexdigest()[:8]
    good, bad = f"good-{digest}.pyth", "bad_20220812-00000000.pyth"
    publisher = Publisher(server.url, "of a test", {"good": good, "bad": bad})
    publish(monkeypatch, "slowfast", publisher)
    (server.folder / "a.pyth").rename(server.folder / good)
    path = locate("slowfast/good")
    serve(server, bad)
    with pytest.raises(UserError, match=r"the download failed .*invalid hash"):
        locate("slowfast/bad")
    assert cache(tmp_path) == [good]
    path.write_bytes(b"spoilt")  # files in the cache are checked, too
    assert sha256(locate("slowfast/good").read_bytes()).hexdigest().startswith(digest)
    assert server.asked == [good, bad, good]


@pytest.mark.parametrize("prefix", ["", "torchvision/"])
def test_torchvision_names(prefix: str, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    monkeypatch.setattr(
        public_weights, "download", lambda url: asked.append(url) or Path("there.pth")
    )
    assert locate(f"{prefix}ResNet50_Weights.IMAGENET1K_V2") == Path("there.pth")
    assert asked == [CODE_BASES["torchvision"].publisher.root + "resnet50-11ad3fa6.pth"]


@pytest.mark.parametrize("form", ["slowfast", "caffe2"])
def test_an_interrupted_download_leaves_no_file(server: Server, tmp_path: Path, form: str):
    serve(server, "half.bin", form)
    server.interrupts = True
    with pytest.raises(UserError, match=r"half.bin: the download failed .*; try again"):
        locate(server.url + "half.bin")
    assert cache(tmp_path) == []
    server.interrupts = False
    assert locate(server.url + "half.bin").read_bytes() == (server.folder / "half.bin").read_bytes()


def test_missing_files_are_named_in_one_line(server: Server, tmp_path: Path):
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


PUBLISHERS = [code_base.publisher for code_base in CODE_BASES.values()]


def test_published_file_names_are_unique():
    files = [
        Path(urlparse(publisher.root + path).path).name
        for publisher in PUBLISHERS
        for path in publisher.paths.values()
    ]
    assert len(files) == len(set(files))  # one cache holds all files
    assert all(publisher.root.startswith("https://") for publisher in PUBLISHERS)
