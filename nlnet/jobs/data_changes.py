"""Notice what changed in the data of a run between its checkpoint and now."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nlnet.checkpoint import RunData
from nlnet.config import RunConfig
from nlnet.data.index.video_index import VideoIndex
from nlnet.data.loader import EvalLoader, TrainLoader
from nlnet.distributed.ranks import on_main
from nlnet.errors import UserError
from nlnet.runs.video_list import VideoList, VideoRow, split_changes, videos_path
from nlnet.trainer.state import TrainState

PART = 4096  # videos that are listed at once
THREADS = 16  # that ask for sizes of files: on a network disk, each question takes milliseconds


def list_videos(index: VideoIndex, root: str) -> VideoList:
    """The videos of an index: names, classes and sizes of files.

    The files of a manifest are not asked for their sizes: the manifest has them.
    """
    if index.manifest is not None:
        return VideoList(_Rows(index, root, np.zeros(len(index), np.int64)), index.manifest.sha256)
    return VideoList(_Rows(index, root, _sizes(index)))


@dataclass(frozen=True)
class _Rows:
    """The videos of an index below a folder; `sizes` (N,) are those of their files."""

    index: VideoIndex
    root: str
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[VideoRow]:
        below = f"{Path(self.root)}{os.sep}"
        for start in range(0, len(self), PART):
            rows = range(start, min(start + PART, len(self)))
            paths = [path.removeprefix(below) for path in self.index.names(rows)]
            sizes = self.sizes[rows.start : rows.stop].tolist()
            yield from map(VideoRow, paths, _classes(self.index, rows), sizes)


def _classes(index: VideoIndex, rows: range) -> list[str]:
    """The names of the classes of these videos."""
    names, labels = index.class_names, index.labels[rows.start : rows.stop]
    if labels.ndim == 1:
        return [names[label] for label in labels.tolist()]
    return ["|".join(names[k] for k in np.flatnonzero(row)) for row in labels]


def _sizes(index: VideoIndex) -> np.ndarray:
    """The sizes of the files (N,); 0 for a file that is missing."""
    sizes = np.zeros(len(index), np.int64)

    def fill(first: int) -> None:
        for i in range(first, len(index), THREADS):
            path = index.path(i)
            sizes[i] = os.stat(path).st_size if os.path.exists(path) else 0

    with ThreadPoolExecutor(THREADS) as threads:
        for _ in threads.map(fill, range(THREADS)):
            pass
    return sizes


def check_data(
    run: RunConfig,
    out_dir: Path,
    state: TrainState,
    loader: TrainLoader,
    val_loader: EvalLoader,
) -> list[str]:
    """Compare the data with those of the checkpoint that the state was loaded from, if any.

    Then the state holds the facts about the data of now, and the folder of the run lists the
    videos. If other data are accepted and an epoch has another number of steps, the run goes on at
    the same share of the epoch.

    Returns:
        log lines about accepted changes

    Raises:
        UserError: the data changed, and `trainer.accept_changes` does not accept that.
    """
    indices = {"train": loader.index, "val": val_loader.index}
    facts, changes = on_main(
        lambda: _compare(out_dir, state, indices, run.data.root, run.trainer.accept_changes)
    )
    saved = state.data
    state.data = RunData(facts, run.data.batch_size, loader.steps_per_epoch)
    if saved is not None and saved.steps_per_epoch != loader.steps_per_epoch:
        changes = [*changes, *_reposition(state, saved.steps_per_epoch, loader.steps_per_epoch)]
    return changes


def _compare(
    out_dir: Path,
    state: TrainState,
    indices: Mapping[str, VideoIndex],
    root: str,
    accept: bool,
) -> tuple[dict, list[str]]:
    """The facts about each split, and log lines about accepted changes; for rank 0."""
    lists = {split: list_videos(index, root) for split, index in indices.items()}
    changes = []
    if state.data is not None:
        for split, saved in state.data.splits.items():
            changes += split_changes(out_dir, split, saved, lists[split])
    if changes and not accept:
        raise UserError(
            f"{out_dir}: the data are not those of its checkpoint: {'; '.join(changes)}; restore "
            "them, go on with the data of now by trainer.accept_changes=true, or train in another "
            "folder with name=NAME"
        )
    facts = {split: videos.write(videos_path(out_dir, split)) for split, videos in lists.items()}
    return facts, [f"accepted change of the data: {change}" for change in changes]


def _reposition(state: TrainState, before: int, now: int) -> list[str]:
    """Go on at the same share of an epoch that has another number of steps."""
    progress = state.progress
    progress.step = progress.step * now // before
    progress.global_step = progress.epoch * now + progress.step
    return [
        f"an epoch has {now} steps, no longer {before}: goes on after step {progress.step} of "
        f"epoch {progress.epoch + 1}; the learning rate fits the new length"
    ]
