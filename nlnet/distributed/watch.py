"""No rank waits for ever: a thread of each rank ends it, and names the rank that is missing.

The time limits of gloo and NCCL do not know which rank is missing, and NCCL ends the process
without an exception. The thread works with both.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch.distributed as dist

from nlnet.distributed.attempts import TRANSIENT
from nlnet.distributed.rank_state import StateFile, read_states
from nlnet.errors import TransientError, UsageError, UserError

BEAT = 0.5  # seconds between two writes of the state
SILENCE = 4.0  # seconds without a beat after which a rank counts as stopped
_GLANCE = 0.1  # seconds between two looks at whether a process still exists
KINDS: dict[str, type[UserError]] = {
    kind.__name__: kind for kind in (UserError, UsageError, TransientError)
}
CRASH = "crash"  # kind of an error with a traceback


class WaitLimits(NamedTuple):
    """How many seconds a rank waits for the others."""

    first: float = 1800.0  # at the start, in the first step, an evaluation and a checkpoint
    step: float = 600.0  # in every other step
    remedy: str = "raise the limit if it may take longer"


class Watch:
    """Writes what this rank does, and ends the rank if it waits too long for another one.

    Args:
        folder: of the run, on a file system of all ranks; None or one rank: it does nothing
        limits: how long it waits
        report: shows an error, for the exit code
    """

    def __init__(
        self,
        folder: Path | None = None,
        limits: WaitLimits | None = None,
        report: Callable[[str, int], None] | None = None,
    ) -> None:
        self.limits = limits or WaitLimits()
        self._report = report
        self._size = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
        self._folder = folder
        self._file: StateFile | None = None
        self._patience = self.limits.first
        self._since = time.monotonic()
        self._waits = True
        self._steps = 0
        self._ended = threading.Event()
        if folder is not None and self._size > 1:
            self._file = StateFile(folder, int(os.environ["RANK"]))

    def start(self) -> None:
        """Begin to watch; all ranks of this attempt have written their state by now."""
        if self._file is not None:
            threading.Thread(target=self._run, daemon=True).start()

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to watch."""
        return self._file is None

    def decodes(self, place: str, files: Sequence[str]) -> None:
        """This rank waits for its own data; `files` are those of the batch."""
        if self._file is not None:
            self._note("decodes", place, tuple(files), waits=False, patience=self.limits.step)

    def trains(self, place: str) -> None:
        """This rank makes a step, with the others."""
        if self._file is not None:
            patience = self.limits.step if self._steps else self.limits.first
            self._steps += 1
            self._note("trains on", place, self._file.state.files, waits=True, patience=patience)

    def pauses(self, stage: str) -> None:
        """This rank evaluates or saves, which may take long."""
        if self._file is not None:
            place = self._file.state.place
            self._note(stage, place, (), waits=True, patience=self.limits.first)

    def fails(self, error: BaseException) -> None:
        """Tell the other ranks which error ends this one."""
        if self._file is not None and isinstance(error, Exception):
            kind = type(error).__name__ if type(error) in KINDS.values() else CRASH
            self._file.write(kind=kind, message=str(error))

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _note(
        self, stage: str, place: str, files: tuple[str, ...], *, waits: bool, patience: float
    ) -> None:
        assert self._file is not None
        self._waits, self._patience, self._since = waits, patience, time.monotonic()
        count = self._file.state.count + 1
        self._file.write(stage=stage, place=place, files=files, count=count)

    def _run(self) -> None:
        while not self._ended.wait(BEAT):
            file = self._file
            if file is None:
                return
            file.write(beat=file.state.beat + 1)
            since, waited = self._since, time.monotonic() - self._since
            if self._waits and waited > 2 * BEAT:
                lost = self._others_that_failed()
                if lost is None and waited > self._patience:
                    lost = self.missing(waited)
                if lost is not None and since == self._since and not self._ended.is_set():
                    self.end(lost)

    def _others_that_failed(self) -> UserError | SystemExit | None:
        """The error of a rank that has ended with one, if there is one."""
        assert self._folder is not None
        for state in read_states(self._folder, self._size).values():
            if state.kind in KINDS:
                return KINDS[state.kind](state.message)
            if state.kind:
                return SystemExit(1)  # its traceback is shown
        return None

    def missing(self, waited: float) -> UserError | SystemExit:
        """Return the error that names the rank for which the others wait."""
        assert self._folder is not None and self._file is not None
        before = read_states(self._folder, self._size)
        if (failed := self._others_that_failed()) is not None:
            return failed
        resumes = "the same command resumes from the last checkpoint"
        # A killed process closes its connections before it is gone, which may take a second.
        deadline = time.monotonic() + SILENCE
        while not (gone := [state for state in before.values() if state.is_gone()]):
            if time.monotonic() > deadline or self._ended.wait(_GLANCE):
                break
        if gone:
            return TransientError(f"{gone[0].describe()}; {resumes}")
        if (failed := self._others_that_failed()) is not None:
            return failed
        own, states = self._file.state, read_states(self._folder, self._size)
        others = [states[rank] for rank in states if rank != own.rank]
        silent = [s for s in others if s.rank in before and s.beat == before[s.rank].beat]
        behind = [state for state in others if state.count < own.count]
        if missing := silent or behind:
            told = missing[0].describe(is_silent=bool(silent))
        else:
            told = f"the ranks do not reach each other at {own.place or 'the start'}"
        after = f", after {waited:.0f} s" if waited else ""
        return TransientError(f"{told}{after}: {self.limits.remedy}; {resumes}")

    def end(self, error: UserError | SystemExit) -> NoReturn:
        """End the process at once: its main thread may hang, and the group cannot be left."""
        code = 1
        self.fails(error)
        if isinstance(error, UserError):
            code = {UsageError: 2, TransientError: TRANSIENT}.get(type(error), 1)
            if self._report is not None:
                self._report(str(error), code)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@contextmanager
def named_lost_ranks(watch: Watch) -> Iterator[None]:
    """End this rank with the name of the lost rank if the connection to it breaks.

    Other errors are raised, and the other ranks are told.
    """
    try:
        yield
    except RuntimeError as error:
        if watch.is_idle or not _is_of_connection(error):
            watch.fails(error)
            raise
        watch.end(watch.missing(0))
    except BaseException as error:
        watch.fails(error)
        raise


def _is_of_connection(error: RuntimeError) -> bool:
    text = str(error)
    return isinstance(error, dist.DistError) or any(
        part in text for part in ("gloo", "Connection closed by peer", "Connection reset by peer")
    )
