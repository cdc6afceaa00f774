"""What each rank does now, in a file that the other ranks can read: `.ranks/<number>`.

The files are in the run folder and not in the store of the group, because rank 0 may serve the
store, and may be the rank that is gone.
"""

import json
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

FOLDER = ".ranks"
MOST_FILES = 3  # that a message names


@dataclass(frozen=True)
class RankState:
    """What a rank does."""

    rank: int
    pid: int
    host: str
    beat: int = 0  # grows while the process runs
    count: int = 0  # of the stages so far; ranks make the same stages in the same order
    stage: str = "starts"  # in words
    place: str = ""  # epoch and step
    files: tuple[str, ...] = ()  # that it decodes
    kind: str = ""  # of the error that ended it; "" while there is none
    message: str = ""  # of this error

    def is_gone(self) -> bool:
        """Whether its process has ended, as far as this machine can tell."""
        return self._process_state() in ("gone", "Z", "X")

    def describe(self, *, is_silent: bool = True) -> str:
        """Return the rank, what is wrong with it, where it is and what it does."""
        how = "does not go on"
        if is_silent:
            how = {"gone": "has ended", "Z": "has ended", "T": "is stopped"}.get(
                self._process_state(), "does not answer"
            )
        place = f" at {self.place}" if self.place else ""
        return (
            f"rank {self.rank} (process {self.pid} on {self.host}) {how}{place}, where it"
            f" {self.stage}{_listed(self.files)}"
        )

    def _process_state(self) -> str:
        """One letter of /proc; `gone` if there is no process; "" if it is on another machine."""
        if self.host != socket.gethostname():
            return ""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2][:1]
        except OSError:
            return "gone"


def _listed(files: Sequence[str]) -> str:
    if not files:
        return ""
    more = len(files) - MOST_FILES
    return " " + ", ".join(files[:MOST_FILES]) + (f" and {more} more" if more > 0 else "")


class StateFile:
    """The file of this rank, which it replaces often."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.state = RankState(rank, os.getpid(), socket.gethostname())
        path = folder / FOLDER / str(rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        self.write()

    def write(self, **changes: object) -> None:
        """Change the state and write it; a full disk is ignored."""
        self.state = replace(self.state, **changes)  # type: ignore[arg-type]
        with suppress(OSError):
            os.pwrite(self._file, json.dumps(asdict(self.state)).encode() + b"\n", 0)

    def close(self) -> None:
        """Close the file, which stays."""
        os.close(self._file)


def read_states(folder: Path, world_size: int) -> dict[int, RankState]:
    """Return the states of the ranks whose file can be read."""
    states = {}
    for rank in range(world_size):
        with suppress(OSError, ValueError, TypeError):  # being written just now
            line = (folder / FOLDER / str(rank)).read_bytes().partition(b"\n")[0]
            found = json.loads(line)
            states[rank] = RankState(**{**found, "files": tuple(found["files"])})
    return states
