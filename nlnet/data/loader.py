"""Batches of one split for one rank: what the loops iterate over."""

from collections.abc import Iterator

from torch.utils.data import DataLoader

from nlnet.clip import ClipBatch, Sample
from nlnet.data.index.index import VideoIndex
from nlnet.data.order import EpochOrder
from nlnet.errors import UserError


class TrainLoader:
    """The micro-batches of an epoch, from any step of it on; a new iteration ends the one before.

    `failures` of a batch names videos that could not be read and were replaced. Raises UserError
    where too many in a row cannot be read. Errors are raised here, not in the worker processes,
    where they would lose their one-line message.
    """

    def __init__(
        self, index: VideoIndex, batches: DataLoader[Sample], order: EpochOrder, *, batch_size: int
    ) -> None:
        self.index = index
        self.steps_per_epoch = order.steps_per_epoch
        self._batches = batches
        self._order = order
        self._batch_size = batch_size

    def at(self, epoch: int, step: int = 0) -> Iterator[ClipBatch]:
        """The micro-batches from this optimiser step of this epoch, counted from 0, to its end."""
        self._order.set_position(epoch, step)
        for batch in self._batches:
            if len(batch.label) < self._batch_size:
                path, cause = batch.failures[-1]
                raise UserError(
                    f"too many videos cannot be read, {len(batch.failures)} in one batch, the last "
                    f"{path}: {cause}; check data.root, or take them out of the training split"
                )
            yield batch


class EvalLoader:
    """The views of held-out videos, each video once.

    Raises UserError at the first video that cannot be read, unless `allow_bad`: then it is only
    named in the `failures` of its batch, which may be left without views.
    """

    def __init__(self, index: VideoIndex, batches: DataLoader[Sample], *, allow_bad: bool) -> None:
        self.index = index
        self._batches = batches
        self._allow_bad = allow_bad

    def __iter__(self) -> Iterator[ClipBatch]:
        for batch in self._batches:
            if batch.failures and not self._allow_bad:
                path, cause = batch.failures[0]
                raise UserError(
                    f"{path}: {cause}; mend it, or count it as wrong: data.allow_bad=true"
                )
            yield batch

    def __len__(self) -> int:
        return len(self._batches)
