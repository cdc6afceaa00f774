"""Batches of one split for one rank: the training and evaluation loops iterate over them."""

from collections.abc import Iterator, Mapping
from itertools import islice

from torch.utils.data import DataLoader

from nlnet.clip import ClipBatch, Failure, Sample
from nlnet.data.index.video_index import VideoIndex
from nlnet.data.order import EpochOrder, EvaluationOrder
from nlnet.data.setting_names import ARGUMENT_NAMES, SettingNames
from nlnet.errors import UserError


class TrainLoader:
    """The micro-batches of an epoch, from any step on.

    A new iteration ends the one before it. `failures` of a batch names the videos that could not be
    read and were replaced. `remarks` are lines about the data to log before training. Raises
    UserError if too many videos in a row cannot be read. Errors are raised here and not in the
    worker processes, which would add a traceback to the message.
    """

    def __init__(
        self,
        index: VideoIndex,
        batches: DataLoader[Sample],
        order: EpochOrder,
        *,
        batch_size: int,
        remarks: tuple[str, ...] = (),
        settings: SettingNames = ARGUMENT_NAMES,
    ) -> None:
        self.index = index
        self.steps_per_epoch = order.steps_per_epoch
        self.remarks = remarks
        self._batches = batches
        self._order = order
        self._batch_size = batch_size
        self._settings = settings

    def at(
        self, epoch: int, step: int = 0, known: Mapping[str, str] | None = None
    ) -> Iterator[ClipBatch]:
        """The micro-batches of an epoch from an optimizer step on; both are counted from 0.

        `known` are files that could not be read, and the causes. They are not tried again: the
        batches are those of an attempt that fails. `known` may grow during the iteration.
        """
        known = {} if known is None else known
        # Without a reference to self, which would be a cycle: the garbage collector closes the
        # queues of the workers before it ends the workers, and then waits 5 s for each of them.
        index = self.index
        self._order.set_position(epoch, step, lambda video: str(index.path(video)) in known)
        for batch in self._batches:
            batch = batch._replace(
                failures=tuple(
                    Failure(path, cause or known[path]) for path, cause in batch.failures
                )
            )
            if len(batch.label) < self._batch_size:
                path, cause = batch.failures[-1]
                raise UserError(
                    f"too many videos cannot be read, {len(batch.failures)} in one batch, the last "
                    f"{path}: {cause}; check {self._settings.root}, or remove the videos from the "
                    "training split"
                )
            yield batch

    def files_at(self, epoch: int, step: int = 0) -> Iterator[list[str]]:
        """The files of each micro-batch of `at`; call it first, and take one before each batch."""
        self._order.set_position(epoch, step)
        keys = iter(self._order)
        while batch := list(islice(keys, self._batches.batch_size)):
            yield [str(self.index.path(key.video)) for key in batch]


class EvalLoader:
    """The views of held-out videos, each video once.

    Raises UserError at the first video that cannot be read, unless `allow_bad`. With `allow_bad`,
    the video is named in the `failures` of its batch, which may have no views.
    """

    def __init__(
        self,
        index: VideoIndex,
        batches: DataLoader[Sample],
        order: EvaluationOrder,
        *,
        allow_bad: bool,
        settings: SettingNames = ARGUMENT_NAMES,
    ) -> None:
        self.index = index
        self._batches = batches
        self._order = order  # of `batches`
        self._allow_bad = allow_bad
        self._settings = settings

    def skip(self, batches: int) -> None:
        """Leave out the first batches from now on; those that follow stay the same."""
        self._order.skip(batches * (self._batches.batch_size or 1))

    def __iter__(self) -> Iterator[ClipBatch]:
        for batch in self._batches:
            if batch.failures and not self._allow_bad:
                path, cause = batch.failures[0]
                raise UserError(
                    f"{path}: {cause}; repair the file, or count it as wrong with "
                    f"{self._settings.allow_bad}=true"
                )
            yield batch

    def __len__(self) -> int:
        return len(self._batches)
