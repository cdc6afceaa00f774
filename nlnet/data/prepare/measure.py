"""Measure all files of a data set in parallel, so that an interrupted run goes on where it was."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

from nlnet.data.index.manifest import VideoFacts
from nlnet.data.prepare.probe import probe_video, same_file
from nlnet.data.prepare.processes import Lost, map_in_processes
from nlnet.data.prepare.status import UNREADABLE
from nlnet.errors import UserError

ENTRY_SHARE = 0.8  # of the time limit of a file, in which its entries may be tried
Known = Mapping[Path, VideoFacts]


class FactsFile:
    """The facts of the files that have been measured so far, one JSON object in each line.

    A line that was cut by an interruption is ignored; its file is measured again.

    Args:
        path: of the file
        folder: the paths in it are relative to this folder
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self._path = path
        self._folder = folder

    def read(self) -> dict[Path, VideoFacts]:
        """The facts of all whole lines; none if there is no file."""
        known: dict[Path, VideoFacts] = {}
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                with suppress(ValueError, TypeError, KeyError):
                    values = json.loads(line)
                    path = self._folder / values.pop("path")
                    lists = {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
                    known[path] = VideoFacts(**{**values, **lists})
        return known

    def add(self, path: Path, facts: VideoFacts) -> None:
        """Append the facts of a file."""
        line = json.dumps({"path": os.path.relpath(path, self._folder), **asdict(facts)})
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        except OSError as error:
            raise UserError(
                f"{self._path}: cannot be written ({error.strerror}); free disk space or give "
                "another folder, then run the command again"
            ) from error

    def remove(self) -> None:
        """Remove the file: the facts are in the manifest."""
        self._path.unlink(missing_ok=True)


def still_valid(known: Known, paths: Sequence[Path], verify: str) -> dict[Path, VideoFacts]:
    """The known facts of files that have not changed and were read as thoroughly as wanted."""
    return {
        path: known[path]
        for path in paths
        if path in known
        and known[path].verified in (verify, "full")
        and same_file(path, known[path])
    }


def measure_files(
    paths: Sequence[Path], *, verify: str, num_workers: int, time_limit: float
) -> Iterator[tuple[Path, VideoFacts]]:
    """Measure files in processes; yields each with its facts as soon as it is ready.

    A file whose process dies, or that takes longer than `time_limit` seconds, is unreadable.
    """
    function = partial(probe_video, verify=verify, seconds=ENTRY_SHARE * time_limit)
    for number, facts in map_in_processes(
        function, paths, num_workers=num_workers, time_limit=time_limit
    ):
        path = paths[number]
        yield path, VideoFacts(UNREADABLE, facts.cause) if isinstance(facts, Lost) else facts
