"""Why a run stops before its end: a signal or a time limit. The run saves itself first."""

import math
import signal
import time
from types import FrameType, TracebackType

from nlnet.distributed.ranks import gather_objects
from nlnet.distributed.signals import SIGNALS


class Preempted(SystemExit):
    """The run was asked to stop and has saved itself.

    The exit code is 128 plus the number of the signal: 130 (Ctrl-C), 138 or 143.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)


class OutOfTime(Exception):
    """The time limit of the run is reached, and the run has saved itself."""


class StopRequest:
    """Records a signal or the end of the time until the ranks can agree, at the end of a step.

    A second Ctrl-C raises KeyboardInterrupt at once.

    Args:
        max_minutes: the time limit, from now on; None: no limit
    """

    def __init__(self, max_minutes: float | None = None) -> None:
        self.signum = 0  # no signal yet
        self.max_minutes = max_minutes
        limit = math.inf if max_minutes is None else 60 * max_minutes
        self.deadline = time.monotonic() + limit

    @property
    def is_due(self) -> bool:
        """Whether this rank got a signal or is out of time."""
        return self.signum > 0 or time.monotonic() >= self.deadline

    def agree(self) -> tuple[str, Preempted | OutOfTime]:
        """Return why the run stops, in words, and the exception to raise: the same on each rank.

        Call it on every rank, after one of them said that a stop is due.
        """
        signum = max(gather_objects(self.signum))
        if signum:
            return "asked to stop", Preempted(signum)
        return f"the time limit of {self.max_minutes:g} minutes is reached", OutOfTime()

    def __enter__(self) -> "StopRequest":
        self.handlers = {signum: signal.signal(signum, self._record) for signum in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for signum, handler in self.handlers.items():
            signal.signal(signum, handler)

    def _record(self, signum: int, frame: FrameType | None) -> None:
        if signum == self.signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = signum
