"""Signals that ask a run to stop; the run saves itself first."""

import signal
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Preempted(SystemExit):
    """The run was asked to stop and has saved itself.

    The exit code is 128 plus the number of the signal: 130 (Ctrl-C), 138 or 143.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)


class StopRequest:
    """Records a signal until the ranks can agree on it, at the end of a step.

    A second Ctrl-C raises KeyboardInterrupt at once.
    """

    def __init__(self) -> None:
        self.signum = 0  # no signal yet

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
