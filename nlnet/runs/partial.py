"""The results of an evaluation so far, from which an evaluation that was killed goes on.

Each rank writes the videos that it has scored in parts, which are files of `partial/KEY/` in the
folder of the evaluation. KEY stands for all that the scores depend on.
"""

import io
import json
import shutil
import time
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nlnet.clip import Failure
from nlnet.errors import UserError
from nlnet.files import write_atomic
from nlnet.runs.scores import MALFORMED

PARTIAL = "partial"
# Seconds between two parts: at least, and as a share of the time so far. A kill loses this much.
LEAST, SHARE = 1.0, 0.02


class ScorePart(NamedTuple):
    """The scores of some videos, all of whose views are known: n videos, v views, K classes."""

    video: np.ndarray  # (n,) int64: rows of the index
    totals: np.ndarray  # (n, K) float64
    num_views: np.ndarray  # (n,) int64
    views: np.ndarray  # (v, K) float16
    view_video: np.ndarray  # (v,) int64
    failures: list[Failure]


class PartialResults:
    """The parts of one rank.

    Args:
        out_dir: the folder of the evaluation
        key: differs if anything differs that the scores depend on
        rank: the number of this rank
    """

    def __init__(self, out_dir: Path, key: str, rank: int) -> None:
        self.folder = out_dir / PARTIAL / key[:16]
        self.rank = rank
        self.batches = 0  # of this rank, in the parts so far
        self.is_writable = True
        self.started = self.written = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether it is time for a part."""
        now = time.monotonic()
        return now - self.written >= max(LEAST, SHARE * (now - self.started)) and self.is_writable

    def read(self) -> list[ScorePart]:
        """The parts of an earlier attempt, up to the first one that is missing or damaged."""
        parts = []
        while (found := _read_part(self._path(), self.batches)) is not None:
            parts.append(found[1])
            self.batches = found[0]
        return parts

    def write(self, part: ScorePart, batches: int) -> None:
        """Write a part, whole or not at all; it ends after this number of batches.

        If it cannot be written, the evaluation goes on without parts.
        """
        buffer = io.BytesIO()
        np.savez(
            buffer,
            batches=np.array([self.batches, batches]),
            failures=np.array(json.dumps(part.failures)),
            **{name: value for name, value in part._asdict().items() if name != "failures"},
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self._path(), buffer.getbuffer())
        except (OSError, UserError):
            self.is_writable = False
        self.batches = batches
        self.written = time.monotonic()

    def _path(self) -> Path:
        """The file of the next part, named after its first batch."""
        return self.folder / f"{self.rank}-{self.batches:08d}.npz"


def remove_partial(out_dir: Path, except_key: str | None = None) -> None:
    """Remove all partial results of a folder, but not those of one key. A failure is no error."""
    folder = out_dir / PARTIAL
    if except_key is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for other in folder.glob("*"):
        if other.name != except_key[:16]:
            shutil.rmtree(other, ignore_errors=True)


def _read_part(path: Path, first: int) -> tuple[int, ScorePart] | None:
    """The batch after the last one of a part, and the part; None if it is missing or damaged."""
    if not path.exists():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        begin, end = arrays.pop("batches").tolist()
        failures = [Failure(*pair) for pair in json.loads(str(arrays.pop("failures")))]
        part = ScorePart(**arrays, failures=failures)
    except (*MALFORMED, OSError, zipfile.BadZipFile, zlib.error):
        return None
    return (end, part) if begin == first < end else None
