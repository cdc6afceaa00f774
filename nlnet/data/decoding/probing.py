"""Look for files that cannot be read, before they are needed."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from nlnet.clip import Failure
from nlnet.data.decoding.container import open_video_stream
from nlnet.data.decoding.opening import open_video
from nlnet.data.decoding.reader import DecodeError
from nlnet.data.decoding.truncation import check_whole

THREADS = 8  # they wait for the disk most of the time


def _open(path: Path) -> None:
    """Read the header; finds what is no video, and files whose end is missing.

    Of a folder of frames, the list of its images and the first one are read.
    """
    if path.is_dir():
        open_video(path).close()
        return
    container, stream = open_video_stream(path, path)
    try:
        check_whole(path, None, container, stream)
    finally:
        container.close()


def _decode(path: Path) -> None:
    """Decode every frame; finds all damage that any clip would meet."""
    with open_video(path) as reader:
        for _ in reader.frames(range(reader.num_frames)):
            pass


PROBES: dict[str, Callable[[Path], None] | None] = {"none": None, "open": _open, "decode": _decode}


def probe_files(paths: Sequence[Path], probe: Callable[[Path], None]) -> list[Failure]:
    """The files that cannot be read, in their order; each is probed once."""
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(partial(_failure, probe), dict.fromkeys(paths))
        return [failure for failure in found if failure is not None]


def _failure(probe: Callable[[Path], None], path: Path) -> Failure | None:
    try:
        probe(path)
    except DecodeError as error:
        return Failure(str(path), error.cause)
    return None
