"""A run that is asked to stop saves itself first."""

import signal
from types import FrameType, TracebackType


class Preempted(SystemExit):
    """The run was asked to stop (SIGTERM, SIGUSR1) and has saved itself: exit code 143."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class StopRequest:
    """Remembers a SIGTERM or SIGUSR1 until the ranks can agree on it, at the end of a step."""

    def __init__(self) -> None:
        self.received = False

    def __enter__(self) -> "StopRequest":
        self.handlers = {
            signum: signal.signal(signum, self._remember)
            for signum in (signal.SIGTERM, signal.SIGUSR1)
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for signum, handler in self.handlers.items():
            signal.signal(signum, handler)

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        self.received = True
