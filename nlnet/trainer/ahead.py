"""Copying batches to a CUDA device while the step before them is computed."""

from collections.abc import Iterable, Iterator

import torch

from nlnet.clip import ClipBatch
from nlnet.errors import UserError


def copied_ahead(batches: Iterable[ClipBatch], device: torch.device) -> Iterator[ClipBatch]:
    """The batches; on a CUDA device, already copied there. On a CPU they are not touched."""
    return CopyAhead(batches, device) if device.type == "cuda" else iter(batches)


class CopyAhead:
    """Gives each batch on a CUDA device, after the copy of the next one has been started.

    Copies have a stream of their own, so that they do not wait for the step that is computed. They
    are asynchronous if the batches are in pinned memory. A UserError of `batches` is raised where
    its batch would be given, not earlier.
    """

    def __init__(self, batches: Iterable[ClipBatch], device: torch.device) -> None:
        self.copied = torch.cuda.Event()  # after the last copy that was started
        self._batches = iter(batches)
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._is_started = False
        self._next: ClipBatch | UserError | None = None

    def __iter__(self) -> "CopyAhead":
        return self

    def __next__(self) -> ClipBatch:
        if not self._is_started:
            self._is_started, self._next = True, self._start_copy()
        batch = self._next
        if batch is None:
            raise StopIteration
        if isinstance(batch, UserError):
            raise batch
        current = torch.cuda.current_stream(self._device)
        current.wait_event(self.copied)
        for tensor in (batch.video, batch.label, batch.video_id):
            tensor.record_stream(current)  # its memory is not used again before the step has ended
        self._next = self._start_copy()
        return batch

    def _start_copy(self) -> ClipBatch | UserError | None:
        """Start to copy the next batch; None at the end."""
        try:
            batch = next(self._batches, None)
        except UserError as error:
            return error
        if batch is None:
            return None
        with torch.cuda.stream(self._stream):
            moved = batch.to(self._device)
        self.copied.record(self._stream)
        return moved
