"""Look for files that cannot be read, before they are needed."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from nlnet.clip import Failure
from nlnet.data.decoding.container import open_video_stream
from nlnet.data.decoding.opening import open_video
from nlnet.data.decoding.reader import DecodeError
from nlnet.data.decoding.truncation import check_whole

THREADS = 8  # they wait for the disk most of the time
PART = 8192  # files that wait for a thread

Probe = Callable[[Path, BinaryIO | None], None]  # of the file at a path, or of an open file


def _open(path: Path, file: BinaryIO | None) -> None:
    """Read the header; finds what is no video, and files whose end is missing.

    Of a folder of frames, the list of its images and the first one are read.
    """
    if file is None and path.is_dir():
        open_video(path).close()
        return
    container, stream = open_video_stream(path if file is None else file, path)
    try:
        check_whole(path, file, container, stream)
    finally:
        container.close()


def _decode(path: Path, file: BinaryIO | None) -> None:
    """Decode every frame; finds all damage that any clip would meet."""
    with open_video(path, file) as reader:
        for _ in reader.frames(range(reader.num_frames)):
            pass


PROBES: dict[str, Probe | None] = {"none": None, "open": _open, "decode": _decode}


def probe_files(
    paths: Iterable[Path],
    probe: Probe,
    open_file: Callable[[int], BinaryIO | None] = lambda number: None,
) -> list[Failure]:
    """The files that cannot be read, in their order; each is probed once.

    `open_file` opens the file with a number; None stands for the file at its path. A million files
    need little memory: only the hashes of their names are kept.
    """

    def failure(file: tuple[int, Path]) -> Failure | None:
        number, path = file
        try:
            probe(path, open_file(number))
        except DecodeError as error:
            return Failure(str(path), error.cause)
        return None

    files, found = _different(paths), list[Failure]()
    with ThreadPoolExecutor(THREADS) as pool:
        while part := list(islice(files, PART)):  # the pool holds an object for each file
            found += [each for each in pool.map(failure, part) if each is not None]
    return found


def _different(paths: Iterable[Path]) -> Iterator[tuple[int, Path]]:
    """Each path with its number, without those that come again."""
    seen: set[int] = set()
    for number, path in enumerate(paths):
        name = hash(path)
        if name not in seen:
            seen.add(name)
            yield number, path
