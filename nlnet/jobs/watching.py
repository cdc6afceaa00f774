"""Tell the watch of a rank what a training does: which files it decodes, which step it makes."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import count
from typing import TypeVar

from nlnet.clip import ClipBatch
from nlnet.data.loader import TrainLoader
from nlnet.distributed.watch import Watch

T = TypeVar("T")


def watched_batches(
    loader: TrainLoader, watch: Watch, *, accumulate: int, known: Mapping[str, str]
) -> Callable[[int, int], Iterator[ClipBatch]]:
    """The function `at` of a loader, with `known`, which tells the watch about each micro-batch."""
    if watch.is_idle:
        return partial(loader.at, known=known)

    def at(epoch: int, step: int) -> Iterator[ClipBatch]:
        files = loader.files_at(epoch, step)
        batches = loader.at(epoch, step, known)
        for i in count():
            place = f"epoch {epoch + 1}, step {step + i // accumulate + 1}"
            watch.decodes(place, next(files, []))
            batch = next(batches, None)
            if batch is None:
                return
            watch.trains(place)
            yield batch

    return at


def watched_pause(watch: Watch, stage: str, work: Callable[[], T]) -> Callable[[], T]:
    """Work that may take long, which tells the watch first."""

    def watched() -> T:
        watch.pauses(stage)
        return work()

    return watched
