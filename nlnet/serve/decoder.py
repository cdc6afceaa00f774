"""The parent's side of decoding: a child process for each video, whose messages are checked."""

import json
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nlnet.data.windows import WindowViews
from nlnet.errors import UserError
from nlnet.serve.child import decode
from nlnet.serve.limits import Limits

PRELOADED = ["nlnet.serve.child", "nlnet.data.transforms"]  # their import takes seconds
MAX_HEADER = 10_000  # bytes
MAX_VIEWS = 2**30  # bytes of one window
POLL = 0.1  # seconds


class DecodedWindow(NamedTuple):
    """A part of a video in seconds, and its views."""

    start: float
    end: float
    views: Tensor  # (V, 3, T, S, S) uint8


class Decoder:
    """Decodes one video at a time, each in a new process with limits.

    The processes are forked from one that has imported the libraries, see `start_decoders`.
    """

    def __init__(
        self, views: WindowViews, window: float | None, step: float | None, limits: Limits
    ) -> None:
        self._views = views
        self._steps = window, step
        self._limits = limits
        self._stopped = threading.Event()
        self._context = get_context("forkserver")

    def windows(self, path: str, form: str | None) -> Iterator[DecodedWindow]:
        """The windows of a file, as the child sends them.

        Raises:
            UserError: the video cannot be read within the limits. The message does not name the
                file, which the user knows by another name.
        """
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=decode,
            args=(path, form, self._views, self._steps, self._limits, sender),
            daemon=True,
        )
        try:
            process.start()
            sender.close()
            yield from self._receive(receiver, process)
        finally:
            receiver.close()
            process.kill()
            process.join()

    def stop(self) -> None:
        """End the process that decodes, and refuse the next videos."""
        self._stopped.set()

    def _receive(self, receiver: Connection, process: ForkServerProcess) -> Iterator[DecodedWindow]:
        left = self._limits.decode_seconds
        while True:
            try:
                began = time.monotonic()
                self._wait(receiver, left)
                message = json.loads(receiver.recv_bytes(MAX_HEADER))
                if "error" in message:
                    raise UserError(str(message["error"]))
                if "done" in message:
                    return
                self._wait(receiver, left)
                views = _views(receiver.recv_bytes(MAX_VIEWS), message["shape"])
                left -= time.monotonic() - began
            except EOFError as error:
                raise UserError(_ended(process, self._limits)) from error
            yield DecodedWindow(float(message["start"]), float(message["end"]), views)

    def _wait(self, receiver: Connection, seconds: float) -> None:
        """Wait for a message; raises UserError if it takes too long."""
        end = time.monotonic() + seconds
        while not receiver.poll(POLL):
            if self._stopped.is_set():
                raise UserError("the server ends; start it again")
            if time.monotonic() > end:
                raise UserError(_too_slow(self._limits))


def start_decoders() -> None:
    """Start the process from which decoders are forked; the main thread calls this first.

    This process and its children ignore Ctrl-C, which reaches all processes of a terminal.

    Raises:
        UserError: the folder for temporary files has a name that is too long for a socket.
    """
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.set_forkserver_preload(PRELOADED)
        forkserver.ensure_running()
    except OSError as error:
        if error.errno is not None:  # the error of a long name has none
            raise
        raise UserError(
            f"{tempfile.gettempdir()}: the decoder process cannot start ({error}); "
            "set TMPDIR to a folder with a short name"
        ) from error
    finally:
        signal.signal(signal.SIGINT, previous)


def _views(data: bytes, shape: list[int]) -> Tensor:
    """Views of a window; raises UserError if the bytes have another shape."""
    with suppress(ValueError):  # of reshape
        pixels: np.ndarray = np.frombuffer(bytearray(data), np.uint8).reshape(shape)
        if pixels.ndim == 5 and len(pixels) > 0 and pixels.shape[1] == 3:
            return torch.from_numpy(pixels)
    raise UserError("the decoder sent no views; give another video")


def _ended(process: ForkServerProcess, limits: Limits) -> str:
    """Why a process ended without a message."""
    process.join()
    if process.exitcode == -signal.SIGXCPU:
        return _too_slow(limits)
    reason = f"code {process.exitcode}"
    if process.exitcode is not None and process.exitcode < 0:
        reason = signal.Signals(-process.exitcode).name
    return (
        f"the decoder of the video failed ({reason}): the file is damaged, or it needs more than "
        f"{limits.decode_bytes / 2**30:g} GiB of memory; give another video"
    )


def _too_slow(limits: Limits) -> str:
    return (
        f"decoding the video took more than {limits.decode_seconds:g} seconds; give a shorter or "
        "smaller video"
    )
