"""Shards behind a URL."""

import gc
import shutil
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import pytest
from fsspec.implementations.http import HTTPFileSystem
from torch.utils.data import DataLoader, Dataset

from nlnet.data.decoding.reader import DecodeError
from nlnet.data.index.read import read_index
from nlnet.data.index.video_index import VideoIndex
from nlnet.data.shards import members, remote
from nlnet.errors import UserError

SPLIT = "manifest.parquet#train"


class RangeHandler(SimpleHTTPRequestHandler):
    """Serves files, and ranges of their bytes."""

    ranges = True
    failures = 0  # requests that are refused before the next one is answered

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        if type(self).failures > 0:
            type(self).failures -= 1
            self.send_error(503)
        elif not self.ranges or asked is None or not Path(self.translate_path(self.path)).exists():
            super().do_GET()
        else:
            first, last = map(int, asked.removeprefix("bytes=").split("-"))
            data = Path(self.translate_path(self.path)).read_bytes()[first : last + 1]
            self.send_response(206)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def served(copied: Path) -> Iterator[tuple[str, type[RangeHandler]]]:
    """The URL of a folder of shards, and the handler of its server."""

    class Handler(RangeHandler):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, directory=str(copied), **options)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", Handler
    HTTPFileSystem.clear_instance_cache()  # closes its connections
    gc.collect()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSES", (0.01, 0.01))


def contents(index: VideoIndex) -> list[bytes]:
    files = [index.open(i) for i in range(len(index))]
    return [file.read() for file in files if file is not None]


@pytest.mark.parametrize("whole", [members.WHOLE, 1000])
@pytest.mark.parametrize("place", ["memory", "file", "http"])
def test_the_bytes_are_those_of_the_folder(
    place: str, whole: int, copied: Path, served, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(members, "WHOLE", whole)
    url = {"memory": "memory://bucket/shards", "file": f"file://{copied}", "http": served[0]}[place]
    if place == "memory":
        for path in copied.iterdir():
            fsspec.filesystem("memory").pipe(f"/bucket/shards/{path.name}", path.read_bytes())
    here = read_index(copied, SPLIT)
    there = read_index(copied, SPLIT, videos=url)
    assert contents(there) == contents(here)
    assert [there.path(i) for i in range(len(there))] == [here.path(i) for i in range(len(here))]


class Contents(Dataset[bytes]):
    def __init__(self, index: VideoIndex) -> None:
        self.index = index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> bytes:
        file = self.index.open(i)
        assert file is not None
        return file.read()


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_read_from_a_server(context: str, copied: Path, served):
    index = read_index(copied, SPLIT, videos=served[0])
    data = Contents(index)
    first = data[0]  # this process has used its connection before the workers start
    loader = DataLoader(data, batch_size=None, num_workers=1, multiprocessing_context=context)
    assert list(loader) == contents(read_index(copied, SPLIT))
    assert data[0] == first


def test_a_network_that_fails_for_a_moment_is_asked_again(copied: Path, served):
    index = read_index(copied, SPLIT, videos=served[0])
    served[1].failures = 2
    assert index.open(1) is not None
    served[1].failures = 100
    with pytest.raises(DecodeError, match=r"train-\d+\.tar cannot be read \(503") as error:
        index.open(2)
    assert "\n" not in str(error.value) and "http://127.0.0.1" in error.value.cause


def test_faults_of_a_place_are_named_at_the_start(copied: Path, served):
    def refused(url: str) -> str:
        with pytest.raises(UserError) as error:
            read_index(copied, SPLIT, videos=url)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "other/train-000000.tar does not exist" in refused(f"{served[0]}other")
    assert "cannot be read" in refused("http://127.0.0.1:9/nothing")
    assert "nosuch" in refused("nosuch://bucket/shards")
    served[1].ranges = False
    assert "does not send ranges" in refused(served[0])
    served[1].ranges = True
    shutil.copy(copied / "val-000000.tar", copied / "train-000000.tar")
    assert "not the shard that the manifest describes" in refused(served[0])


def test_a_shard_that_is_cut_short_is_named(copied: Path, served):
    index = read_index(copied, SPLIT, videos=served[0])
    last = copied / index.path(len(index) - 1).parts[-4]
    last.write_bytes(last.read_bytes()[:2000])
    with pytest.raises(DecodeError, match="is cut short; copy the shard again"):
        index.open(len(index) - 1)


def test_files_are_not_read_from_a_url(prepared: Path):
    with pytest.raises(UserError, match="lists files, which are not read from a URL"):
        read_index(prepared, SPLIT, videos="https://host/videos")
    with pytest.raises(UserError, match="no manifest of shards"):
        read_index(prepared, "train", videos="https://host/videos")


def test_a_missing_library_is_named(copied: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remote, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"nlnet\[remote\]"):
        read_index(copied, SPLIT, videos="https://host/shards")
