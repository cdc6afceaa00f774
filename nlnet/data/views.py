"""The views of a video, made while its frames are read, so that few frames are in memory."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate, get_worker_info

SHARED_BYTES = 2**26  # of the views of one video
GROUP_FRAMES, GROUP_BYTES = 8, 2**23  # at most so many are resized together, but at least one frame


class Window(NamedTuple):
    """A rectangle of a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int


class Transform(ABC):
    """What turns the frames of a clip into its views: S x S pixels, squares of `crop_size` mostly.

    A view is a window of each frame, resized, and then, if `has_changes`, changed as a whole.
    Calling a transform does this with frames that are all in memory: uint8 (T, H, W, 3) to views
    (3, T, S, S).
    """

    crop_size: int
    has_changes = False

    @property
    def needs_channels_last(self) -> bool:
        """Whether the result of `changed` may depend on the order of the view in memory.

        It then sees frames whose channels come last. The other order is faster to fill and flip.
        """
        return False

    def size(self, height: int, width: int) -> tuple[int, int]:
        """The height and the width of the views of frames of this size."""
        return self.crop_size, self.crop_size

    @abstractmethod
    def windows(self, height: int, width: int, rng: np.random.Generator) -> list[Window]:
        """The window of each view of a clip, for frames of this size."""

    @abstractmethod
    def resized(self, frames: Sequence[np.ndarray] | np.ndarray, window: Window) -> Tensor:
        """The window of each frame: T times (H, W, 3) -> (T, 3, S, S)."""

    def changed(self, view: Tensor, rng: np.random.Generator) -> Tensor:
        """The view with its random changes, after all windows are drawn: (T, 3, S, S)."""
        return view

    def __call__(self, frames: np.ndarray, rng: np.random.Generator) -> list[Tensor]:
        height, width = frames.shape[1:3]
        windows = self.windows(height, width, rng)
        views = [self.changed(self.resized(frames, window), rng) for window in windows]
        return [view.transpose(0, 1).contiguous() for view in views]


class ClipFrames(NamedTuple):
    """The frame numbers (T,) of a clip, and the generator of its random views."""

    numbers: np.ndarray
    rng: np.random.Generator


def wanted_numbers(clips: Sequence[ClipFrames]) -> np.ndarray:
    """The numbers of the frames of all clips: each once, rising."""
    return np.unique(np.concatenate([clip.numbers for clip in clips]))


def read_views(
    frames: Iterable[np.ndarray], clips: Sequence[ClipFrames], transform: Transform
) -> list[Tensor]:
    """All views of all clips, clip by clip: uint8 (3, T, S, S) each, in one block of memory.

    A few frames are cropped and resized before the next ones are read. If each clip has a generator
    of its own, or if nothing is random, the result is that of transforming clip after clip.

    Args:
        frames: uint8 (H, W, 3), those of `wanted_numbers`
        clips: all of T frames
    """
    windows: list[list[Window]] = []
    block = torch.empty(0)
    targets: list[np.ndarray] = []  # of each view, (T, S, S, 3)
    for numbers, group in _groups(wanted_numbers(clips), frames):
        if not windows:
            height, width = group[0].shape[:2]
            windows = [transform.windows(height, width, clip.rng) for clip in clips]
            size = transform.size(height, width)
            block = _empty_views(sum(map(len, windows)), len(clips[0].numbers), size)
            targets = [view.permute(1, 2, 3, 0).numpy() for view in block]
            if transform.needs_channels_last:
                targets = [np.empty(target.shape, np.uint8) for target in targets]
        _fill(targets, numbers, group, clips, windows, transform)
        group.clear()  # before the next frames are made
    if transform.has_changes:
        rngs = [clip.rng for clip, its in zip(clips, windows, strict=True) for _ in its]
        for view, pixels, rng in zip(block, targets, rngs, strict=True):
            resized = torch.from_numpy(pixels).permute(0, 3, 1, 2)
            changed = transform.changed(resized, rng)
            if changed is not resized or transform.needs_channels_last:
                view.copy_(changed.transpose(0, 1))
    return list(block)


def _groups(
    numbers: np.ndarray, frames: Iterable[np.ndarray]
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Frames that are resized together, with their numbers: small frames cost less in groups."""
    source, group, size = iter(frames), list[np.ndarray](), 0
    for end in range(1, len(numbers) + 1):
        frame = next(source)
        size = size or max(min(GROUP_BYTES // frame.nbytes, GROUP_FRAMES), 1)
        group.append(frame)
        del frame
        if len(group) == size or end == len(numbers):
            yield numbers[end - len(group) : end], group
            group = []


def _fill(
    targets: Sequence[np.ndarray],
    numbers: np.ndarray,
    group: Sequence[np.ndarray],
    clips: Sequence[ClipFrames],
    windows: Sequence[Sequence[Window]],
    transform: Transform,
) -> None:
    """Write the windows of a group of frames to the places that they have in the views."""
    # The places in each clip of its frames of this group, and their rows in the group.
    places = [
        np.flatnonzero((clip.numbers >= numbers[0]) & (clip.numbers <= numbers[-1]))
        for clip in clips
    ]
    rows = [
        np.searchsorted(numbers, clip.numbers[at]) for clip, at in zip(clips, places, strict=True)
    ]
    used: dict[Window, np.ndarray] = {}  # whether a clip with this window has the frame
    for row, its_windows in zip(rows, windows, strict=True):
        for window in its_windows if row.size else ():
            used.setdefault(window, np.zeros(len(group), bool))[row] = True
    crops: dict[Window, np.ndarray] = {}
    for window, is_used in used.items():
        chosen = [frame for frame, is_one in zip(group, is_used, strict=True) if is_one]
        crops[window] = transform.resized(chosen, window).permute(0, 2, 3, 1).numpy()
    target = iter(targets)
    for at, row, its_windows in zip(places, rows, windows, strict=True):
        for window, view in zip(its_windows, target, strict=False):
            if at.size:
                order = np.cumsum(used[window])[row] - 1
                for place, which in zip(at, order, strict=True):  # an array of places is slower
                    view[place] = crops[window][which]


def _empty_views(num_views: int, num_frames: int, size: tuple[int, int]) -> Tensor:
    """Memory for (V, 3, T, S, S); a large block is shared, so that a worker need not copy it."""
    block = torch.empty(num_views, 3, num_frames, *size, dtype=torch.uint8)
    if get_worker_info() is not None and block.nbytes >= SHARED_BYTES:
        block.share_memory_()
    return block


def stack_views(views: Sequence[Tensor]) -> Tensor:
    """Stack views; those that make up one block of memory are not copied."""
    first, size = views[0], views[0].numel()
    storage = first.untyped_storage().data_ptr()
    is_block = all(
        view.untyped_storage().data_ptr() == storage
        and view.is_contiguous()
        and view.storage_offset() == i * size
        for i, view in enumerate(views)
    )
    if is_block:
        return first.as_strided((len(views), *first.shape), (size, *first.stride()))
    stacked: Tensor = default_collate(list(views))  # in a worker process, in shared memory
    return stacked
