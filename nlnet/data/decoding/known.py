"""What was measured about a file once, so that its reader need not measure it again."""

from bisect import bisect_right
from pathlib import Path
from typing import NamedTuple

import numpy as np


class EntryRun(NamedTuple):
    """Frames that are decoded from one entry on."""

    entry: int  # its place among the entries; -1: the start of the file
    first: int  # the number of the frame from which decoding starts
    wanted: list[int]  # rising numbers


class KnownFrames(NamedTuple):
    """The number of frames of a file, and entries: frames from which decoding can start.

    From an entry on, decoding gives the same frames as from the start of the file. The facts hold
    for the file with this size and time of change.
    """

    size: int  # bytes
    modified: int  # nanoseconds
    num_frames: int  # frames that decode
    entry_frames: np.ndarray  # rising numbers
    entry_times: np.ndarray  # where to seek, in units of the stream

    def describes(self, path: Path) -> bool:
        """Whether the file has not changed since, by its size and its time of change."""
        return is_unchanged(path, self.size, self.modified)

    def runs(self, wanted: list[int]) -> list[EntryRun]:
        """The seeks that decode the fewest frames, for rising numbers."""
        entries = self.entry_frames.tolist()
        runs: list[EntryRun] = []
        for number in wanted:
            entry = bisect_right(entries, number) - 1
            first = entries[entry] if entry >= 0 else 0
            if runs and first <= runs[-1].wanted[-1] + 1:
                runs[-1].wanted.append(number)
            else:
                runs.append(EntryRun(entry, first, [number]))
        return runs


def is_unchanged(path: Path, size: int, modified: int) -> bool:
    """Whether a file has this size in bytes and this time of change in nanoseconds."""
    try:
        status = path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (size, modified)
